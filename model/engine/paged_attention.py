"""Attention over pages, such that a token's result depends on its own sequence alone.

Rows that attend are laid into tiles of a fixed number of positions, and every tile meets every
page of its sequence in a product of fixed shape. What the pages give is merged in their order by
the log of their softmax sums. Neither what else is in the batch, nor how a prompt was cut into
chunks, nor whether a page is shared changes a bit of it. Tiles that see the same page meet it in
one call, and where `stacks` has found that to give the same bits, in one product: a shared prefix
is read once for its whole group.

Shapes: T rows, N tiles, Q positions per tile, R = Q * H / K rows per tile and key-value head (at
least MIN_ROWS), S positions per page, H, K heads, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .pages import PagePool, Run

MIN_ROWS = 4
SINK = -1
SINK_KEYS = 16  # read for the first tokens; no model has more of them


@dataclass(frozen=True)
class Stretch:
    """Consecutive new tokens of one sequence, all on one page.

    `start`: position of the first. `runs`: the pages of every pool that the first one sees, the
    page of its own tokens last.
    """

    length: int
    start: int
    runs: tuple[Run, ...]


def places(stretches: Sequence[Stretch], pool: int, size: int) -> list[int]:
    """Where new tokens are stored in the pool-th pool: page * size + position in it."""
    return [
        stretch.runs[pool].pages[-1] * size + position % size
        for stretch in stretches
        for position in range(stretch.start, stretch.start + stretch.length)
    ]


@dataclass(frozen=True)
class _Call:
    """Tiles [low, high) against the first `keys` positions of a page each: of the same one, or of
    ones `step` apart.

    `mask`: [high - low, 1, R, keys] to add to the scores. `blind`: rows that see no key at all.
    """

    order: int
    low: int
    high: int
    page: int
    step: int
    keys: int
    mask: Tensor | None
    blind: Tensor | None


@dataclass(frozen=True)
class _Meeting:
    """The tile-th tile, `at`, against the order-th page of its sequence, read up to `keys`
    positions; or, with order SINK, against the first tokens that lie outside its window."""

    order: int
    tile: int
    at: Stretch
    page: int
    keys: int
    masked: bool


@dataclass(eq=False)
class PagedAttention:
    """One pass's attention: a plan made from the stretches of its rows for the layers of each pool.

    `positions`: per tile. `padding`: rows of the pass that belong to nobody. `whole`: read the
    newest pages to their end, as decoding does, and not just to the next step. `stacked`: see
    `stacks`.
    """

    pools: Sequence[PagePool]
    stretches: Sequence[Stretch]
    positions: int
    padding: int
    whole: bool
    device: torch.device
    stacked: bool = False
    _plans: dict[int, list[_Call]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Lay the rows into tiles."""
        self._tiles: list[Stretch] = []
        gather: list[int] = []
        scatter: list[int] = []
        row, width, self._size = 0, self.positions, self.pools[0].size
        for stretch in self.stretches:
            low = 0
            while low < stretch.length:
                count = min(width, stretch.length - low, self._same_end(stretch, low))
                at = len(self._tiles) * width
                self._tiles.append(Stretch(count, stretch.start + low, stretch.runs))
                gather += [*range(row, row + count), *[row] * (width - count)]
                scatter += range(at, at + count)
                row += count
                low += count
        scatter += [0] * self.padding
        self.rows = row
        self._gather = torch.tensor(gather, device=self.device)
        self._scatter = torch.tensor(scatter, device=self.device)
        self._windows = [pool.window for pool in self.pools]
        self._places = [
            torch.tensor(places(self.stretches, pool, self._size), device=self.device)
            for pool in range(len(self.pools))
        ]

    def write(self, k_TKD: Tensor, v_TKD: Tensor, layer: int, window: int | None) -> None:
        """Store the rows' keys and values in the layer's pool."""
        pool = self._windows.index(window)
        self.pools[pool].write(layer, self._places[pool], k_TKD[: self.rows], v_TKD[: self.rows])

    def __call__(self, q_THD: Tensor, layer: int, window: int | None) -> Tensor:
        """[T, H, D]; the rows' own keys and values are in the pool already."""
        which = self._windows.index(window)
        pool = self.pools[which]
        heads, dim = q_THD.shape[1:]
        kv_heads = pool.keys[layer].shape[2]
        group, tiles = heads // kv_heads, len(self._tiles)
        q = q_THD.reshape(-1, kv_heads, group, dim)[self._gather]
        q_NKRD = (
            q.view(tiles, self.positions, kv_heads, group, dim)
            .transpose(1, 2)
            .reshape(tiles, kv_heads, self.positions * group, dim)
        )
        if (missing := MIN_ROWS - q_NKRD.shape[2]) > 0:
            q_NKRD = F.pad(q_NKRD, (0, 0, 0, missing))
        if which not in self._plans:
            self._plans[which] = self._plan(which, q_NKRD.shape[2], group, q_THD.dtype)
        out_NKRD = self._merged(q_NKRD, pool.keys[layer], pool.values[layer], self._plans[which])
        out = out_NKRD[:, :, : self.positions * group]
        out = out.reshape(tiles, kv_heads, self.positions, group, dim).transpose(1, 2)
        return out.flatten(0, 1)[self._scatter].flatten(1, 2)

    def _same_end(self, stretch: Stretch, low: int) -> int:
        """How many tokens from `low` on read their own page to the same place."""
        at = stretch.start + low
        return self.pools[0].read_end(at, whole=self.whole) - at

    def _merged(self, q_NKRD: Tensor, keys: Tensor, values: Tensor, calls: list[_Call]) -> Tensor:
        parts: list[tuple[_Call, Tensor, Tensor]] = []
        depth = 0
        for call in calls:
            q = q_NKRD[call.low : call.high]
            pages = slice(call.page, call.page + (len(q) - 1) * call.step + 1, call.step or None)
            k = keys[pages, : call.keys].transpose(1, 2).expand(len(q), -1, -1, -1)
            v = values[pages, : call.keys].transpose(1, 2).expand(len(q), -1, -1, -1)
            if self.stacked and call.mask is None and not call.step:
                out, lse = attend_stacked(q, k[:1], v[:1])
            else:
                out, lse = attend_tiles(q, k, v, call.mask)
            if call.blind is not None:
                lse = lse.masked_fill(call.blind, -torch.inf)
            parts.append((call, out, lse))
            depth = max(depth, call.order + 1)
        if depth == 1:
            return parts[0][1] if len(parts) == 1 else torch.cat([out for _, out, _ in parts])
        _, out, lse = parts[0]
        exact = lse.dtype
        every = torch.full((depth, *q_NKRD.shape[:3]), -torch.inf, dtype=exact, device=out.device)
        for call, _, lse in parts:
            every[call.order, call.low : call.high] = lse
        # One after another, so that the number of pages of other tiles changes no rounding.
        weights = (every - every.amax(0)).exp_()
        total = weights[0].clone()
        for weight in weights[1:]:
            total += weight
        weights = (weights / total)[..., None]
        merged = torch.zeros(q_NKRD.shape, dtype=exact, device=out.device)
        for call, out, _ in parts:
            merged[call.low : call.high] += out * weights[call.order, call.low : call.high]
        return merged.to(q_NKRD.dtype)

    def _plan(self, which: int, rows: int, group: int, dtype: torch.dtype) -> list[_Call]:
        """Whom each tile meets. The pages that all tiles' windows have passed are not counted."""
        pool = self.pools[which]
        window, runs = pool.window, [tile.runs[which] for tile in self._tiles]
        seen = [pool.first_seen(tile.start) for tile in self._tiles]
        base = min(seen) - bool(pool.sinks)
        met = [
            self._meeting(order, i, tile, run, pool)
            for order in range(base, max(run.end for run in runs))
            for i, (tile, run) in enumerate(zip(self._tiles, runs, strict=True))
            if seen[i] <= order < run.end
        ]
        if pool.sinks:
            # A key is met here or within the window, by its distance from the query alone.
            met[:0] = [
                _Meeting(SINK, i, tile, run.page(0), min(SINK_KEYS, pool.size), masked=True)
                for i, (tile, run) in enumerate(zip(self._tiles, runs, strict=True))
                if window is not None and tile.start + tile.length > window
            ]
        masked = [meeting for meeting in met if meeting.masked]
        mask, blind = self._masks(masked, pool, rows, group, dtype)
        calls, at = [], 0
        for step, few in _in_line(met):
            first, part = few[0], slice(at, at + len(few))
            call = _Call(
                0 if first.order == SINK else first.order - base,
                first.tile,
                first.tile + len(few),
                first.page,
                step,
                first.keys,
                mask[part, ..., : first.keys] if first.masked else None,
                blind[part] if first.masked and window is not None else None,
            )
            calls.append(call)
            at += len(few) * first.masked
        return calls

    def _meeting(self, order: int, i: int, tile: Stretch, run: Run, pool: PagePool) -> _Meeting:
        start, keys = order * pool.size, pool.size
        if order == run.end - 1:
            keys = pool.read_end(tile.start, whole=self.whole) - start
        seen = keys == pool.size and start + keys - 1 <= tile.start
        if pool.window is not None:
            seen = seen and start > tile.start + tile.length - 1 - pool.window
        return _Meeting(order, i, tile, run.page(order), keys, not seen)

    def _masks(
        self,
        masked: list[_Meeting],
        pool: PagePool,
        rows: int,
        group: int,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor]:
        """[M, 1, R, S] additive masks and [M, 1, R] rows without a key; padding sees one key."""
        exact = torch.float64 if dtype == torch.float64 else torch.float32
        count = len(masked)
        figures = torch.tensor(
            [[m.at.start, m.at.length, m.order] for m in masked], dtype=torch.long
        ).reshape(count, 3, 1, 1)
        start, length, order = figures.to(self.device).unbind(1)
        is_sink, first = order == SINK, order.clamp(min=0) * self._size
        offsets = torch.arange(self.positions, device=self.device)[None, :, None]
        query = start + torch.minimum(offsets, length - 1)
        key = first + torch.arange(self._size, device=self.device)
        seen = key <= query
        if pool.window is not None:
            inside = key > query - pool.window
            outside = ~inside & (key < pool.sinks)
            seen &= torch.where(is_sink, outside, inside)
        mask = torch.zeros(seen.shape, dtype=exact, device=self.device)
        mask = mask.masked_fill_(~seen, -torch.inf).repeat_interleave(group, 1)
        blind = ~seen.any(-1).repeat_interleave(group, 1)
        if rows > mask.shape[1]:
            mask = F.pad(mask, (0, 0, 0, rows - mask.shape[1]))
            blind = F.pad(blind, (0, rows - blind.shape[1]))
        return mask[:, None], blind[:, None]


