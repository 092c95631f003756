"""Instructions that share 13 words in a row with a test set are left out.

The paper removes "any instruction samples that exhibit a 13-gram overlap with any data present in
the test sets", as Brown et al. 2020 do: from instruction data only, not from the web corpus. What a
word is: `qwen_eval.ngrams`. A test row whose texts are all shorter than 13 words cannot be
recognised so; their number is kept and shown. Knows nothing of tasks: texts are handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from qwen_eval.fileio import text_hash
from qwen_eval.ngrams import ngrams, ngrams_of, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

LENGTH = 13
BATCH = 256  # rows whose texts are read together


@dataclass(frozen=True)
class KnownTests:
    """The n-grams of some test sets, sorted, each with the first set that has it."""

    n: int
    grams: NDArray[np.uint64]
    owners: NDArray[np.uint16]
    names: tuple[str, ...]
    rows: Mapping[str, int]
    short: Mapping[str, int]  # rows of each set without any n-gram

    def found_in(self, text: str) -> str | None:
        """The test set that a text shares an n-gram with, or None. The earliest n-gram decides."""
        import numpy as np

        grams = ngrams(words(text), self.n)
        if not len(grams) or not len(self.grams):
            return None
        places = np.searchsorted(self.grams, grams)
        places[places == len(self.grams)] = 0
        hits = np.flatnonzero(self.grams[places] == grams)
        return self.names[self.owners[places[hits[0]]]] if len(hits) else None

    def digest(self) -> str:
        """A hash of what would be found."""
        import hashlib

        hashed = hashlib.sha256(self.grams.tobytes() + self.owners.tobytes())
        return text_hash(f"{self.n} {self.names} {hashed.hexdigest()}")


def known_tests(sets: Mapping[str, Iterable[Iterable[str]]], n: int = LENGTH) -> KnownTests:
    """The n-grams of test sets: for each name its rows, each row as its texts."""
    import numpy as np

    grams, owners = [np.empty(0, np.uint64)], [np.empty(0, np.uint16)]
    rows: dict[str, int] = {}
    short: dict[str, int] = {}
    for number, (name, of_set) in enumerate(sets.items()):
        rows[name] = short[name] = 0
        found = [np.empty(0, np.uint64)]
        waiting = iter(of_set)
        while batch := [list(texts) for texts in islice(waiting, BATCH)]:
            of_batch, text_of = ngrams_of([text for texts in batch for text in texts], n)
            row_of = np.repeat(np.arange(len(batch)), [len(texts) for texts in batch])
            rows[name] += len(batch)
            in_row = np.bincount(row_of[text_of], minlength=len(batch))
            short[name] += int((in_row == 0).sum())
            found.append(of_batch)
        grams.append(np.concatenate(found))
        owners.append(np.full(len(grams[-1]), number, np.uint16))
    every, first = np.unique(np.concatenate(grams), return_index=True)
    return KnownTests(n, every, np.concatenate(owners)[first], tuple(sets), rows, short)


def texts_of(value: Any) -> list[str]:
    """Every text in a row, however deep it stands."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [text for part in value for text in texts_of(part)]
    return []
