"""The decoder, top to bottom: embedding, blocks of attention and SwiGLU, final norm, head.

One class serves Qwen v1, Qwen1.5/2/2.5, Qwen3 and Llama; ModelConfig says what differs
(Qwen Technical Report, section 2.3). Renaming a family's weights is the work of weights.py.
Knows nothing of text, caches' bookkeeping or sampling.

Shapes: T packed tokens, E hidden size, H query heads, K key-value heads, D head dimension,
F FFN width, V vocabulary rows.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import Batch, Span, pack
from .config import ModelConfig
from .rope import rotate

_SHARE = 32768  # elements below which PyTorch gives no thread a share of its own (GRAIN_SIZE)
_GROUP = 64  # elements that its kernels take at a time, at the most (two AVX-512 vectors of bf16)


class RMSNorm(nn.Module):
    """x / rms(x) * weight; the mean square is taken in fp32, the product in x's own dtype."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        x32 = x.float()
        x32 = x32 * torch.rsqrt(x32.pow(2).mean(-1, keepdim=True) + self.eps)
        return x32.to(x.dtype) * self.weight


class Attention(nn.Module):
    """Multi-head or grouped-query attention with RoPE; biases and q/k norms as configured."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.num_heads, config.num_kv_heads
        self.head_dim = config.head_dim
        E, D, bias = config.hidden_size, config.head_dim, config.qkv_bias
        self.q_proj = nn.Linear(E, self.heads * D, bias=bias)
        self.k_proj = nn.Linear(E, self.kv_heads * D, bias=bias)
        self.v_proj = nn.Linear(E, self.kv_heads * D, bias=bias)
        self.o_proj = nn.Linear(self.heads * D, E, bias=config.out_bias)
        self.q_norm = RMSNorm(D, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(D, config.norm_eps) if config.qk_norm else None

    def heads_of(self, x_TE: Tensor) -> tuple[Tensor, Tensor]:
        """[T, H + K, D] queries and keys, and [T, K, D] values; not yet rotated."""
        shape = (-1, self.head_dim)
        q_THD = self.q_proj(x_TE).unflatten(-1, shape)
        k_TKD = self.k_proj(x_TE).unflatten(-1, shape)
        return self.normed(q_THD, k_TKD), self.v_proj(x_TE).unflatten(-1, shape)

    def normed(self, q_THD: Tensor, k_TKD: Tensor) -> Tensor:
        """Queries and keys in one, after their norms where the family has them."""
        if self.q_norm is not None and self.k_norm is not None:
            q_THD, k_TKD = self.q_norm(q_THD), self.k_norm(k_TKD)
        return torch.cat((q_THD, k_TKD), dim=1)

    def forward(self, x_TE: Tensor, batch: Batch, layer: int, window: int | None) -> Tensor:
        """[T, E] in, [T, E] out; queries and keys are rotated together."""
        qk, v_TKD = self.heads_of(x_TE)
        qk = rotate(qk, batch.cos, batch.sin)
        q_THD, k_TKD = qk[:, : self.heads], qk[:, self.heads :]
        if batch.logn_T is not None:
            q_THD = (q_THD * batch.logn_T[:, None, None]).to(q_THD.dtype)
        out_THD = batch.attend(q_THD, k_TKD, v_TKD, layer, window)
        projected: Tensor = self.o_proj(out_THD.flatten(1))
        return projected


class SwiGLU(nn.Module):
    """down(silu(gate(x)) * up(x)). In Qwen v1's names: c_proj(w1(x) * silu(w2(x)))."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        E, width, bias = config.hidden_size, config.ffn_size, config.mlp_bias
        self.gate_proj = nn.Linear(E, width, bias=bias)
        self.up_proj = nn.Linear(E, width, bias=bias)
        self.down_proj = nn.Linear(width, E, bias=bias)

    def forward(self, x_TE: Tensor) -> Tensor:
        """[T, E] in, [T, E] out."""
        out: Tensor = self.down_proj(silu(self.gate_proj(x_TE)) * self.up_proj(x_TE))
        return out


def silu(x_TF: Tensor) -> Tensor:
    """x * sigmoid(x); in inference each element's bits do not depend on where it stands.

    PyTorch's CPU kernel takes its scalar exp, which rounds otherwise, for what a thread's share
    leaves over behind the last whole group of vectors; so shares are filled up to whole groups.
    """
    # Asked first: torch.compile, which trains, knows whether there are gradients, and no more.
    trains = torch.is_grad_enabled() or not torch.is_inference_mode_enabled()
    if trains or x_TF.device.type != "cpu":
        return F.silu(x_TF)
    count = x_TF.numel()
    group = _GROUP * min(torch.get_num_threads(), -(-count // _SHARE))
    if count % group == 0:
        return F.silu(x_TF)
    filled = F.pad(x_TF.flatten(), (0, -count % group))
    return F.silu(filled)[:count].view_as(x_TF)


class Block(nn.Module):
    """Pre-norm residual block."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.window = layer, config.window(layer)
        self.attention_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.attention = Attention(config)
        self.ffn_norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.ffn = SwiGLU(config)

    def forward(self, x_TE: Tensor, batch: Batch) -> Tensor:
        """[T, E] in, [T, E] out."""
        x_TE = x_TE + self.attention(self.attention_norm(x_TE), batch, self.layer, self.window)
        out: Tensor = x_TE + self.ffn(self.ffn_norm(x_TE))
        return out


class Transformer(nn.Module):
    """A decoder-only language model over packed token ids.

    `kernels`: whose matrix products its layers use; fused.py may change it.
    """

    kernels = "torch"

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        # Empty, as all weights are until they are loaded or init_weights is called: nn.Embedding's
        # own draw would, on the meta device, import half of torch.compile.
        table = torch.empty(config.vocab_size, config.hidden_size)
        self.embedding = nn.Embedding(config.vocab_size, config.hidden_size, _weight=table)
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.tied:
            self.head.weight = self.embedding.weight

    def init_weights(self, generator: torch.Generator | None = None) -> None:
        """Normal(0, init_std); projections into the residual stream by sqrt(2 L) less; biases 0,
        norms 1. Sets every parameter, so a model made on the meta device can use it."""
        std = self.config.init_std
        residual_std = std / math.sqrt(2 * self.config.num_layers)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif parameter.dim() == 1:
                nn.init.ones_(parameter)
            else:
                into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                scale = residual_std if into_residual else std
                nn.init.normal_(parameter, 0.0, scale, generator=generator)

    def hidden(self, batch: Batch) -> Tensor:
        """[T, E] after the final norm: what the head reads."""
        x_TE = self.embedding(batch.ids_T)
        for block in self.blocks:
            x_TE = block(x_TE, batch)
        out: Tensor = self.norm(x_TE)
        return out

    def logits(self, hidden_RE: Tensor) -> Tensor:
        """[R, V] for the R rows asked for; only they meet the vocabulary."""
        out: Tensor = self.head(hidden_RE)
        return out

    def forward(self, sequences: list[Tensor]) -> list[Tensor]:
        """Logits [length, V] of each whole sequence of ids, uncached and unpadded."""
        spans = tuple(Span(len(ids)) for ids in sequences)
        batch = pack(self.config, torch.cat(sequences), spans)
        logits_TV = self.logits(self.hidden(batch))
        return list(logits_TV.split_with_sizes([len(ids) for ids in sequences]))
