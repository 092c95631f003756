"""What the engine is asked, what it answers, and the state of a sequence in between.

Everything is token ids: text belongs to the tokenizer. A sequence feeds ids to the model and says
at which positions it wants to see the vocabulary; what comes back moves it on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from .kv_cache import SequenceCache
from .sampling import Sampling, choose

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Generate:
    """Continue `prompt`. Ends at a stop id (not part of the answer), when `should_stop` says so of
    the new ids so far, or at sampling.max_tokens."""

    prompt: Ids
    sampling: Sampling = Sampling()
    stop_ids: frozenset[int] = frozenset()
    should_stop: Callable[[Sequence[int]], bool] | None = None


@dataclass(frozen=True)
class ScoreContinuations:
    """Log-probability of each continuation, given `prompt`; every one has at least one id."""

    prompt: Ids
    continuations: tuple[Ids, ...]


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
    """One line of tokens on its way through the model.

    tokens[:fed] are in the cache or its parents (with those of a branch's root before them,
    `offset` in number). `prompt`: ids whose keys and values others may share; none for a line
    whose every position is scored.
    """

    tokens: list[int]
    offset: int = 0
    fed: int = 0
    alpha: float = 1.0
    prompt: Ids = ()
    cache: SequenceCache | None = field(default=None, repr=False)
    parent: SequenceCache | None = field(default=None, repr=False)

    def waiting(self) -> int:
        """Tokens not yet fed."""
        return len(self.tokens) - self.fed


class ScoringTrack(Track):
    """Reads off the log-probability of its own next token at every position."""

    def __init__(self, tokens: Sequence[int], offset: int = 0) -> None:
        super().__init__(list(tokens), offset)
        self.logprobs: list[float] = []
        self.greedy: list[bool] = []

    def wanted(self, start: int, end: int) -> range:
        """Positions in [start, end) whose logits are needed."""
        return range(start, min(end, len(self.tokens) - 1))

    def take(self, position: int, logits_RV: Tensor) -> None:
        """Read rows of fp32 logits, the first standing at `position`."""
        rows = logits_RV.shape[0]
        targets = self.tokens[position + 1 : position + 1 + rows]
        picked_R = logits_RV.gather(1, torch.tensor(targets, device=logits_RV.device)[:, None])
        self.logprobs += (picked_R[:, 0] - logits_RV.logsumexp(-1)).tolist()
        best = logits_RV.argmax(-1).tolist()
        self.greedy += [b == t for b, t in zip(best, targets, strict=True)]


class PromptTrack(Track):
    """A prompt whose last position decides the first token of every continuation."""

    def __init__(self, request: ScoreContinuations) -> None:
        super().__init__(list(request.prompt), prompt=request.prompt)
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
        logits_V = logits_RV[0]
        firsts = torch.tensor([c[0] for c in self.continuations], device=logits_V.device)
        self.first_logprobs = (logits_V[firsts] - logits_V.logsumexp(-1)).tolist()
        best = int(logits_V.argmax())
        self.first_greedy = [c[0] == best for c in self.continuations]
        self.branches = [
            ScoringTrack(c, offset=len(self.tokens)) if len(c) > 1 else None
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
    """A prompt that grows by one token per step."""

    def __init__(self, request: Generate) -> None:
        super().__init__(list(request.prompt), prompt=request.prompt)
        self.request = request
        self.logprobs: list[float] = []
        self.reason: Literal["stop", "length"] | None = None
        self._generator: torch.Generator | None = None
        if request.sampling.temperature > 0:
            self._generator = torch.Generator().manual_seed(request.sampling.seed)

    @property
    def new_ids(self) -> list[int]:
        """What has been written so far."""
        return self.tokens[len(self.prompt) :]

    def wanted(self, start: int, end: int) -> range:
        """Only the last position."""
        return range(max(start, len(self.tokens) - 1), end)

    def take(self, position: int, logits_RV: Tensor) -> None:
        """Append the next token, or end."""
        assert position == len(self.tokens) - 1
        logits_V, request = logits_RV[0], self.request
        token = choose(logits_V, request.sampling, self.tokens, self._generator)
        if token in request.stop_ids:
            self.reason = "stop"
            return
        self.tokens.append(token)
        self.logprobs.append(float(logits_V[token] - logits_V.logsumexp(-1)))
        if request.should_stop is not None and request.should_stop(self.new_ids):
            self.reason = "stop"
        elif len(self.logprobs) >= request.sampling.max_tokens:
            self.reason = "length"

    def result(self) -> Generated:
        """The finished answer."""
        assert self.reason is not None
        return Generated(tuple(self.new_ids), tuple(self.logprobs), self.reason)


AnyTrack = ScoringTrack | PromptTrack | GeneratingTrack
