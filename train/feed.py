"""Which sequences each step of a training run sees, whatever the number of processes.

A step's batch is a run of places in an order that seed and epoch fix; a process takes its share of
it. So a run that is resumed, also by more or fewer processes, sees what it would have seen. Knows
nothing of models.

Shapes: B sequences of S tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from qwen_eval.errors import UserError

from .cross_entropy import IGNORED
from .data.pack import PackedCorpus

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Part:
    """What one process computes at a time.

    ids_BS: int64. targets_BS: the next token of every token, IGNORED where none is asked for.
    documents_BS: the number of every token's document, or None where documents see one another.
    """

    ids_BS: Tensor
    targets_BS: Tensor
    documents_BS: Tensor | None


class Sequences(Protocol):
    """What a stage of training reads: sequences of one length in an order of their own."""

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        ...

    def __len__(self) -> int:
        """Sequences of an epoch."""
        ...

    def places(self, first: int, count: int) -> list[int]:
        """Sequences seen from the first-th on, over as many epochs as that takes."""
        ...

    def parts(self, places: Sequence[int], size: int) -> Iterator[Any]:
        """The sequences at these places, `size` at a time, as the stage's loss takes them."""
        ...

    def tokens_asked(self, places: Sequence[int]) -> int:
        """How many of their tokens have a target; what a loss is the mean over."""
        ...


def shuffled(first: int, count: int, total: int, seed: int) -> list[int]:
    """`count` of `total` places from the first-th seen on: every epoch in an order of its own."""
    found: list[int] = []
    while len(found) < count:
        epoch, at = divmod(first + len(found), total)
        found.extend(_order(epoch, total, seed)[at : at + count - len(found)].tolist())
    return found


@lru_cache(maxsize=2)
def _order(epoch: int, total: int, seed: int) -> NDArray[np.int64]:
    import numpy as np

    return np.random.default_rng([seed, epoch]).permutation(total)


@dataclass(frozen=True)
class Feed:
    """Sequences of `length` tokens, cut from those of a packed corpus.

    Raises UserError if the corpus's sequences cannot be cut so.
    """

    corpus: PackedCorpus
    length: int
    seed: int
    separate: bool = False

    def __post_init__(self) -> None:
        if self.corpus.length % self.length:
            raise UserError(
                f"stages: a length of {self.length} does not divide the sequences of "
                f"{self.corpus.length} tokens in {self.corpus.folder}; take another, or pack again"
            )
        if not len(self.corpus):
            raise UserError(f"{self.corpus.folder}: holds no sequence; there is too little text")

    def __len__(self) -> int:
        return len(self.corpus) * self._cuts

    @property
    def _cuts(self) -> int:
        return self.corpus.length // self.length

    def places(self, first: int, count: int) -> list[int]:
        """Sequences seen from the first-th on, over as many epochs as that takes."""
        return shuffled(first, count, len(self), self.seed)

    def parts(self, places: Sequence[int], size: int) -> Iterator[Part]:
        """The sequences at these places, `size` at a time."""
        for start in range(0, len(places), size):
            yield self._part(places[start : start + size])

    def tokens_asked(self, places: Sequence[int]) -> int:
        """How many of their tokens have a target."""
        if not self.separate:
            return len(places) * (self.length - 1)
        return sum(int((part.targets_BS != IGNORED).sum()) for part in self.parts(places, 1))

    def _part(self, places: Sequence[int]) -> Part:
        import numpy as np

        cut = [divmod(place, self._cuts) for place in places]
        rows = [
            self.corpus[row][at * self.length : (at + 1) * self.length].astype(np.int64)
            for row, at in cut
        ]
        ids_BS = torch.from_numpy(np.stack(rows))
        targets_BS = torch.full_like(ids_BS, IGNORED)
        targets_BS[:, :-1] = ids_BS[:, 1:]
        if not self.separate:
            return Part(ids_BS, targets_BS, None)
        begins_BS = torch.zeros_like(ids_BS)
        for line, (row, at) in enumerate(cut):
            starts = self.corpus.starts(row) - at * self.length
            begins_BS[line, starts[(starts >= 0) & (starts < self.length)]] = 1
        # The end of one document says nothing of which comes next.
        targets_BS[:, :-1][begins_BS[:, 1:] == 1] = IGNORED
        return Part(ids_BS, targets_BS, begins_BS.cumsum(1))
