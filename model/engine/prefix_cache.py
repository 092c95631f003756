"""Keys and values of prompts already read, in a radix tree over their token ids.

A prompt that begins like an earlier one (few-shot exemplars, a system message, a conversation that
grows) takes its beginning from here. Prefixes are shared in whole blocks. What changes keys and
values without changing ids parts the tree: dtype and weights belong to the engine, NTK's alpha is
the key of a root. Only prompts come in, never tokens written by decoding, whose bits may differ
from those that prefill would give.

What nobody stands on is dropped, least recently used first. Knows nothing of requests.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from .kv_cache import SequenceCache
from .sequence import Ids

BLOCK = 16


@dataclass(eq=False)
class Node:
    """A run of whole blocks behind its parent's; a root has neither ids nor cache.

    `length`: tokens from the root to its end. `pins`: sequences that stand on it now.
    """

    ids: Ids
    cache: SequenceCache | None
    parent: Node | None
    length: int = 0
    children: dict[Ids, Node] = field(default_factory=dict)
    pins: int = 0
    used: int = 0

    def below(self) -> Iterator[Node]:
        """This node and all nodes under it."""
        yield self
        for child in self.children.values():
            yield from child.below()


class PrefixCache:
    """`tokens`: how many are held now. `block`: tokens per block."""

    def __init__(self, block: int = BLOCK) -> None:
        self.block, self.tokens = block, 0
        self._roots: dict[float, Node] = {}
        self._clock = 0

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

    def pin(self, node: Node) -> None:
        """Keep a node, and so all above it, until unpin."""
        node.pins += 1

    def unpin(self, node: Node) -> None:
        """The other end of pin."""
        assert node.pins > 0
        node.pins -= 1

    def insert(self, ids: Ids, alpha: float, cache: SequenceCache, room: int) -> None:
        """Store the whole blocks of a prompt that has been read: `cache` and its parents hold it,
        the parents being stored here already. Nothing happens where more than `room` tokens would
        then be held in all."""
        end = len(ids) // self.block * self.block
        found = self.match(ids[:end], alpha)
        more = end - found.length
        if more == 0:
            return
        self.pin(found)
        self.evict(self.tokens + more - room)
        self.unpin(found)
        if self.tokens + more > room:
            return
        start = cache.total - cache.length
        part = cache.part(found.length - start, end - start, found.cache)
        node = Node(ids[found.length : end], part, found, end, used=self._clock)
        found.children[node.ids[: self.block]] = node
        self.tokens += more

    def evict(self, tokens: int) -> int:
        """Drop leaves nobody stands on until `tokens` are free again, if there are as many;
        returns how many were."""
        freed = 0
        while freed < tokens:
            leaves = [
                node
                for root in self._roots.values()
                for node in root.below()
                if node.parent is not None and not node.children and not node.pins
            ]
            for leaf in sorted(leaves, key=lambda node: node.used):
                assert leaf.parent is not None
                del leaf.parent.children[leaf.ids[: self.block]]
                freed += len(leaf.ids)
                self.tokens -= len(leaf.ids)
                if freed >= tokens:
                    break
            if not leaves:
                break
        return freed

    def _root(self, alpha: float) -> Node:
        return self._roots.setdefault(alpha, Node((), None, None))

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
        assert node.cache is not None
        assert node.parent is not None
        middle = node.length - len(node.ids) + at
        above = Node(node.ids[:at], node.cache.split(at), node.parent, middle, used=node.used)
        node.parent.children[node.ids[: self.block]] = above
        node.ids, node.parent = node.ids[at:], above
        above.children[node.ids[: self.block]] = node
        return above
