"""What the engine is asked, what it answers, and the state of a sequence in between.

Everything is token ids: text belongs to the tokenizer. A sequence feeds ids to the model and says
at which positions it wants to see the vocabulary; what comes back moves it on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .drafts import Drafts
from .paged_attention import Stretch
from .pages import PagePool, PageTable, Run
from .sampling import Sampling, choose

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Generate:
    """Continue `prompt`. Ends at a stop id (not part of the answer), when `should_stop` says so of
    the new ids so far, or at sampling.max_tokens. `shared`: see ScoreContinuations."""

    prompt: Ids
    sampling: Sampling = Sampling()
    stop_ids: frozenset[int] = frozenset()
    should_stop: Callable[[Sequence[int]], bool] | None = None
    shared: int | None = None


@dataclass(frozen=True)
class ScoreContinuations:
    """Log-probability of each continuation, given `prompt`; every one has at least one id.

    `shared`: how many of the prompt's first ids others may begin with as well, None for all. More
    is not kept for them; it changes what is computed anew and nothing else.
    """

    prompt: Ids
    continuations: tuple[Ids, ...]
    shared: int | None = None


@dataclass(frozen=True)
class ScoreTokens:
    """Log-probability of each of `ids` from the second on, given those before it."""

    ids: Ids


EngineRequest = Generate | ScoreContinuations | ScoreTokens


@dataclass(frozen=True)
class Generated:
    """New ids without the stop id, and the natural-log probability of each under the model's own
    distribution (before temperature, penalty and truncation)."""

    ids: Ids
    logprobs: tuple[float, ...]
    reason: Literal["stop", "length"]


@dataclass(frozen=True)
class ContinuationScore:
    """One continuation: its tokens' log-probabilities, and whether greedy would have chosen it."""

    logprobs: tuple[float, ...]
    greedy: bool


EngineResult = Generated | tuple[ContinuationScore, ...] | tuple[float, ...]


@dataclass(eq=False)
class Track:
    """One line of tokens on its way through the model, and the pages that hold its keys.

    tokens[:fed] are in the pages. `prompt`: ids that may be read from what others have read; none
    for a line whose positions are scored. `shared`: how many of them are kept for others. `tables`,
    one per pool, list the pages of the tokens; where it decodes, the first `closed` places do, and
    the newest tokens lie in `slot`, the same page of every pool. `cleared`: positions that may be
    read. `edge`: tokens that may be read with its alpha, None for any number; those behind are read
    anew with another.
    """

    tokens: list[int]
    fed: int = 0
    alpha: float = 1.0
    edge: int | None = None
    prompt: Ids = ()
    shared: int | None = None
    tables: list[PageTable] = field(default_factory=list)
    slot: int | None = None
    closed: int = 0
    cleared: int = 0

    def waiting(self) -> int:
        """Tokens not yet fed."""
        return len(self.tokens) - self.fed

    @property
    def at_edge(self) -> bool:
        """Whether it has to be read anew before it goes on."""
        return self.edge is not None and self.fed >= self.edge

    def until_edge(self, count: int) -> int:
        """As many of the next tokens as may be fed with its alpha."""
        return count if self.edge is None else min(count, self.edge - self.fed)

    def begin_anew(self, alpha: float, edge: int) -> None:
        """Hold no page and have fed nothing; what it has been told so far stays."""
        self.alpha, self.edge, self.fed, self.cleared = alpha, edge, 0, 0
        self.tables, self.slot = [], None

    def page(self, pool: int, place: int) -> int:
        """The page of the pool-th pool that holds the place-th run of tokens."""
        slot = self.slot
        return slot if slot is not None and place >= self.closed else self.tables[pool].page(place)

    def lasts(self, pool: int, place: int) -> bool:
        """Whether that page will hold the same tokens for the whole life of the line."""
        in_slot = self.slot is not None and place >= self.closed
        return not in_slot and self.tables[pool].lasts(place)

    def run(self, pool: int, low: int, high: int, *, sinks: int = 0) -> Run:
        """Its pages from place `low` up to `high`, and the one of `sinks` first tokens."""
        sink = self.page(pool, 0) if sinks and low > 0 else None
        return Run(low, tuple(self.page(pool, place) for place in range(low, high)), sink)

    def stretches(self, start: int, length: int, pools: Sequence[PagePool]) -> Iterator[Stretch]:
        """The next tokens [start, start + length), cut where a page ends, with the pages of every
        pool that they see."""
        size, end = pools[0].size, start + length
        while start < end:
            place = start // size
            count = min(end, (place + 1) * size) - start
            runs = (
                self.run(i, pool.first_seen(start), place + 1, sinks=pool.sinks)
                for i, pool in enumerate(pools)
            )
            yield Stretch(count, start, tuple(runs))
            start += count


class ScoringTrack(Track):
    """Reads off the log-probability of its own next token at every position it feeds, but for
    those known already; the first `fed` tokens are another's and lie in its pages already."""

    def __init__(self, tokens: Sequence[int], fed: int = 0) -> None:
        super().__init__(list(tokens), fed)
        self._first = fed
        self.logprobs: list[float] = []
        self.greedy: list[bool] = []

    def wanted(self, start: int, end: int) -> range:
        """Positions in [start, end) whose logits are needed."""
        known = self._first + len(self.logprobs)
        return range(max(start, known), min(end, len(self.tokens) - 1))

    def take(self, position: int, logits_RV: Tensor) -> None:
        """Read rows of fp32 logits, the first standing at `position`."""
        rows = logits_RV.shape[0]
        targets = self.tokens[position + 1 : position + 1 + rows]
        self.logprobs += logprobs_of(logits_RV, targets)
        best = logits_RV.argmax(-1).tolist()
        self.greedy += [b == t for b, t in zip(best, targets, strict=True)]


