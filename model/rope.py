"""Rotary position embedding, its stretches by dynamic NTK and YaRN, and LogN scaling.

Sources: the paper's section 2.5 and the released code; yarn.py for YaRN. Everything is computed in
fp32 and cast once at the end, as the released code does.

Shapes: T tokens, D head dimension.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .config import ModelConfig
from .yarn import Yarn


def ntk_alpha(length: int, trained_length: int) -> float:
    """How far dynamic NTK stretches RoPE for a prompt of `length` tokens.

    modeling_qwen.py: 2 ** ceil(log2(length / S) + 1) - 1, at least 1. So 1 up to S, 3 up to 2S,
    7 up to 4S, 15 up to 8S.
    """
    if length <= trained_length:
        return 1.0
    return float(max(2 ** math.ceil(math.log2(length / trained_length) + 1) - 1, 1))


def inverse_frequencies(head_dim: int, base: float, alpha: float = 1.0) -> Tensor:
    """[D/2] rotation speeds in radians per token; base' = base * alpha^(D / (D - 2))."""
    stretched = base * alpha ** (head_dim / (head_dim - 2)) if alpha != 1.0 else base
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim
    return 1.0 / (stretched**exponents)


def yarn_frequencies(head_dim: int, base: float, yarn: Yarn) -> Tensor:
    """[D/2] rotation speeds: a fast pair's own, a slow one's / factor, a blend between."""
    low, high = yarn.blend(head_dim, base)
    kept = 1 - ((torch.arange(head_dim // 2) - low) / (high - low)).clamp(0, 1)
    turn = base ** (torch.arange(0, head_dim, 2, dtype=torch.float32) / head_dim)
    return 1 / (yarn.factor * turn) * (1 - kept) + 1 / turn * kept


def rotation(positions_T: Tensor, frequencies: Tensor, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [T, D/2] in fp32: one angle per pair (i, i + D/2), NeoX's layout.

    `frequencies` is [D/2]; what is rotated grows by `scale`.
    """
    angles = positions_T.float()[:, None] * frequencies
    return angles.cos() * scale, angles.sin() * scale


def rotation_of(
    config: ModelConfig, positions_T: Tensor, alpha: float = 1.0
) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [T, D/2], of a model: by its YaRN, else stretched by NTK's alpha."""
    if config.yarn is None:
        frequencies = inverse_frequencies(config.head_dim, config.rope_base, alpha)
        return rotation(positions_T, frequencies)
    assert alpha == 1, "a model stretched by YaRN has no NTK"
    frequencies = yarn_frequencies(config.head_dim, config.rope_base, config.yarn)
    return rotation(positions_T, frequencies, config.yarn.scale)


def rotate(x_THD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its token's angle; in fp32, returned in x's dtype."""
    low, high = x_THD.float().chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    turned = torch.cat((low * cos - high * sin, high * cos + low * sin), dim=-1)
    return turned.to(x_THD.dtype)


class RotationTable:
    """Rotations by position and NTK alpha, computed once, CHUNK positions at a time: a position's
    figures then never depend on which others were asked for with it."""

    CHUNK = 1024

    def __init__(self, config: ModelConfig, device: torch.device) -> None:
        self._config, self._device = config, device
        self._tables: dict[float, tuple[Tensor, Tensor]] = {}

    def rows(self, positions: Sequence[int], alphas: Sequence[float]) -> tuple[Tensor, Tensor]:
        """(cos, sin), each [T, D/2], of T tokens."""
        at = torch.tensor(positions, device=self._device)
        known = sorted(set(alphas))
        if len(known) == 1:
            cos, sin = self._table(known[0], max(positions) + 1)
            return cos[at], sin[at]
        which = torch.tensor([known.index(alpha) for alpha in alphas], device=self._device)
        tables = [self._table(alpha, max(positions) + 1) for alpha in known]
        length = min(len(cos) for cos, _ in tables)
        cos, sin = (torch.stack([pair[i][:length] for pair in tables]) for i in (0, 1))
        return cos[which, at], sin[which, at]

    def _table(self, alpha: float, length: int) -> tuple[Tensor, Tensor]:
        cos, sin = self._tables.get(alpha, (None, None))
        have = 0 if cos is None else len(cos)
        if cos is None or sin is None or have < length:
            parts = [(cos, sin)] if cos is not None and sin is not None else []
            for start in range(have, length, self.CHUNK):
                pair = rotation_of(self._config, torch.arange(start, start + self.CHUNK), alpha)
                parts.append((pair[0].to(self._device), pair[1].to(self._device)))
            cos, sin = (torch.cat([part[i] for part in parts]) for i in (0, 1))
            self._tables[alpha] = cos, sin
        return cos, sin


def logn_scale(positions_T: Tensor, trained_length: int) -> Tensor:
    """[T] fp32 factors on queries: log_S(position + 1) beyond S, 1 before.

    The released table stops at 32,767; the formula here does not.
    """
    counts = positions_T.double() + 1
    return (counts.log() / math.log(trained_length)).clamp(min=1.0).float()
