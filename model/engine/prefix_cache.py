"""Keys and values of prompts already read, in a radix tree over their token ids.

A prompt that begins like an earlier one (few-shot exemplars, a system message, a conversation that
grows) takes its beginning from here. Prefixes are shared in whole blocks of ids; the pages that
hold them by reference, but for the last, unfinished one, of which a sequence makes its own copy.
What changes keys and values without changing ids parts the tree: dtype and weights belong to the
engine, NTK's alpha is the key of a root. Only prompts come in, never tokens written by decoding,
whose bits may differ from those that prefill would give.

What nobody stands on is dropped, least recently used first. Knows nothing of requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from .pages import PagePool
from .sequence import Ids

BLOCK = 16


@dataclass(eq=False)
class Node:
    """A run of whole blocks behind its parent's; a root has no ids.

    `length`: tokens from the root to its end. `pages`: those that hold its ids, in order; the
    first may hold the end of its parent's as well. `pins`: sequences that stand on it now.
    """

    ids: Ids
    parent: Node | None
    length: int = 0
    pages: tuple[int, ...] = ()
    children: dict[Ids, Node] = field(default_factory=dict)
    pins: int = 0
    used: int = 0

    def below(self) -> Iterator[Node]:
        """This node and all nodes under it."""
        yield self
        for child in self.children.values():
            yield from child.below()


class PrefixCache:
    """`pages`: how many are held now. `block`: tokens per block, a divisor of the page size."""

    def __init__(self, pool: PagePool, block: int = BLOCK) -> None:
        if pool.size % block:
            raise ValueError(f"pages of {pool.size} positions do not hold whole blocks of {block}")
        self.block, self._pool = block, pool
        self._roots: dict[float, Node] = {}
        self._held: Counter[int] = Counter()
        self._clock = 0

    @property
    def pages(self) -> int:
        """Pages held by the tree."""
        return len(self._held)

    def known(self, ids: Ids, alpha: float) -> int:
        """How many of the first ids are stored, in whole blocks; changes nothing."""
        return sum(shared for _, shared in self._walk(ids, alpha))

    def match(self, ids: Ids, alpha: float) -> Node:
        """The node at the end of the longest stored prefix of `ids`, a root where there is none.

        A node that goes on otherwise is cut in two.
        """
        node = self._root(alpha)
        self._clock += 1
        for child, shared in list(self._walk(ids, alpha)):
            node = child if shared == len(child.ids) else self._cut(child, shared)
            node.used = self._clock
        return node

    def pages_of(self, node: Node) -> list[int]:
        """The pages that hold the node's whole prefix, the last one perhaps in part."""
        pages, first = list(node.pages), self._first(node)
        above = node.parent
        while above is not None and above.parent is not None:
            # Where both hold one page, the lower node's holds more of it.
            pages[:0] = above.pages[: first - self._first(above)]
            first, above = self._first(above), above.parent
        return pages

    def pin(self, node: Node) -> None:
        """Keep a node, and so all above it, until unpin."""
        node.pins += 1

    def unpin(self, node: Node) -> None:
        """The other end of pin."""
        assert node.pins > 0
        node.pins -= 1

    def insert(self, ids: Ids, alpha: float, pages: Sequence[int], room: int) -> None:
        """Store the whole blocks of a prompt that has been read; `pages` hold it from its start,
        and the tree becomes one of their users. Nothing happens where the tree would then hold
        more than `room` pages."""
        end = len(ids) // self.block * self.block
        found = self.match(ids[:end], alpha)
        if found.length == end:
            return
        new = pages[found.length // self._pool.size : -(-end // self._pool.size)]
        self.pin(found)
        more = len([page for page in new if page not in self._held])
        self.evict(self.pages + more - room)
        self.unpin(found)
        if self.pages + more > room:
            return
        node = Node(ids[found.length : end], found, end, self._hold(new), used=self._clock)
        found.children[node.ids[: self.block]] = node

    def evict(self, pages: int) -> int:
        """Drop leaves nobody stands on until the tree holds so many pages less, if there are as
        many; returns how many it let go."""
        before = self.pages
        while before - self.pages < pages:
            leaves = [
                node
                for root in self._roots.values()
                for node in root.below()
                if node.parent is not None and not node.children and not node.pins
            ]
            for leaf in sorted(leaves, key=lambda node: node.used):
                assert leaf.parent is not None
                del leaf.parent.children[leaf.ids[: self.block]]
                self._let_go(leaf.pages)
                if before - self.pages >= pages:
                    break
            if not leaves:
                break
        return before - self.pages

    def _hold(self, pages: Sequence[int]) -> tuple[int, ...]:
        self._held.update(pages)
        return tuple(self._pool.share(page) for page in pages)

    def _let_go(self, pages: Sequence[int]) -> None:
        for page in pages:
            self._pool.give_back(page)
            self._held[page] -= 1
            if not self._held[page]:
                del self._held[page]

    def _root(self, alpha: float) -> Node:
        return self._roots.setdefault(alpha, Node((), None))

    def _first(self, node: Node) -> int:
        """Which page of a sequence the node's first id lies on."""
        return (node.length - len(node.ids)) // self._pool.size

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
        first, size = self._first(node), self._pool.size
        middle = node.length - len(node.ids) + at
        upper = self._hold(node.pages[: -(-middle // size) - first])
        lower = self._hold(node.pages[middle // size - first :])
        self._let_go(node.pages)
        above = Node(node.ids[:at], node.parent, middle, upper, used=node.used)
        node.parent.children[node.ids[: self.block]] = above
        node.ids, node.parent, node.pages = node.ids[at:], above, lower
        above.children[node.ids[: self.block]] = node
        return above