class PromptTrack(Track):
    """A prompt whose last position decides the first token of every continuation."""

    def __init__(self, request: ScoreContinuations) -> None:
        super().__init__(list(request.prompt), prompt=request.prompt, shared=request.shared)
        self.continuations = request.continuations
        self.first_logprobs: list[float] = []
        self.first_greedy: list[bool] = []
        self.branches: list[ScoringTrack | None] = []

    def wanted(self, start: int, end: int) -> range:
        """Only the last position."""
        return range(max(start, len(self.tokens) - 1), end)

    def take(self, position: int, logits_RV: Tensor) -> None:
        """Score all first tokens; open a branch for each continuation that goes on."""
        assert position == len(self.tokens) - 1
        firsts = [c[0] for c in self.continuations]
        self.first_logprobs = logits_RV.log_softmax(-1)[0, firsts].tolist()
        best = int(logits_RV[0].argmax())
        self.first_greedy = [c[0] == best for c in self.continuations]
        self.branches = [
            ScoringTrack([*self.tokens, *c], len(self.tokens)) if len(c) > 1 else None
            for c in self.continuations
        ]

    def result(self) -> tuple[ContinuationScore, ...]:
        """All continuations' scores, once every branch has been fed."""
        scores = []
        for first, greedy, branch in zip(
            self.first_logprobs, self.first_greedy, self.branches, strict=True
        ):
            rest = branch.logprobs if branch else []
            also = branch.greedy if branch else []
            scores.append(ContinuationScore((first, *rest), greedy and all(also)))
        return tuple(scores)


class GeneratingTrack(Track):
    """A prompt that grows by one token per step, or by more where a draft proves right.

    A draft is what followed the last time the same few tokens were seen; a greedy sequence tries
    it, and keeps what it would have written itself.
    """

    def __init__(self, request: Generate) -> None:
        super().__init__(list(request.prompt), prompt=request.prompt, shared=request.shared)
        self.request = request
        self.read = len(request.prompt)  # tokens that are fed as a prompt is
        self.logprobs: list[float] = []
        self.reason: Literal["stop", "length"] | None = None
        self.drafted: Ids = ()
        self._drafts = Drafts() if request.sampling.greedy else None
        self._generator: torch.Generator | None = None
        if not request.sampling.greedy:
            self._generator = torch.Generator().manual_seed(request.sampling.seed)

    @property
    def new_ids(self) -> list[int]:
        """What has been written so far."""
        return self.tokens[len(self.prompt) :]

    @property
    def decoding(self) -> bool:
        """Whether its prompt has been read, and what it had written when it began anew."""
        return self.fed >= self.read

    def begin_anew(self, alpha: float, edge: int) -> None:
        """See Track; what it wrote is now read as its prompt is."""
        super().begin_anew(alpha, edge)
        self.read = len(self.tokens)

    def draft(self, most: int) -> Ids:
        """Up to `most` tokens worth trying after those written; they are tried in this step."""
        left = self.request.sampling.max_tokens - len(self.logprobs) - 1
        self.drafted = ()
        if self._drafts is not None and min(most, left) > 0:
            self.drafted = self._drafts.after(self.tokens, min(most, left))
        return self.drafted

    def wanted(self, start: int, end: int) -> range:
        """The last position, and those of a draft behind it."""
        return range(max(start, len(self.tokens) - 1), end)

    def take(self, position: int, logits_RV: Tensor) -> None:
        """Append the next token, and those of the draft that it would have chosen; or end."""
        assert position == len(self.tokens) - 1
        drafted, self.drafted = self.drafted, ()
        right = 0
        for row, logits_V in enumerate(logits_RV):
            self._append(logits_V)
            if self.reason is not None or drafted[row : row + 1] != (self.tokens[-1],):
                break
            right += 1
        if drafted and self._drafts is not None:
            self._drafts.learn(tried=len(drafted), right=right)
        # What was fed of a wrong draft is written over.
        self.fed = min(self.fed, len(self.tokens) - 1)

    def result(self) -> Generated:
        """The finished answer."""
        assert self.reason is not None
        return Generated(tuple(self.new_ids), tuple(self.logprobs), self.reason)

    def _append(self, logits_V: Tensor) -> None:
        request = self.request
        token = choose(logits_V, request.sampling, self.tokens, self._generator)
        if token in request.stop_ids:
            self.reason = "stop"
            return
        self.tokens.append(token)
        self.logprobs.append(logprobs_of(logits_V[None], [token])[0])
        if request.should_stop is not None and request.should_stop(self.new_ids):
            self.reason = "stop"
        elif len(self.logprobs) >= request.sampling.max_tokens:
            self.reason = "length"


def logprobs_of(logits_RV: Tensor, targets: Sequence[int]) -> list[float]:
    """Log-probability of one target per row. log_softmax takes each row for itself, where a
    plain sum may be split among threads by the number of rows."""
    chosen = torch.tensor(targets, device=logits_RV.device)[:, None]
    return logits_RV.log_softmax(-1).gather(1, chosen)[:, 0].tolist()


AnyTrack = ScoringTrack | PromptTrack | GeneratingTrack


@dataclass(frozen=True)
class Piece:
    """Feed tokens[start : start + length] of a track in this step, and then its draft."""

    track: AnyTrack
    start: int
    length: int
    draft: Ids = ()

    @property
    def rows(self) -> int:
        """How many tokens are fed."""
        return self.length + len(self.draft)
