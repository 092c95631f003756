"""Decoding passes recorded once per number of rows and replayed: on a GPU a step of few tokens
would otherwise cost the time it takes Python to launch its kernels.

A recording reads and writes fixed memory. Each pass is copied into it, in tables as wide as the
longest sequence; rows that belong to nobody look at one key of a page that is nobody's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ..transformer import Transformer
from .batch import PagedBatch
from .pages import PagePool
from .varlen_attention import Tables, VarlenAttention

Record = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]
"""Takes what computes a tensor from fixed memory; returns what computes it again, faster."""


def cuda_graph(compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Record as a CUDA graph. The tensor that a replay returns is written over by the next one."""
    warm = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    warm.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(warm):
        for _ in range(2):  # libraries make their workspaces before anything is recorded
            compute()
    torch.cuda.current_stream().wait_stream(warm)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = compute()

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


class DecodeGraphs:
    """Recordings of `model` over `pools`, of which one page each is taken for rows of nobody."""

    def __init__(self, model: Transformer, pools: Sequence[PagePool], record: Record) -> None:
        self._model, self._pools, self._record = model, pools, record
        self._nobody = [pool.take() for pool in pools]
        self._widths = [pool.bounded(-(-model.config.max_length // pool.size)) for pool in pools]
        self._recordings: dict[int, tuple[PagedBatch, Callable[[], Tensor]]] = {}

    def hidden(self, batch: PagedBatch) -> Tensor:
        """As Transformer.hidden; valid until the next call."""
        rows = len(batch.ids_T)
        if rows not in self._recordings:
            fixed = self._like(batch)
            self._fill(fixed, batch)
            self._recordings[rows] = fixed, self._record(lambda: self._model.hidden(fixed))
        fixed, replay = self._recordings[rows]
        self._fill(fixed, batch)
        return replay()

    def _like(self, batch: PagedBatch) -> PagedBatch:
        """Memory for a pass of as many rows, whatever its sequences."""
        rows, given = len(batch.ids_T), batch.attention
        assert isinstance(given, VarlenAttention)
        begins = given.tables[0].begins.new_empty(rows + 1)
        tables = [
            Tables(
                begins,
                begins.new_empty(rows),
                begins.new_empty(rows, width),
                (rows, width * pool.size),
            )
            for pool, width in zip(self._pools, self._widths, strict=True)
        ]
        places = [stored.new_empty(rows) for stored in given.places]
        return PagedBatch(
            torch.empty_like(batch.ids_T),
            torch.empty_like(batch.cos),
            torch.empty_like(batch.sin),
            None if batch.logn_T is None else torch.empty_like(batch.logn_T),
            VarlenAttention(self._pools, rows, places, tables, given.kernel),
        )

    def _fill(self, fixed: PagedBatch, batch: PagedBatch) -> None:
        attention, given = fixed.attention, batch.attention
        assert isinstance(attention, VarlenAttention)
        assert isinstance(given, VarlenAttention)
        fixed.ids_T.copy_(batch.ids_T)
        fixed.cos.copy_(batch.cos)
        fixed.sin.copy_(batch.sin)
        if fixed.logn_T is not None and batch.logn_T is not None:
            fixed.logn_T.copy_(batch.logn_T)
        for i, nobody in enumerate(self._nobody):
            attention.places[i].fill_(nobody * self._pools[i].size)
            attention.places[i][: given.rows].copy_(given.places[i])
            tables, few = attention.tables[i], given.tables[i]
            count, width = few.pages.shape
            # Behind the last sequence one takes in all rows of nobody, and the others have none.
            tables.begins.fill_(len(batch.ids_T))
            tables.begins[: count + 1].copy_(few.begins)
            tables.keys.fill_(1)
            tables.keys[:count].copy_(few.keys)
            tables.pages.fill_(nobody)
            tables.pages[:count, :width].copy_(few.pages)
