"""Which tokens go through the model next.

First come, first served: a sequence is admitted when its keys and values fit the cache budget for
its whole life, so nothing admitted is ever thrown out again. Each step feeds one token of every
decoding sequence and fills the rest of the token budget with prompts, cut into chunks where they
do not fit. Knows nothing of the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .sequence import AnyTrack, GeneratingTrack, PromptTrack, ScoringTrack


@dataclass(eq=False)
class Job:
    """One request: its root track, the branches that stand on it, and its cache reservation."""

    id: int
    root: AnyTrack
    reserved: int
    branches: list[ScoringTrack] = field(default_factory=list)

    def tracks(self) -> Iterator[AnyTrack]:
        """Root and branches."""
        yield self.root
        yield from self.branches

    def branch_out(self) -> None:
        """Put the continuations' tracks beside the root once its prompt has been read."""
        if isinstance(self.root, PromptTrack) and not self.branches:
            self.branches = [branch for branch in self.root.branches if branch is not None]
            for branch in self.branches:
                branch.parent, branch.alpha = self.root.cache, self.root.alpha

    @property
    def finished(self) -> bool:
        """Whether nothing is left to feed."""
        if isinstance(self.root, GeneratingTrack):
            return self.root.reason is not None
        if isinstance(self.root, PromptTrack) and not self.root.branches:
            return False
        # The last token of a scored line is only ever a target.
        return all(
            track.waiting() <= (1 if isinstance(track, ScoringTrack) else 0)
            for track in self.tracks()
        )


@dataclass(frozen=True)
class Piece:
    """Feed tokens[start : start + length] of a track in this step."""

    track: AnyTrack
    start: int
    length: int


class Scheduler:
    """A waiting line, the running jobs, and the budgets.

    `token_budget`: tokens fed per step. `cache_budget`: tokens whose keys and values may be held
    at a time. `max_jobs`: requests computed at a time.
    """

    def __init__(self, max_jobs: int, token_budget: int, cache_budget: int) -> None:
        self.max_jobs, self.token_budget, self.cache_budget = max_jobs, token_budget, cache_budget
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self._reserved = 0

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError if it could never be admitted."""
        if job.reserved > self.cache_budget:
            raise ValueError(
                f"needs {job.reserved} tokens of cache, the budget is {self.cache_budget}"
            )
        self.waiting.append(job)

    def remove(self, job: Job) -> None:
        """Forget a finished job and free its reservation."""
        self.running.remove(job)
        self._reserved -= job.reserved

    def plan(self) -> list[Piece]:
        """The pieces of the next step: decoding first, then prompts in order of arrival."""
        while (
            self.waiting
            and len(self.running) < self.max_jobs
            and self._reserved + self.waiting[0].reserved <= self.cache_budget
        ):
            job = self.waiting.popleft()
            self._reserved += job.reserved
            self.running.append(job)
        pieces: list[Piece] = []
        prompts: list[Piece] = []
        for job in self.running:
            for track in job.tracks():
                needed = track.waiting() - isinstance(track, ScoringTrack)
                if needed > 0:
                    decoding = needed == 1 and isinstance(track, GeneratingTrack)
                    (pieces if decoding else prompts).append(Piece(track, track.fed, needed))
        # At least one prompt token moves on in every step, however many sequences decode.
        left = max(self.token_budget - len(pieces), 1)
        for piece in prompts:
            if left == 0:
                break
            length = min(piece.length, left)
            pieces.append(Piece(piece.track, piece.start, length))
            left -= length
        return pieces
