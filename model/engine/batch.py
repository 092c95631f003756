"""One pass of the engine as the model sees it: packed ids over the engine's pages."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .paged_attention import PagedAttention
from .varlen_attention import VarlenAttention


@dataclass
class PagedBatch:
    """An attention.Batch over the engine's pages."""

    ids_T: Tensor
    cos: Tensor
    sin: Tensor
    logn_T: Tensor | None
    attention: PagedAttention | VarlenAttention

    def attend(
        self, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, layer: int, window: int | None
    ) -> Tensor:
        """Store the new keys and values, then attend over all."""
        self.attention.write(k_TKD, v_TKD, layer, window)
        return self.attention(q_THD, layer, window)
