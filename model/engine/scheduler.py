"""Which tokens go through the model next.

First come, first served: a sequence is admitted when the pages of its whole life are free, so
nothing admitted is ever thrown out again; stored prefixes that nobody stands on make room for it. A
prompt whose beginning is just being read by another waits for that, and takes it from the prefix
cache. Each step feeds the next token of every decoding sequence, and drafts where few decode, and
a budget of prompt tokens, cut into chunks where they do not fit. Knows nothing of the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from .pages import PagePool
from .prefix_cache import Node, PrefixCache
from .sequence import AnyTrack, GeneratingTrack, Ids, Piece, PromptTrack, ScoringTrack

PREFIX_SHARE = 0.125


@dataclass(eq=False)
class Job:
    """One request: its root track, the branches that stand on it, and its pages.

    It stands on the stored prefix `pinned`, if on any. `spare`: pages set aside for branches.
    `stored`: its own prompt has been offered to the prefix cache.
    """

    id: int
    root: AnyTrack
    branches: list[ScoringTrack] = field(default_factory=list)
    spare: list[int] = field(default_factory=list)
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

    def pages_needed(self, size: int) -> int:
        """Pages of `size` positions for its whole life, the slot of a decoding one not counted."""
        root = self.root
        if isinstance(root, GeneratingTrack):
            # Its last token is never fed, and its last page is the slot.
            return (len(root.prompt) + root.request.sampling.max_tokens - 1) // size
        if isinstance(root, ScoringTrack):
            return -(-(len(root.tokens) - 1) // size)
        read = len(root.tokens)
        branches = [read + len(line) - 1 for line in root.continuations if len(line) > 1]
        return -(-read // size) + sum(-(-end // size) - read // size for end in branches)

    def tracks(self) -> Iterator[AnyTrack]:
        """Root and branches."""
        yield self.root
        yield from self.branches

    def branch_out(self, pool: PagePool) -> None:
        """Put the continuations' tracks beside the root once its prompt has been read: on its
        whole pages, and on copies of the last one."""
        root = self.root
        if not isinstance(root, PromptTrack) or not root.branches or self.branches:
            return
        self.branches = [branch for branch in root.branches if branch is not None]
        whole, rest = divmod(len(root.tokens), pool.size)
        for branch in self.branches:
            branch.alpha, branch.cleared = root.alpha, branch.fed
            branch.pages = [pool.share(page) for page in root.pages[:whole]]
            for _ in range(-(-(len(branch.tokens) - 1) // pool.size) - whole):
                branch.pages.append(self.spare.pop())
            if rest:
                pool.copy(root.pages[whole], branch.pages[whole], rest)

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


class Scheduler:
    """A waiting line, the running jobs, and the budgets.

    `token_budget`: prompt tokens fed per step. `max_jobs`: requests computed at a time. Stored
    prefixes take at most PREFIX_SHARE of the pool's pages. Drafts are tried while fewer than
    `draft_rows` tokens would be decoded.
    """

    def __init__(
        self, max_jobs: int, token_budget: int, pool: PagePool, *, prefixes: bool, draft_rows: int
    ) -> None:
        self.max_jobs, self.token_budget, self.pool = max_jobs, token_budget, pool
        self.draft_rows = draft_rows
        self.prefixes = PrefixCache(pool)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self._pages = pool.free
        self._prefix_room = int(PREFIX_SHARE * self._pages) if prefixes else 0

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError if it could never be admitted."""
        needed = job.pages_needed(self.pool.size)
        if needed > self._pages:
            size = self.pool.size
            raise ValueError(
                f"needs {needed * size} tokens of cache, the budget is {self._pages * size}; "
                "give it more (--kv-memory)"
            )
        self.waiting.append(job)

    def remove(self, job: Job) -> None:
        """Forget a job and free its pages."""
        self.running.remove(job)
        for page in job.spare:
            self.pool.give_back(page)
        for track in job.tracks():
            for page in track.pages:
                self.pool.give_back(page)
            if track.slot is not None:
                self.pool.give_back(track.slot, slot=True)
        if job.pinned is not None:
            self.prefixes.unpin(job.pinned)

    def store_prompts(self) -> None:
        """Offer every prompt that has now been read to the prefix cache."""
        for job in self.running:
            if job.root.prompt and not job.reading and not job.stored:
                job.stored = True
                self._store(job)

    def plan(self) -> tuple[list[Piece], list[Piece]]:
        """The pieces of the next step: of decoding sequences, and of prompts in order of
        arrival."""
        self._admit()
        decoding = [
            job.root
            for job in self.running
            if isinstance(job.root, GeneratingTrack) and job.root.decoding
        ]
        pieces = [
            Piece(track, track.fed, 1, self._draft(track, len(decoding))) for track in decoding
        ]
        prompts: list[Piece] = []
        left = self.token_budget
        for job in self.running:
            for track in job.tracks():
                needed = track.waiting() - isinstance(track, ScoringTrack)
                if (
                    needed <= 0
                    or left == 0
                    or (isinstance(track, GeneratingTrack) and track.decoding)
                ):
                    continue
                length = min(needed, left)
                prompts.append(Piece(track, track.fed, length))
                left -= length
        for piece in (*pieces, *prompts):
            self._prepare(piece.track, piece.start, piece.rows)
        return pieces, prompts

    def _prepare(self, track: AnyTrack, start: int, length: int) -> None:
        """Clear what the coming tokens will be read with, moving a full slot into its page."""
        pool, size = self.pool, self.pool.size
        if track.slot is not None and start // size > track.closed:
            pool.copy(track.slot, track.pages[track.closed], size)
            track.closed += 1
        # Decoding reads its slot whole, a prompt its newest page up to the next step.
        decoding = isinstance(track, GeneratingTrack) and track.decoding
        end = pool.read_end(start + length - 1, whole=decoding)
        while track.cleared < end:
            index, low = divmod(track.cleared, size)
            high = min(size, end - index * size)
            pool.clear(track.page(index), low, high)
            track.cleared = index * size + high

    def _draft(self, track: GeneratingTrack, decoding: int) -> Ids:
        """Within its page, and within its share of the rows that are nearly free."""
        on_page = self.pool.size - track.fed % self.pool.size - 1
        return track.draft(min((self.draft_rows - decoding) // max(decoding, 1), on_page))

    def _store(self, job: Job) -> None:
        root, size = job.root, self.pool.size
        kept = root.prompt[: root.shared]
        pages = [root.page(i) for i in range(-(-len(kept) // size))]
        copied: int | None = None
        if root.slot is not None and root.slot in pages:
            if self.pool.free and self._prefix_room:
                copied = pages[-1] = self.pool.take()
                self.pool.copy(root.slot, copied, len(kept) % size)
            else:
                pages.pop()
        self.prefixes.insert(kept[: len(pages) * size], root.alpha, pages, self._prefix_room)
        if copied is not None:
            self.pool.give_back(copied)

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
        if not self._prefix_room or not reading or len(ids) < self.prefixes.block:
            return False
        wanted = ids[: self.prefixes.known(ids, alpha) + self.prefixes.block]
        if len(wanted) % self.prefixes.block:
            return False  # all its whole blocks are there
        return any(
            other.root.prompt[: len(wanted)] == wanted
            and (other.root.shared is None or other.root.shared >= len(wanted))
            for other in reading
        )

    def _make_room(self, job: Job) -> bool:
        """Give a job its pages beyond the prefix it finds stored; False if that cannot be."""
        found = self.prefixes.match(job.shareable, job.root.alpha)
        if found.length:
            self.prefixes.pin(found)
            if self._give(job, found):
                return True
            # Standing on it may be what keeps others from being dropped.
            self.prefixes.unpin(found)
        return self._give(job, None)

    def _give(self, job: Job, found: Node | None) -> bool:
        size, root = self.pool.size, job.root
        stored = self.prefixes.pages_of(found) if found else []
        whole = found.length // size if found else 0
        needed = job.pages_needed(size) - whole
        while self.pool.free < needed:
            if not self.prefixes.evict(1):
                return False
        taken = [self.pool.take() for _ in range(needed)]
        root.pages = [self.pool.share(page) for page in stored[:whole]]
        if isinstance(root, PromptTrack):
            own = -(-len(root.tokens) // size) - whole
            root.pages += taken[:own]
            job.spare = taken[own:]
        else:
            root.pages += taken
        if isinstance(root, GeneratingTrack):
            root.slot, root.closed = self.pool.slot(), len(root.prompt) // size
        if found is not None:
            job.pinned = found
            root.fed = root.cleared = found.length
            if rest := found.length % size:
                self.pool.copy(stored[whole], root.page(whole), rest)
        return True