def _in_line(met: list[_Meeting]) -> Iterator[tuple[int, list[_Meeting]]]:
    """Neighbouring tiles that meet, alike, one page (step 0) or pages in even steps."""
    few: list[_Meeting] = []
    step = 0
    for meeting in met:
        if few:
            last = few[-1]
            alike = (last.order, last.tile + 1, last.keys, last.masked) == (
                meeting.order,
                meeting.tile,
                meeting.keys,
                meeting.masked,
            )
            apart = meeting.page - last.page
            if alike and apart >= 0 and (len(few) == 1 or apart == step):
                few.append(meeting)
                step = apart
                continue
            yield step, few
        few, step = [meeting], 0
    if few:
        yield step, few


def stacks(rows: int, pool: PagePool) -> bool:
    """Whether tiles of `rows` rows that lie above one another in one product get the bits that
    they get apart, tried with random figures as row_counts does."""
    keys, threads = next(iter(pool.keys.values())), torch.get_num_threads()
    return _stacks(max(rows, MIN_ROWS), keys.shape[1:], keys.dtype, keys.device, threads)


@lru_cache
def _stacks(
    rows: int, page: torch.Size, dtype: torch.dtype, device: torch.device, threads: int
) -> bool:
    size, kv_heads, dim = page
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device, dtype)

    k, v = (drawn(1, kv_heads, size, dim) for _ in range(2))
    q_NKRD = drawn(_STACKED[-1], kv_heads, rows, dim)
    for count in _STACKED:
        q = q_NKRD[-count:]
        apart = attend_tiles(q, k.expand(count, -1, -1, -1), v.expand(count, -1, -1, -1), None)
        if not all(map(torch.equal, attend_stacked(q, k, v), apart)):
            return False
    return True


