"""Which numbers of rows give a row the same bits, found by trying them on this machine.

A matrix product picks its kernel, and with it the order of its sums, by the number of rows and of
threads. A pass is therefore padded to a number of rows that was seen to agree, bit for bit and for
rows anywhere in it, with one canonical number. Kernels are picked by shape and never by content,
and two orders of summing differ somewhere in thousands of random outputs: agreement on random rows
is agreement. Cheap tails agree on some machines; nothing is assumed about any.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class RowCounts:
    """`sizes`: the numbers of rows a pass may have, ascending; empty where any will do.

    `exact`: whether a row's bits were seen not to depend on the others and on its place.
    """

    sizes: tuple[int, ...] = ()
    exact: bool = False

    def padded(self, rows: int) -> int:
        """The least allowed number that holds so many rows."""
        return self.sizes[bisect_left(self.sizes, rows)] if self.sizes else rows

    @property
    def most(self) -> int | None:
        """The most rows one pass may have."""
        return self.sizes[-1] if self.sizes else None


def row_counts(
    compute: Callable[[Tensor], Tensor], rows: Tensor, candidates: Iterable[int]
) -> RowCounts:
    """Try each candidate against the canonical number of rows, which is len(rows).

    `compute` maps rows to rows, each on its own. Where not even the canonical number gives a row
    the same bits wherever it stands, that number alone is allowed and the result is not exact.
    """
    count = len(rows)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).to(rows.device)
    expected = compute(rows)
    if not torch.equal(compute(rows[order]), expected[order]):
        return RowCounts((count,))
    agreed = [count]
    for size in candidates:
        at = order.repeat(-(-size // count))
        # A block from the front, one from the back, and one that begins elsewhere.
        blocks = {0: at[:size], 1: at[-size:], 2: at.roll(count // 3 + 1)[:size]}
        if size != count and all(
            torch.equal(compute(rows[block]), expected[block]) for block in blocks.values()
        ):
            agreed.append(size)
    return RowCounts(tuple(sorted(agreed)), exact=True)
