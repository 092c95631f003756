"""One forward pass over pieces of many sequences: from ids to the logits each one asked for.

Prompts and decoding go through in passes of their own, each padded to numbers of rows that keep a
row's bits its own (row_counts). Knows nothing of which pieces are due.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

import torch
import torch.nn.functional as F
from torch import Tensor

from ..rope import RotationTable, logn_scale
from ..transformer import Block, Transformer
from .batch import PagedBatch
from .graphs import DecodeGraphs, cuda_graph
from .paged_attention import PagedAttention, Stretch, stacks
from .pages import PagePool
from .row_counts import RowCounts, row_counts
from .sequence import AnyTrack, GeneratingTrack, Piece
from .varlen_attention import VarlenAttention, kernel_for

# Canonical numbers of rows, and others that may prove to agree with them.
PROMPT_ROWS = {"cpu": 512, "cuda": 4096}
DECODE_ROWS, LOGIT_ROWS = 32, 32
PROMPT_SIZES = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048)
DECODE_SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 48, 64, 96, 128)
LOGIT_SIZES = (1, 2, 4, 8, 16, 64)
MOST_LOGITS = 256  # rows that meet the vocabulary at a time; 256 x 151,936 fp32 are 156 MB


class EngineMemoryError(MemoryError):
    """Memory does not suffice for the least there is to compute."""


class Passes:
    """Feeds pieces to a model whose keys and values lie in `pools`.

    `exact`: whether every row's figures are the same bits whatever runs beside it; always False
    without `batch_invariant`. `attention`: the name of the way attention is computed.
    """

    def __init__(
        self, model: Transformer, pools: Sequence[PagePool], *, batch_invariant: bool
    ) -> None:
        self.model, self.pools = model, pools
        weight = model.embedding.weight
        self.device, config = weight.device, model.config
        group = config.num_heads // config.num_kv_heads
        self._rotations = RotationTable(config, self.device)
        self._prompt = self._decode = self._logits = RowCounts()
        if batch_invariant:
            most = prompt_rows(self.device)
            sizes = tuple(size for size in PROMPT_SIZES if size < most)
            self._prompt = _pass_rows(model, most, sizes)
            self._decode = _pass_rows(model, DECODE_ROWS, DECODE_SIZES)
            self._logits = _logit_rows(model)
        self.exact = self._prompt.exact and self._decode.exact and self._logits.exact
        self.attention, self._kernel = kernel_for(
            self.device,
            weight.dtype,
            batch_invariant=batch_invariant,
            sinks=any(pool.sinks for pool in pools),
        )
        self._graphs: DecodeGraphs | None = None
        if self._kernel is not None:
            self._graphs = DecodeGraphs(model, pools, cuda_graph)
            self.attention += ", decoding recorded"
            if not batch_invariant:
                self._decode = RowCounts((*DECODE_SIZES, DECODE_ROWS))
        # Larger tiles suit bf16's matrix units; smaller ones waste less at the end of a prompt.
        tile = max(16, 32 // group) * (2 if weight.dtype == torch.bfloat16 else 1)
        self._tiles = {True: 1, False: tile}
        self._stacked = {
            decoding: not batch_invariant
            or self._kernel is not None
            or stacks(tile * group, pools[0])
            for decoding, tile in self._tiles.items()
        }

    def run(self, pieces: Sequence[Piece], *, decoding: bool) -> None:
        """Feed pieces and give every track the logits it wanted; in several passes if need be.

        Raises torch.OutOfMemoryError, MemoryError or RuntimeError where memory does not suffice;
        the tracks that have not moved on can then be fed again.
        """
        counts = self._decode if decoding else self._prompt
        for few in _within(pieces, counts.most):
            self._pass(few, counts, decoding=decoding)

    def _pass(self, pieces: Sequence[Piece], counts: RowCounts, *, decoding: bool) -> None:
        ids: list[int] = []
        positions: list[int] = []
        alphas: list[float] = []
        stretches: list[Stretch] = []
        wanted: list[tuple[AnyTrack, int, int]] = []  # whose logits, at which position, which row
        for piece in pieces:
            track, start, length = piece.track, piece.start, piece.rows
            for position in track.wanted(start, start + length):
                wanted.append((track, position, len(ids) + position - start))
            ids += [*track.tokens[start : start + piece.length], *piece.draft]
            positions += range(start, start + length)
            alphas += [track.alpha] * length
            stretches += track.stretches(start, length, self.pools)
        padding = counts.padded(len(ids)) - len(ids)
        positions += [0] * padding
        cos, sin = self._rotations.rows(positions, alphas + alphas[:1] * padding)
        batch = PagedBatch(
            torch.tensor(ids + [0] * padding, device=self.device),
            cos,
            sin,
            self._logn(positions),
            self._attention(stretches, padding, decoding=decoding),
        )
        graphs = self._graphs if decoding else None
        hidden_TE = graphs.hidden(batch) if graphs else self.model.hidden(batch)
        # Keys and values that are not finite leave no finite row behind them.
        if not hidden_TE[: len(ids)].isfinite().all():
            for pool in self.pools:
                pool.tainted = True
        for piece in pieces:
            piece.track.fed += piece.rows
        for block in _blocks(wanted, self._logits.most or MOST_LOGITS):
            self._read(hidden_TE, block)

    def _attention(
        self, stretches: list[Stretch], padding: int, *, decoding: bool
    ) -> PagedAttention | VarlenAttention:
        if self._kernel is not None:
            return VarlenAttention.over(self.pools, stretches, self.device, self._kernel)
        return PagedAttention(
            self.pools,
            stretches,
            self._tiles[decoding],
            padding,
            decoding,
            self.device,
            stacked=self._stacked[decoding],
        )

    def _read(self, hidden_TE: Tensor, block: list[tuple[AnyTrack, int, int]]) -> None:
        """The rows of one block meet the vocabulary, in two halves where memory is short."""
        try:
            logits_RV = self._logits_of(hidden_TE, block)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            tracks = {id(track) for track, _, _ in block}
            if len(tracks) == 1 and (len(block) == 1 or isinstance(block[0][0], GeneratingTrack)):
                raise EngineMemoryError("no memory for one row of logits") from error
            half = max(len(block) // 2, 1)
            for part in _blocks(block, half):
                self._read(hidden_TE, part)
            return
        at = 0
        for track, group in groupby(block, key=lambda entry: entry[0]):
            positions = [position for _, position, _ in group]
            track.take(positions[0], logits_RV[at : at + len(positions)])
            at += len(positions)

    def _logits_of(self, hidden_TE: Tensor, block: list[tuple[AnyTrack, int, int]]) -> Tensor:
        rows = torch.tensor([row for _, _, row in block], device=self.device)
        padding = self._logits.padded(len(block)) - len(block)
        hidden_RE = F.pad(hidden_TE[rows], (0, 0, 0, padding))
        return self.model.logits(hidden_RE).float()

    def _logn(self, positions: list[int]) -> Tensor | None:
        config = self.model.config
        if not config.logn:
            return None
        return logn_scale(torch.tensor(positions), config.trained_length).to(self.device)


def prompt_rows(device: torch.device) -> int:
    """Prompt tokens in one pass: as many as keep a device's matrix units busy."""
    return PROMPT_ROWS.get(device.type, PROMPT_ROWS["cpu"])


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at a time may help; PyTorch's CPU allocator raises a plain RuntimeError."""
    if isinstance(error, EngineMemoryError):
        return False
    known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return known or "allocate memory" in str(error)


