"""Rotary position embedding, its dynamic NTK stretch, and LogN scaling (paper section 2.5).

Everything is computed in fp32 and cast once at the end, as the released code does.

Shapes: T tokens, D head dimension.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


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


def rotation(positions_T: Tensor, frequencies: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin), each [T, D] in fp32, both halves alike (the rotate-half layout of NeoX).

    `frequencies` is [D/2], or [T, D/2] where tokens differ.
    """
    angles = positions_T.float()[:, None] * frequencies
    angles_TD = torch.cat((angles, angles), dim=-1)
    return angles_TD.cos(), angles_TD.sin()


def rotate(x_THD: Tensor, cos_TD: Tensor, sin_TD: Tensor) -> Tensor:
    """Turn each pair (x_i, x_{i+D/2}) by its token's angle; in fp32, returned in x's dtype."""
    x = x_THD.float()
    low, high = x.chunk(2, dim=-1)
    turned = torch.cat((-high, low), dim=-1)
    return (x * cos_TD[:, None] + turned * sin_TD[:, None]).to(x_THD.dtype)


def logn_scale(positions_T: Tensor, trained_length: int) -> Tensor:
    """[T] fp32 factors on queries: log_S(position + 1) beyond S, 1 before.

    The released table stops at 32,767; the formula here does not.
    """
    counts = positions_T.double() + 1
    return (counts.log() / math.log(trained_length)).clamp(min=1.0).float()