# Every remainder of the blocks of rows that kernels work in.
_STACKED = (*range(1, 17), 24, 31, 32, 33, 48, 64)


def attend_stacked(q_NKRD: Tensor, k_1KSD: Tensor, v_1KSD: Tensor) -> tuple[Tensor, Tensor]:
    """As attend_tiles, where all tiles see all keys of one page."""
    count, kv_heads, rows, _ = q_NKRD.shape
    q = q_NKRD.transpose(0, 1).flatten(1, 2)[None]
    out, lse = attend_tiles(q, k_1KSD, v_1KSD, None)
    out = out.reshape(kv_heads, count, rows, -1)
    return out.transpose(0, 1), lse.reshape(kv_heads, count, rows).transpose(0, 1)


def attend_tiles(
    q_NKRD: Tensor,
    k_NKSD: Tensor,
    v_NKSD: Tensor,
    mask: Tensor | None,
    *,
    kernel: bool | None = None,
) -> tuple[Tensor, Tensor]:
    """Softmax attention of every tile, and the log of each row's softmax sum, [N, K, R].

    Without a mask every key is seen. `kernel`: use the fused one, by default where there is one.
    """
    if q_NKRD.device.type == "cpu" if kernel is None else kernel:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q_NKRD, k_NKSD, v_NKSD, attn_mask=mask
        )
        return out, lse
    scores = (q_NKRD @ k_NKSD.transpose(-1, -2)).float() / math.sqrt(q_NKRD.shape[-1])
    if mask is not None:
        scores = scores + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp().to(v_NKSD.dtype) @ v_NKSD, lse