def _within(pieces: Sequence[Piece], most: int | None) -> Iterator[list[Piece]]:
    """Pieces in order, at most so many rows at a time."""
    few: list[Piece] = []
    rows = 0
    for piece in pieces:
        if few and most is not None and rows + piece.rows > most:
            yield few
            few, rows = [], 0
        few.append(piece)
        rows += piece.rows
    if few:
        yield few


def _blocks(
    wanted: list[tuple[AnyTrack, int, int]], most: int
) -> Iterator[list[tuple[AnyTrack, int, int]]]:
    """At most so many entries at a time; a draft's rows, which are read in turn, stay together."""
    block: list[tuple[AnyTrack, int, int]] = []
    for track, group in groupby(wanted, key=lambda entry: entry[0]):
        entries = list(group)
        together = len(entries) if isinstance(track, GeneratingTrack) else 1
        for low in range(0, len(entries), together):
            if block and len(block) + together > most:
                yield block
                block = []
            block += entries[low : low + together]
    if block:
        yield block


def _pass_rows(model: Transformer, canonical: int, sizes: tuple[int, ...]) -> RowCounts:
    """What a row goes through between two attentions, tried on the first block's weights; all
    blocks have the same shapes."""
    block, config = model.blocks[0], model.config
    assert isinstance(block, Block)

    def compute(x_TE: Tensor) -> Tensor:
        qk, v_TKD = block.attention.heads_of(block.attention_norm(x_TE))
        mixed_THD = qk[:, : config.num_heads] + 1
        x_TE = x_TE + block.attention.o_proj(mixed_THD.flatten(1))
        x_TE = x_TE + block.ffn(block.ffn_norm(x_TE))
        return torch.cat((qk.flatten(1), v_TKD.flatten(1), model.norm(x_TE)), dim=1)

    return _tried(model, ("pass", canonical), compute, canonical, sizes)


def _logit_rows(model: Transformer) -> RowCounts:
    def compute(hidden_RE: Tensor) -> Tensor:
        return model.logits(hidden_RE).float().log_softmax(-1)

    return _tried(model, ("logits", LOGIT_ROWS), compute, LOGIT_ROWS, LOGIT_SIZES)


@torch.inference_mode()
def _tried(
    model: Transformer,
    what: tuple[str, int],
    compute: Callable[[Tensor], Tensor],
    canonical: int,
    sizes: tuple[int, ...],
) -> RowCounts:
    """row_counts, once for each kind of model and number of threads."""
    weight = model.embedding.weight
    kind = (what, model.config, type(model.head), weight.dtype, weight.device)
    key = (*kind, torch.get_num_threads())
    if key not in _known:
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(canonical, model.config.hidden_size, generator=generator)
        _known[key] = row_counts(compute, rows.to(weight.device, weight.dtype), sizes)
    return _known[key]


_known: dict[tuple[object, ...], RowCounts] = {}
