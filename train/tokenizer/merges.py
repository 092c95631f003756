"""Learning byte-pair merges (Sennrich et al., 2016): the most frequent pair becomes a symbol.

All distinct pieces lie in one array of symbols. A symbol that merges have made is known at its
first and last position, so neighbours are found without links; positions between them are void.
Every symbol has a list of the positions where it once began; stale ones are sorted out when the
list is read. A pair's count can only fall after the step that made the pair, so counts are not
kept up to date: the heap holds upper bounds, and a pair is counted again when it comes to the top.

Ties go to the pair of smaller ids, the left one first. The result depends on counts alone, not on
the order of pieces. Knows nothing of text or files.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int32]
Counts = NDArray[np.int64]

BORDER, VOID = -1, -2
LEAST = 2  # a pair that occurs once compresses nothing
CHUNK = 1 << 20
HEAP = 1 << 16


@dataclass(frozen=True)
class Merge:
    """Two symbols that become one, and how often they stood side by side."""

    left: int
    right: int
    count: int


class Pieces:
    """Distinct pieces as symbols, with how often each occurs.

    `symbols`: int32 [positions], BORDER before, between and behind the pieces, which stand in
    groups of equal counts. Pieces before position `ends[i]`, and not in a group before, occur
    `counts[i]` times; both int64 [groups].
    """

    def __init__(self, symbols: Positions, ends: Counts, counts: Counts, known: int) -> None:
        self.symbols = symbols
        self._ends, self._counts = ends, counts
        self._length = [1] * known
        self._where = _where(symbols, known)

    def __len__(self) -> int:
        """Symbols known."""
        return len(self._length)

    def weights(self, at: Positions) -> Counts:
        """Counts of the pieces at these positions."""
        found: Counts = self._counts[np.searchsorted(self._ends, at, side="right")]
        return found

    def find(self, left: int, right: int) -> Positions:
        """Where `left` stands before `right`, ascending; overlapping pairs included."""
        found: Positions
        if len(self._where[left]) <= len(self._where[right]):
            begins = self._begins(left)
            found = begins[self.symbols[begins + self._length[left]] == right]
        else:
            begins = self._begins(right)
            found = begins[self.symbols[begins - 1] == left] - np.int32(self._length[left])
        return found

    def merge(self, left: int, right: int, at: Positions) -> tuple[Counts, Counts]:
        """Make a new symbol of the pairs found at `at`; pairs with it (left << 32 | right) and
        their counts."""
        if left == right:
            at = _without_overlaps(at, self._length[left])
        new, middle = len(self), self._length[left]
        length = middle + self._length[right]
        symbols = self.symbols
        symbols[at + (middle - 1)] = VOID
        symbols[at + middle] = VOID
        symbols[at] = new
        symbols[at + (length - 1)] = new
        self._length.append(length)
        self._where.append(at)
        weights = self.weights(at)
        before, after = symbols[at - 1], symbols[at + length]
        # Two new symbols side by side are counted once, as what follows the first.
        pairs_before = _sums(before, weights, (before >= 0) & (before != new))
        pairs_after = _sums(after, weights, after >= 0)
        keys = (pairs_before[0] << 32 | new, np.int64(new) << 32 | pairs_after[0])
        return np.concatenate(keys), np.concatenate((pairs_before[1], pairs_after[1]))

    def pairs(self) -> tuple[Counts, Counts]:
        """All pairs of neighbours (left << 32 | right) and their counts."""
        keys, counts = [], []
        for start in range(0, len(self.symbols) - 1, CHUNK):
            part = self.symbols[start : start + CHUNK + 1].astype(np.int64)
            at = np.flatnonzero((part[:-1] >= 0) & (part[1:] >= 0))
            found, inverse = np.unique(part[at] << 32 | part[at + 1], return_inverse=True)
            keys.append(found)
            weights = self.weights((at + start).astype(np.int32))
            counts.append(np.bincount(inverse, weights, len(found)))
        merged, inverse = np.unique(np.concatenate(keys), return_inverse=True)
        sums = np.bincount(inverse, np.concatenate(counts), len(merged))
        return merged, sums.astype(np.int64)

    def _begins(self, symbol: int) -> Positions:
        once = self._where[symbol]
        now: Positions = once[self.symbols[once] == symbol]
        if len(now) < len(once) // 2:
            self._where[symbol] = now
        return now


class _Candidates:
    """Pairs by the upper bound of their counts: frequent ones in a heap, the others in arrays."""

    def __init__(self, keys: Counts, counts: Counts) -> None:
        self._heap: list[tuple[int, int]] = []
        self._waiting = [(keys, counts)]
        self._floor = int(counts.max(initial=0)) + 1  # every pair in the heap has at least this

    def add(self, keys: Counts, counts: Counts) -> None:
        """Take pairs in."""
        high = counts >= self._floor
        for count, key in zip(counts[high].tolist(), keys[high].tolist(), strict=True):
            heapq.heappush(self._heap, (-count, key))
        low = (counts >= LEAST) & ~high
        if low.any():
            self._waiting.append((keys[low], counts[low]))

    def pop(self) -> tuple[int, int] | None:
        """Bound and key of the pair with the highest bound, of the smallest key among equals."""
        if not self._heap and not self._refill():
            return None
        bound, key = heapq.heappop(self._heap)
        return -bound, key

    def _refill(self) -> bool:
        keys, counts = (np.concatenate(part) for part in zip(*self._waiting, strict=True))
        if not len(keys) or counts.max() < LEAST:
            return False
        self._floor = int(np.partition(counts, -HEAP)[-HEAP]) if len(counts) > HEAP else LEAST
        self._floor = max(self._floor, LEAST)
        self._waiting = [(keys[:0], counts[:0])]
        self.add(keys, counts)
        return True


def learn(pieces: Pieces, wanted: int) -> Iterator[Merge]:
    """Merges until `wanted` symbols are known, or no pair occurs twice."""
    candidates = _Candidates(*pieces.pairs())
    while len(pieces) < wanted and (best := candidates.pop()):
        bound, key = best
        left, right = key >> 32, key & 0xFFFFFFFF
        at = pieces.find(left, right)
        count = int(pieces.weights(at).sum())
        if count < bound:
            candidates.add(np.array([key]), np.array([count]))
            continue
        candidates.add(*pieces.merge(left, right, at))
        yield Merge(left, right, count)


def _where(symbols: Positions, known: int) -> list[Positions]:
    """Positions of every symbol below `known`: a counting sort, chunk by chunk to save memory."""
    totals = np.zeros(known, np.int64)
    for start in range(0, len(symbols), CHUNK):
        part = symbols[start : start + CHUNK]
        totals += np.bincount(part[part >= 0], minlength=known)
    ends = np.cumsum(totals)
    filled = ends - totals
    sorted_ = np.empty(int(totals.sum()), np.int32)
    for start in range(0, len(symbols), CHUNK):
        part = symbols[start : start + CHUNK]
        order = np.argsort(part, kind="stable")
        order = order[np.searchsorted(part[order], 0) :]  # borders sort first
        values = part[order]
        inside = np.bincount(values, minlength=known)
        first = np.cumsum(inside) - inside
        rank = np.arange(len(values)) - first[values]
        sorted_[filled[values] + rank] = order + start
        filled += inside
    return np.split(sorted_, ends[:-1])


def _without_overlaps(at: Positions, length: int) -> Positions:
    """Of pairs that share a symbol (`aaa`), every second one, from the left."""
    first = np.ones(len(at), bool)
    first[1:] = np.diff(at) != length
    starts = np.flatnonzero(first)
    index = np.arange(len(at)) - np.repeat(starts, np.diff(np.append(starts, len(at))))
    kept: Positions = at[index % 2 == 0]
    return kept


def _sums(symbols: Positions, weights: Counts, kept: NDArray[np.bool_]) -> tuple[Counts, Counts]:
    """Distinct symbols and the sums of their weights. Sums are exact below 2^53."""
    symbols, weights = symbols[kept], weights[kept]
    found, inverse = np.unique(symbols, return_inverse=True)
    sums = np.bincount(inverse, weights, len(found))
    return found.astype(np.int64), sums.astype(np.int64)
