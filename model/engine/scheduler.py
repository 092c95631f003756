"""Which tokens go through the model next.

First come, first served: a sequence is admitted when the pages of its whole life are free, so
nothing admitted is ever thrown out again; stored prefixes that nobody stands on make room for it. A
prompt whose beginning is just being read by another waits for that, and takes it from the prefix
cache. Each step feeds the next token of every decoding sequence, and drafts where few decode, and
a budget of prompt tokens, cut into chunks where they do not fit. Knows nothing of the model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ..rope import ntk_alpha
from .pages import PagePool, Run
from .prefix_cache import Node, PrefixCache
from .sequence import AnyTrack, GeneratingTrack, Ids, Piece, PromptTrack, ScoringTrack

PREFIX_SHARE = 0.125


@dataclass(eq=False)
class Job:
    """One request: its root track, the branches that stand on it, and its pages.

    It stands on the stored prefix `pinned`, if on any. `spare`: pages of each pool set aside for
    branches. `stored`: its own prompt has been offered to the prefix cache.
    """

    id: int
    root: AnyTrack
    branches: list[ScoringTrack] = field(default_factory=list)
    spare: list[list[int]] = field(default_factory=list)
    pinned: Node | None = None
    stored: bool = False

    @property
    def shareable(self) -> Ids:
        """The ids whose keys and values may come from another prompt: not the last, for its logits
        are wanted."""
        return self.root.prompt[:-1]

    @property
    def kept(self) -> Ids:
        """The ids whose keys and values are kept for other prompts."""
        return self.root.prompt[: self.root.shared]

    @property
    def reading(self) -> bool:
        """Whether its prompt is still being read."""
        return self.root.fed < len(self.root.prompt)

    def places(self, size: int) -> int:
        """How many pages of `size` positions the root's tokens fill in its whole life, the slot of
        a decoding one not counted."""
        root = self.root
        if isinstance(root, GeneratingTrack):
            # Its last token is never fed, and its last page is the slot.
            return (len(root.prompt) + root.request.sampling.max_tokens - 1) // size
        if isinstance(root, ScoringTrack):
            return -(-(len(root.tokens) - 1) // size)
        return -(-len(root.tokens) // size)

    def branch_places(self, size: int) -> list[int]:
        """Pages that each branch's tokens fill behind the whole pages of the root."""
        root = self.root
        if not isinstance(root, PromptTrack):
            return []
        read = len(root.tokens)
        ends = [read + len(line) - 1 for line in root.continuations if len(line) > 1]
        return [-(-end // size) - read // size for end in ends]

    def pages_needed(self, pool: PagePool, stored: int = 0) -> int:
        """Pages of its own for its whole life, where so many of the root's are another's."""
        own = pool.bounded(self.places(pool.size) - stored)
        return own + sum(map(pool.bounded, self.branch_places(pool.size)))

    def tracks(self) -> Iterator[AnyTrack]:
        """Root and branches."""
        yield self.root
        yield from self.branches

    def branch_out(self, pools: Sequence[PagePool]) -> None:
        """Put the continuations' tracks beside the root once its prompt has been read: on its
        whole pages, and on copies of the last one."""
        root = self.root
        if not isinstance(root, PromptTrack) or not root.branches or self.branches:
            return
        self.branches = [branch for branch in root.branches if branch is not None]
        size, length = pools[0].size, len(root.tokens)
        whole, rest = divmod(length, size)
        for branch, places in zip(self.branches, self.branch_places(size), strict=True):
            branch.alpha, branch.cleared = root.alpha, branch.fed
            for i, pool in enumerate(pools):
                own = [self.spare[i].pop() for _ in range(pool.bounded(places))]
                low = min(whole, pool.first_seen(length))
                stored = root.run(i, low, whole, sinks=pool.sinks)
                branch.tables.append(pool.table(stored, whole, own, places))
                if rest:
                    pool.copy(root.page(i, whole), branch.page(i, whole), rest)

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
    prefixes take at most PREFIX_SHARE of each pool's pages. Drafts are tried while fewer than
    `draft_rows` tokens would be decoded. `trained_length`: S of NTK's alpha.
    """

    def __init__(
        self,
        max_jobs: int,
        token_budget: int,
        pools: Sequence[PagePool],
        *,
        prefixes: bool,
        draft_rows: int,
        trained_length: int,
    ) -> None:
        self.max_jobs, self.token_budget, self.pools = max_jobs, token_budget, pools
        self.draft_rows, self.trained_length = draft_rows, trained_length
        self._size = pools[0].size
        self.prefixes = PrefixCache(pools)
        self.waiting: deque[Job] = deque()
        self.running: list[Job] = []
        self._pages = [pool.free for pool in pools]
        self._rooms = [int(PREFIX_SHARE * pages) for pages in self._pages] if prefixes else None

    def add(self, job: Job) -> None:
        """Queue a job. Raises ValueError if it could never be admitted."""
        size = self._size
        for pool, pages in zip(self.pools, self._pages, strict=True):
            if (needed := job.pages_needed(pool)) > pages:
                # A window's pool grows with the sequences, up to the budget.
                more = "--kv-memory" if pool.ring is None else "--kv-memory, --batch"
                raise ValueError(
                    f"needs {needed * size} tokens of cache, the budget is {pages * size}; "
                    f"give it more ({more})"
                )
        self.waiting.append(job)

    def remove(self, job: Job) -> None:
        """Forget a job and free its pages."""
        self.running.remove(job)
        for i, pool in enumerate(self.pools):
            for page in job.spare[i]:
                pool.give_back(page)
            for track in job.tracks():
                for page in track.tables[i].own:
                    pool.give_back(page)
                if track.slot is not None:
                    pool.give_back(track.slot, slot=True)
        if job.pinned is not None:
            self.prefixes.unpin(job.pinned)

    def begin_anew(self, job: Job) -> None:
        """Read a job again from its start with the alpha of the next longer prompts: the next one
        to be admitted, and as if it had just come, but for what it knows."""
        assert job.root.edge is not None
        self.remove(job)
        job.spare, job.pinned, job.stored = [], None, False
        edge = 2 * job.root.edge
        job.root.begin_anew(ntk_alpha(edge, self.trained_length), edge)
        self.waiting.appendleft(job)

    def store_prompts(self) -> None:
        """Offer what is kept of every prompt to the prefix cache, as soon as it has been read: a
        little later a window may have let go of it."""
        for job in self.running:
            if not job.stored and job.root.fed >= len(job.kept):
                job.stored = True
                if self._rooms is not None:
                    self.prefixes.insert(job.kept, job.root.alpha, job.root, self._rooms)

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
                length = track.until_edge(min(needed, left))
                prompts.append(Piece(track, track.fed, length))
                left -= length
        for piece in (*pieces, *prompts):
            self._prepare(piece.track, piece.start, piece.rows)
        return pieces, prompts

    def _prepare(self, track: AnyTrack, start: int, length: int) -> None:
        """Clear what the coming tokens will be read with, moving a full slot into its page."""
        size = self._size
        if track.slot is not None and start // size > track.closed:
            for i, pool in enumerate(self.pools):
                pool.copy(track.slot, track.tables[i].page(track.closed), size)
            track.closed += 1
        # Decoding reads its slot whole, a prompt its newest page up to the next step.
        decoding = isinstance(track, GeneratingTrack) and track.decoding
        end = self.pools[0].read_end(start + length - 1, whole=decoding)
        while track.cleared < end:
            place, low = divmod(track.cleared, size)
            high = min(size, end - place * size)
            for i, pool in enumerate(self.pools):
                pool.clear(track.page(i, place), low, high)
            track.cleared = place * size + high

    def _draft(self, track: GeneratingTrack, decoding: int) -> Ids:
        """Within its page, and within its share of the rows that are nearly free."""
        on_page = self._size - track.fed % self._size - 1
        most = min((self.draft_rows - decoding) // max(decoding, 1), on_page)
        return track.draft(track.until_edge(most + 1) - 1)

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
        """Whether a running prompt will soon store more of this one's beginning than is stored,
        and windows will not have let go of it by then."""
        ids, alpha, block = job.shareable, job.root.alpha, self.prefixes.block
        reading = [
            other
            for other in self.running
            if other.reading and not other.stored and other.root.alpha == alpha
        ]
        if self._rooms is None or not reading or len(ids) < block:
            return False
        more = self.prefixes.known(ids, alpha) + block
        for other in reading:
            end = len(other.kept) // block * block
            least = max(more, self.prefixes.least(end))
            if least <= min(end, len(ids)) and other.root.prompt[:least] == ids[:least]:
                return True
        return False

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
        size, root = self._size, job.root
        whole, rest = divmod(found.length if found else 0, size)
        needed = [job.pages_needed(pool, whole) for pool in self.pools]
        for i, pool in enumerate(self.pools):
            while pool.free < needed[i]:
                if not self.prefixes.evict(i, 1):
                    return False
        for i, pool in enumerate(self.pools):
            taken = [pool.take() for _ in range(needed[i])]
            places = job.places(size) - whole
            own = pool.bounded(places)
            stored = Run() if found is None else found.runs[i]
            root.tables.append(pool.table(stored, whole, taken[:own], places))
            job.spare.append(taken[own:])
        if isinstance(root, GeneratingTrack):
            slots = {pool.slot() for pool in self.pools}
            assert len(slots) == 1  # they are taken and given back together
            (root.slot,) = slots
            root.closed = root.read // size
        if found is not None:
            job.pinned = found
            root.fed = root.cleared = found.length
            job.stored = found.length >= len(job.kept)
            if rest:
                for i, pool in enumerate(self.pools):
                    pool.copy(found.runs[i].page(whole), root.page(i, whole), rest)
        return True
