"""Attention of a packed batch against per-sequence key-value stores.

The tokens of several sequences lie one after another in one row of T tokens; a Span says which of
them belong to which sequence and where in it they stand. No padding exists, and no sequence sees
another. Knows nothing of weights, sampling or scheduling.

Shapes: T packed tokens, H query heads, K key-value heads, D head dimension, N keys.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig
from .rope import inverse_frequencies, logn_scale, rotation


class KeyValues(Protocol):
    """The keys and values of one sequence in every layer."""

    def extend(self, layer: int, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Store the new tokens' keys and values; return all of this layer, each [N, K, D]."""
        ...


@dataclass(frozen=True)
class Span:
    """`length` tokens of one sequence, the first standing at position `start` of it.

    `alpha` is the NTK stretch the sequence was prefilled with; it stays for the whole sequence.
    `store` is None for a plain forward pass over a whole sequence (start 0).
    """

    length: int
    start: int = 0
    alpha: float = 1.0
    store: KeyValues | None = None


@dataclass
class Batch:
    """Packed tokens and what all layers share about them: rotations and LogN factors."""

    ids_T: Tensor
    spans: tuple[Span, ...]
    cos_TD: Tensor = field(repr=False)
    sin_TD: Tensor = field(repr=False)
    logn_T: Tensor | None = field(default=None, repr=False)


def pack(config: ModelConfig, ids_T: Tensor, spans: tuple[Span, ...]) -> Batch:
    """Compute positions, rotations and LogN factors once for all layers."""
    assert sum(span.length for span in spans) == ids_T.shape[0]
    device = ids_T.device
    positions_T = torch.tensor(
        [p for span in spans for p in range(span.start, span.start + span.length)], device=device
    )
    alphas = sorted({span.alpha for span in spans})
    tables = [inverse_frequencies(config.head_dim, config.rope_base, a) for a in alphas]
    if len(tables) == 1:
        cos_TD, sin_TD = rotation(positions_T, tables[0].to(device))
    else:
        lengths = torch.tensor([span.length for span in spans])
        chosen = torch.tensor([alphas.index(span.alpha) for span in spans])
        frequencies = torch.stack(tables)[chosen.repeat_interleave(lengths)]
        cos_TD, sin_TD = rotation(positions_T, frequencies.to(device))
    logn_T = logn_scale(positions_T, config.trained_length) if config.logn else None
    return Batch(ids_T, spans, cos_TD, sin_TD, logn_T)


def attend(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, batch: Batch, layer: int, window: int | None
) -> Tensor:
    """Causal attention of every span against its own sequence; returns [T, H, D].

    q and k arrive rotated. With `window` w a token sees itself and the w - 1 tokens before it.
    """
    if batch.logn_T is not None:
        q_THD = (q_THD * batch.logn_T[:, None, None]).to(q_THD.dtype)
    outputs, offset = [], 0
    for span in batch.spans:
        part = slice(offset, offset + span.length)
        offset += span.length
        k_NKD, v_NKD = k_TKD[part], v_TKD[part]
        if span.store is not None:
            k_NKD, v_NKD = span.store.extend(layer, k_NKD, v_NKD)
        outputs.append(_attend_one(q_THD[part], k_NKD, v_NKD, span.start, window))
    return torch.cat(outputs)


def _attend_one(
    q_THD: Tensor, k_NKD: Tensor, v_NKD: Tensor, start: int, window: int | None
) -> Tensor:
    length, keys = q_THD.shape[0], k_NKD.shape[0]
    if window is not None and length == 1 and keys > window:
        k_NKD, v_NKD = k_NKD[-window:], v_NKD[-window:]
    mask = None
    if length > 1 and (start > 0 or (window is not None and keys > window)):
        query = torch.arange(start, start + length, device=q_THD.device)[:, None]
        key = torch.arange(keys, device=q_THD.device)[None]
        mask = key <= query
        if window is not None:
            mask &= key > query - window
    out_1HTD = F.scaled_dot_product_attention(
        q_THD.transpose(0, 1)[None],
        k_NKD.transpose(0, 1)[None],
        v_NKD.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=mask is None and length > 1,
        enable_gqa=q_THD.shape[1] != k_NKD.shape[1],
    )
    return out_1HTD[0].transpose(0, 1)
