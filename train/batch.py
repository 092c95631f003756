"""Sequences of one length as a model's batch, with causal attention made for training.

On a CPU the product of queries and keys is cut into blocks of queries that meet only the keys up to
their own end: half of the square is never computed, and a block's scores stay near the processor.
Elsewhere PyTorch's own fused attention is taken. Knows nothing of losses or optimisers.

Shapes: B sequences of S tokens, T = B S tokens in all, H query heads, K key-value heads, D head
size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.rope import rotation_of

# Queries that meet keys together on a CPU: the fastest of 64 to 512 at 512 and 1,024 tokens.
QUERY_BLOCK = 128


@dataclass
class EqualSequences:
    """A Batch (see `qwen_eval.model.attention`) of B whole sequences of one length.

    documents_BS: a number for every token; a token then attends only to tokens of the same number.
    """

    ids_T: Tensor
    length: int
    cos: Tensor = field(repr=False)
    sin: Tensor = field(repr=False)
    documents_BS: Tensor | None = field(default=None, repr=False)
    logn_T: Tensor | None = None

    def attend(
        self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, window: int | None
    ) -> Tensor:
        """See Batch.attend; windows are for inference only and not looked at."""
        q_BHSD, k_BHSD, v_BHSD = (
            x.view(-1, self.length, *x.shape[1:]).transpose(1, 2) for x in (q_THD, k_TKD, v_TKD)
        )
        groups = q_BHSD.shape[1] // k_BHSD.shape[1]
        if groups > 1:
            k_BHSD, v_BHSD = (x.repeat_interleave(groups, 1) for x in (k_BHSD, v_BHSD))
        attention = _in_blocks if q_THD.device.type == "cpu" else _fused
        out_BHSD = attention(q_BHSD, k_BHSD, v_BHSD, self.documents_BS)
        return out_BHSD.transpose(1, 2).flatten(0, 1)


def batch_of(
    config: ModelConfig, ids_BS: Tensor, documents_BS: Tensor | None = None
) -> EqualSequences:
    """A batch of ids; every sequence begins at position 0."""
    sequences, length = ids_BS.shape
    cos, sin = _rotations(config, sequences, length, ids_BS.device)
    return EqualSequences(ids_BS.flatten(), length, cos, sin, documents_BS)


@lru_cache(maxsize=4)
def _rotations(
    config: ModelConfig, sequences: int, length: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    cos, sin = rotation_of(config, torch.arange(length))
    return cos.to(device).repeat(sequences, 1), sin.to(device).repeat(sequences, 1)


def _in_blocks(q_BHSD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, documents: Tensor | None) -> Tensor:
    batch, heads, length, size = q_BHSD.shape
    q, k, v = (x.flatten(0, 1) * f for x, f in ((q_BHSD, size**-0.5), (k_BHSD, 1), (v_BHSD, 1)))
    at = torch.arange(length)
    parts = []
    for start in range(0, length, QUERY_BLOCK):
        end = min(start + QUERY_BLOCK, length)
        scores = q[:, start:end] @ k[:, :end].transpose(1, 2)
        hidden = at[:end] > at[start:end, None]
        if documents is None:
            scores = scores.masked_fill(hidden, float("-inf"))
        else:
            other = documents[:, start:end, None] != documents[:, None, :end]
            shown = scores.view(batch, heads, *scores.shape[1:])
            scores = shown.masked_fill((other | hidden)[:, None], float("-inf")).flatten(0, 1)
        parts.append(scores.softmax(-1) @ v[:, :end])
    return torch.cat(parts, 1).view(batch, heads, length, size)


def _fused(q_BHSD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, documents: Tensor | None) -> Tensor:
    if documents is None:
        return F.scaled_dot_product_attention(q_BHSD, k_BHSD, v_BHSD, is_causal=True)
    length = q_BHSD.shape[2]
    at = torch.arange(length, device=q_BHSD.device)
    shown = (documents[:, :, None] == documents[:, None]) & (at <= at[:, None])
    return F.scaled_dot_product_attention(q_BHSD, k_BHSD, v_BHSD, attn_mask=shown[:, None])
