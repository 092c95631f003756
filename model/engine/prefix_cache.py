"""Keys and values of prompts already read, in a radix tree over their token ids.

A prompt that begins like an earlier one (few-shot exemplars, a system message, a conversation that
grows) takes its beginning from here. Prefixes are shared in whole blocks of ids; the pages that
hold them by reference, but for the last, unfinished one, of which a sequence makes its own copy.
Of a layer with a window only the pages are kept that the next token sees, so a prefix can be taken
up at the places where one was stored, and not everywhere before them.
What changes keys and values without changing ids parts the tree: dtype and weights belong to the
engine, NTK's alpha is the key of a root. Only prompts come in, never tokens written by decoding,
whose bits may differ from those that prefill would give.

What nobody stands on is dropped, least recently used first. Knows nothing of requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .pages import PagePool, Run
from .sequence import Ids, Track

BLOCK = 16


@dataclass(eq=False)
class Node:
    """A run of whole blocks behind its parent's; a root has no ids.

    `length`: tokens from the root to its end. `runs`: the pages of each pool that a token behind
    its end sees, perhaps fewer where a window is at work. `pins`: sequences that stand on it now.
    """

    ids: Ids
    parent: Node | None
    length: int = 0
    runs: tuple[Run, ...] = ()
    children: dict[Ids, Node] = field(default_factory=dict)
    pins: int = 0
    used: int = 0

    def below(self) -> Iterator[Node]:
        """This node and all nodes under it."""
        yield self
        for child in self.children.values():
            yield from child.below()


class PrefixCache:
    """`block`: tokens per block, a divisor of the page size."""

    def __init__(self, pools: Sequence[PagePool], block: int = BLOCK) -> None:
        self._size = pools[0].size
        if self._size % block:
            raise ValueError(f"pages of {self._size} positions do not hold whole blocks of {block}")
        self.block, self._pools = block, pools
        self._roots: dict[float, Node] = {}
        self._held = [Counter[int]() for _ in pools]
        self._clock = 0

    def pages(self, pool: int) -> int:
        """Pages of the pool-th pool held by the tree."""
        return len(self._held[pool])

    def known(self, ids: Ids, alpha: float) -> int:
        """How many of the first ids can be taken from here, in whole blocks; changes nothing."""
        return self._usable(ids, alpha)[1]

    def least(self, end: int) -> int:
        """The fewest of `end` stored tokens that can be taken without the rest, in whole blocks:
        to a token behind them every window shows only pages that are kept."""
        firsts = [(pool, pool.first_seen(end)) for pool in self._pools]
        behind = [first * pool.size + (pool.window or 1) - 1 for pool, first in firsts if first]
        return -(-max(behind, default=0) // self.block) * self.block

    def match(self, ids: Ids, alpha: float) -> Node:
        """The node at the end of the longest prefix of `ids` that can be taken from here, a root
        where there is none.

        A node that goes on otherwise is cut in two.
        """
        node, length = self._usable(ids, alpha)
        return self._touched(node, length)

    def pin(self, node: Node) -> None:
        """Keep a node, and so all above it, until unpin."""
        node.pins += 1

    def unpin(self, node: Node) -> None:
        """The other end of pin."""
        assert node.pins > 0
        node.pins -= 1

    def insert(self, ids: Ids, alpha: float, track: Track, rooms: Sequence[int]) -> None:
        """Store the whole blocks of a prompt that `track` has just read.

        The tree becomes one more user of the pages that stay as they are, and copies the others.
        Nothing happens where it would then hold more than rooms[i] pages of a pool, or where no
        page is free for a copy.
        """
        end = len(ids) // self.block * self.block
        if not end:
            return
        path = [(self._root(alpha), 0), *self._walk(ids[:end], alpha)]
        node, shared = path[-1]
        above = self._touched(node, node.length - len(node.ids) + shared)
        if self._holds(above, end):
            return
        # No lower, so that a copy is made for good only where there is room for all.
        self.pin(above)
        runs = self._kept(end, above, track, rooms)
        self.unpin(above)
        if runs is None:
            return
        if above.length == end:
            for i, run in enumerate(above.runs):
                self._let_go(i, run)
            above.runs = runs
            return
        child = Node(ids[above.length : end], above, end, runs, used=self._clock)
        above.children[child.ids[: self.block]] = child

    def evict(self, pool: int, pages: int) -> int:
        """Drop leaves nobody stands on until the tree holds so many pages of a pool less, if there
        are as many; returns how many it let go."""
        before = self.pages(pool)
        while before - self.pages(pool) < pages:
            leaves = [
                node
                for root in self._roots.values()
                for node in root.below()
                if node.parent is not None and not node.children and not node.pins
            ]
            for leaf in sorted(leaves, key=lambda node: node.used):
                assert leaf.parent is not None
                del leaf.parent.children[leaf.ids[: self.block]]
                for i, run in enumerate(leaf.runs):
                    self._let_go(i, run)
                if before - self.pages(pool) >= pages:
                    break
            if not leaves:
                break
        return before - self.pages(pool)

    def clear(self) -> None:
        """Drop everything; nobody may stand on any of it."""
        for pool in range(len(self._pools)):
            self.evict(pool, self.pages(pool))

    def _kept(
        self, end: int, above: Node, track: Track, rooms: Sequence[int]
    ) -> tuple[Run, ...] | None:
        """What a token behind `end` sees, held by the tree from now on; None for no room."""
        wanted: list[list[int | None]] = []  # None for a page to be copied
        for i, pool in enumerate(self._pools):
            wanted.append([self._whole(above, i, at, track) for at in pool.seen_places(end)])
        if any(len(pages) > room for pages, room in zip(wanted, rooms, strict=True)):
            return None  # and nothing need be dropped to see that
        for i, (pool, pages) in enumerate(zip(self._pools, wanted, strict=True)):
            more = sum(page is None or page not in self._held[i] for page in pages)
            self.evict(i, self.pages(i) + more - rooms[i])
            if self.pages(i) + more > rooms[i] or pool.free < pages.count(None):
                return None
        runs = []
        for i, (pool, found) in enumerate(zip(self._pools, wanted, strict=True)):
            held = tuple(
                self._copied(pool, track.page(i, place)) if page is None else pool.share(page)
                for place, page in zip(pool.seen_places(end), found, strict=True)
            )
            self._held[i].update(held)
            low = pool.first_seen(end)
            runs.append(Run(low, held[1:], held[0]) if pool.sinks and low else Run(low, held))
        return tuple(runs)

    def _copied(self, pool: PagePool, page: int) -> int:
        taken = pool.take()
        pool.copy(page, taken, self._size)
        return taken

    def _whole(self, above: Node, pool: int, place: int, track: Track) -> int | None:
        """A page that holds the prompt's keys at a place for good, None where there is none."""
        if above.runs and (place + 1) * self._size <= above.length:
            run = above.runs[pool]
            if run.first <= place < run.end or (place == 0 and run.sink is not None):
                return run.page(place)
        return track.page(pool, place) if track.lasts(pool, place) else None

    def _holds(self, node: Node, length: int) -> bool:
        """Whether a token behind the first `length` ids sees all it needs in a node's pages."""
        return node.length >= length and all(
            run.first <= (low := pool.first_seen(length))
            and run.end >= -(-length // self._size)
            and not (pool.sinks and low and run.first and run.sink is None)
            for pool, run in zip(self._pools, node.runs, strict=True)
        )

    def _usable(self, ids: Ids, alpha: float) -> tuple[Node, int]:
        """The node in which the longest usable prefix ends, and its length."""
        found = self._root(alpha), 0
        for node, shared in self._walk(ids, alpha):
            length = node.length - len(node.ids) + shared
            if self._holds(node, length):
                found = node, length
        return found

    def _touched(self, node: Node, length: int) -> Node:
        """The node that ends at `length`, cut from `node` if need be; it and all above it have now
        been used."""
        if length < node.length:
            node = self._cut(node, length - node.length + len(node.ids))
        self._clock += 1
        above: Node | None = node
        while above is not None:
            above.used = self._clock
            above = above.parent
        return node

    def _hold(self, pool: int, run: Run) -> Run:
        self._held[pool].update(run.held)
        for page in run.held:
            self._pools[pool].share(page)
        return run

    def _let_go(self, pool: int, run: Run) -> None:
        held = self._held[pool]
        for page in run.held:
            self._pools[pool].give_back(page)
            held[page] -= 1
            if not held[page]:
                del held[page]

    def _root(self, alpha: float) -> Node:
        return self._roots.setdefault(alpha, Node((), None))

    def _walk(self, ids: Ids, alpha: float) -> Iterator[tuple[Node, int]]:
        """The nodes along `ids` and how many of their ids are shared; the last may be partial."""
        node, at = self._root(alpha), 0
        while (child := node.children.get(ids[at : at + self.block])) is not None:
            shared = self.block
            while shared < len(child.ids) and (
                child.ids[shared : shared + self.block]
                == ids[at + shared : at + shared + self.block]
            ):
                shared += self.block
            yield child, shared
            if shared < len(child.ids):
                return
            node, at = child, at + shared

    def _cut(self, node: Node, at: int) -> Node:
        """Put the first `at` ids of a node into a node above it, and return that."""
        assert node.parent is not None
        length = node.length - len(node.ids) + at
        end = -(-length // self._size)
        runs = tuple(
            self._hold(i, Run(run.first, run.pages[: max(0, end - run.first)], run.sink))
            for i, run in enumerate(node.runs)
        )
        above = Node(node.ids[:at], node.parent, length, runs, used=node.used)
        node.parent.children[node.ids[: self.block]] = above
        node.ids, node.parent = node.ids[at:], above
        above.children[node.ids[: self.block]] = node
        return above
