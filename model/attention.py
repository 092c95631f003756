"""What a forward pass is given besides weights, and causal attention over whole sequences.

The tokens of several sequences lie one after another in one row of T tokens. No padding exists,
and no sequence sees another. The engine brings a batch of its own, over cached keys and values.

Shapes: T packed tokens, H query heads, K key-value heads, D head dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import ModelConfig
from .rope import logn_scale, rotation_of


class Batch(Protocol):
    """Packed tokens, what all layers share about them, and how they attend.

    ids_T: token ids. cos, sin: [T, D/2] rotations. logn_T: [T] factors on queries, or None.
    """

    ids_T: Tensor
    cos: Tensor
    sin: Tensor
    logn_T: Tensor | None

    def attend(
        self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, window: int | None
    ) -> Tensor:
        """Causal attention of every token over its own sequence, [T, H, D].

        q and k arrive rotated. With `window` w a token sees itself and the w - 1 before it, and
        the model's sinks.
        """
        ...


@dataclass(frozen=True)
class Span:
    """`length` tokens of one whole sequence, and the NTK stretch its RoPE has."""

    length: int
    alpha: float = 1.0


@dataclass
class WholeSequences:
    """A Batch of whole sequences: nothing is cached. What training and reference passes use.

    `sinks`: tokens at the start of each that are seen from behind a window, too.
    """

    ids_T: Tensor
    spans: tuple[Span, ...]
    cos: Tensor = field(repr=False)
    sin: Tensor = field(repr=False)
    logn_T: Tensor | None = field(default=None, repr=False)
    sinks: int = 0

    def attend(
        self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, window: int | None
    ) -> Tensor:
        """See Batch.attend; every layer attends alike here."""
        lengths = [span.length for span in self.spans]
        parts = zip(*(x.split_with_sizes(lengths) for x in (q_THD, k_TKD, v_TKD)), strict=True)
        return torch.cat([_attend_whole(q, k, v, window, self.sinks) for q, k, v in parts])


def pack(config: ModelConfig, ids_T: Tensor, spans: tuple[Span, ...]) -> WholeSequences:
    """Compute positions, rotations and LogN factors once for all layers."""
    assert sum(span.length for span in spans) == ids_T.shape[0]
    device = ids_T.device
    positions_T = torch.cat([torch.arange(span.length) for span in spans])
    parts = zip(
        *(rotation_of(config, torch.arange(span.length), span.alpha) for span in spans), strict=True
    )
    cos, sin = map(torch.cat, parts)
    logn_T = logn_scale(positions_T, config.trained_length).to(device) if config.logn else None
    return WholeSequences(ids_T, spans, cos.to(device), sin.to(device), logn_T, config.sinks)


def _attend_whole(
    q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, window: int | None, sinks: int
) -> Tensor:
    length = q_THD.shape[0]
    mask = None
    if window is not None and length > window:
        at = torch.arange(length, device=q_THD.device)
        mask = (at <= at[:, None]) & ((at > at[:, None] - window) | (at < sinks))
    out_1HTD = F.scaled_dot_product_attention(
        q_THD.transpose(0, 1)[None],
        k_TKD.transpose(0, 1)[None],
        v_TKD.transpose(0, 1)[None],
        attn_mask=mask,
        is_causal=mask is None and length > 1,
        enable_gqa=q_THD.shape[1] != k_TKD.shape[1],
    )
    return out_1HTD[0].transpose(0, 1)
