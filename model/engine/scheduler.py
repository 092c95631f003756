"""Which tokens go through the model next.

First come, first served: a sequence is admitted when its keys and values fit the cache budget for
its whole life, so nothing admitted is ever thrown out again; stored prefixes that nobody stands on
make room for it. A prompt whose beginning is just being read by another waits for that, and takes
it from the prefix cache. Each step feeds one token of every decoding sequence and fills the rest of
the token budget with prompts, cut into chunks where they do not fit. Knows nothing of the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .prefix_cache import Node, PrefixCache
from .sequence import AnyTrack, GeneratingTrack, Ids, PromptTrack, ScoringTrack

PREFIX_SHARE = 0.25


@dataclass(eq=False)
class Job:
    """One request: its root track, the branches that stand on it, and its cache reservation.

    `reserved`: tokens of cache it needs of its own. It stands on the stored prefix `pinned`, if on
    any. `stored`: its own prompt has been offered to the prefix cache.
    """

    id: int
    root: AnyTrack
    reserved: int
    branches: list[ScoringTrack] = field(default_factory=list)
    pinned: Node | None = None
    stored: bool = False

    @property
    def shareable(self) -> Ids:
        """The ids whose keys and values may come from another prompt: not the last, for its logits
        are wanted."""
        return self.root.prompt[:-1]

    @property
    def reading(self) -> bool:
        """Whether its prompt is still being read."""
        return self.root.fed < len(self.root.prompt)

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
    at a time, of which stored prefixes take at most PREFIX_SHARE. `max_jobs`: requests computed at
    a time.
    """

    def __init__(self, max_jobs: int, token_budget: int, cache_budget: int) -> None:
        self.max_jobs, self.token_budget, self.cache_budget = max_jobs, token_budget, cache_budget
        self.prefixes = PrefixCache()
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self._reserved = 0

    @property
    def held(self) -> int:
        """Tokens of cache that are reserved or stored."""
        return self._reserved + self.prefixes.tokens

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
        if job.pinned is not None:
            self.prefixes.unpin(job.pinned)
            job.pinned = None

    def store_prompts(self) -> None:
        """Offer every prompt that has now been read to the prefix cache."""
        for job in self.running:
            if job.root.prompt and not job.reading and not job.stored:
                job.stored = True
                room = min(
                    int(PREFIX_SHARE * self.cache_budget), self.cache_budget - self._reserved
                )
                assert job.root.cache is not None
                self.prefixes.insert(job.root.prompt, job.root.alpha, job.root.cache, room)

    def plan(self) -> list[Piece]:
        """The pieces of the next step: decoding first, then prompts in order of arrival."""
        self._admit()
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

    def _admit(self) -> None:
        for job in list(self.waiting):
            if len(self.running) >= self.max_jobs:
                return
            if self._is_being_read(job):
                continue
            if not self._make_room(job):
                return  # nobody overtakes one that waits for room
            self.waiting.remove(job)
            self.running.append(job)

    def _is_being_read(self, job: Job) -> bool:
        """Whether a running prompt will soon store more of this one's beginning than is stored."""
        ids, alpha = job.shareable, job.root.alpha
        reading = [other for other in self.running if other.reading and other.root.alpha == alpha]
        if not reading or len(ids) < self.prefixes.block:
            return False
        wanted = ids[: self.prefixes.known(ids, alpha) + self.prefixes.block]
        if len(wanted) % self.prefixes.block:
            return False  # all its whole blocks are there
        return any(other.root.prompt[: len(wanted)] == wanted for other in reading)

    def _make_room(self, job: Job) -> bool:
        """Reserve what a job needs beyond the prefix it finds stored; False if that cannot be."""
        found = self.prefixes.match(job.shareable, job.root.alpha)
        if found.cache is None:
            return self._reserve(job.reserved)
        # One that decodes takes a copy of the prefix (SequenceCache.adopt), so it needs the room.
        needed = job.reserved - (0 if isinstance(job.root, GeneratingTrack) else found.length)
        self.prefixes.pin(found)
        if self._reserve(needed):
            job.reserved, job.pinned = needed, found
            job.root.parent, job.root.fed = found.cache, found.length
            return True
        # Standing on it may be what keeps others from being dropped.
        self.prefixes.unpin(found)
        return self._reserve(job.reserved)

    def _reserve(self, tokens: int) -> bool:
        self.prefixes.evict(self.held + tokens - self.cache_budget)
        if self.held + tokens > self.cache_budget:
            return False
        self._reserved += tokens
        return True
