"""The same model in fewer and larger products, for inference.

q, k and v are one product; on a CPU every weight is laid out once as oneDNN's kernels read it,
where oneDNN has kernels for the dtype there. A fused model can be neither trained nor saved.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .transformer import Attention, Block, SwiGLU, Transformer, silu

_onednn = torch.ops.mkldnn


class Product(nn.Module):
    """x @ weight.T + bias with several linear layers below one another, [T, E] to [T, sum F]."""

    def __init__(self, parts: Sequence[nn.Linear]) -> None:
        super().__init__()
        weights: list[Tensor] = [part.weight for part in parts]
        weight = torch.cat(weights) if parts[1:] else weights[0]
        biases: list[Tensor] = [part.bias for part in parts if part.bias is not None]
        self.inputs = weight.shape[1]
        self.bias = torch.cat(biases) if biases else None
        self.packed = _packs(weight)
        self.weight = _onednn._reorder_linear_weight(weight) if self.packed else weight

    def forward(self, x_TE: Tensor) -> Tensor:
        """[T, sum F]."""
        if self.packed:
            out: Tensor = _onednn._linear_pointwise(x_TE, self.weight, self.bias, "none", [], "")
            return out
        return F.linear(x_TE, self.weight, self.bias)


def _packs(weight: Tensor) -> bool:
    """Whether oneDNN takes a weight of this kind on this machine."""
    if weight.device.type != "cpu":
        return False
    try:
        sample = torch.zeros(16, 16, dtype=weight.dtype)
        packed = _onednn._reorder_linear_weight(sample)
        _onednn._linear_pointwise(sample, packed, None, "none", [], "")
    except (RuntimeError, NotImplementedError):  # no kernels for the dtype, or no oneDNN
        return False
    return True


class FusedAttention(Attention):
    """One product for q, k and v."""

    def __init__(self, plain: Attention) -> None:
        nn.Module.__init__(self)
        self.heads, self.kv_heads, self.head_dim = plain.heads, plain.kv_heads, plain.head_dim
        self.q_norm, self.k_norm = plain.q_norm, plain.k_norm
        self.qkv_proj = Product((plain.q_proj, plain.k_proj, plain.v_proj))
        self.o_proj = Product((plain.o_proj,))  # type: ignore[assignment]

    def heads_of(self, x_TE: Tensor) -> tuple[Tensor, Tensor]:
        """As Attention.heads_of."""
        qkv = self.qkv_proj(x_TE).unflatten(-1, (-1, self.head_dim))
        qk, v_TKD = qkv.split((self.heads + self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None:
            qk = self.normed(*qk.split((self.heads, self.kv_heads), dim=1))
        return qk, v_TKD


class FusedSwiGLU(SwiGLU):
    """Products in the layout of the machine."""

    def __init__(self, plain: SwiGLU) -> None:
        nn.Module.__init__(self)
        self.gate_proj = Product((plain.gate_proj,))  # type: ignore[assignment]
        self.up_proj = Product((plain.up_proj,))  # type: ignore[assignment]
        self.down_proj = Product((plain.down_proj,))  # type: ignore[assignment]

    def forward(self, x_TE: Tensor) -> Tensor:
        """As SwiGLU.forward, in place."""
        gated = silu(self.gate_proj(x_TE)).mul_(self.up_proj(x_TE))
        out: Tensor = self.down_proj(gated)
        return out


@torch.inference_mode()
def fuse(model: Transformer) -> Transformer:
    """Replace the linear layers of `model`, which is returned."""
    for block in model.blocks:
        assert isinstance(block, Block)
        block.attention = FusedAttention(block.attention)
        block.ffn = FusedSwiGLU(block.ffn)
    model.head = Product((model.head,))  # type: ignore[assignment]
    for parameter in model.parameters():
        # What is still a view of a mapped file would keep all of it in memory.
        if parameter.device.type == "cpu":
            parameter.data = parameter.data.clone()
    model.kernels = "oneDNN" if model.head.packed else "torch"
    return model
