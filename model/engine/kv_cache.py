"""The keys and values of one sequence, in one block of memory per layer.

A cache may stand on a parent's: the branches of one prompt (the options of a question) share its
keys and values and hold only their own. Knows nothing of scheduling.

Shapes: L layers, N tokens, K key-value heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import ModelConfig


class SequenceCache:
    """Room for `capacity` tokens after those of `parent`; implements attention.KeyValues."""

    def __init__(
        self,
        config: ModelConfig,
        capacity: int,
        dtype: torch.dtype,
        device: torch.device,
        parent: SequenceCache | None = None,
    ) -> None:
        shape = (config.num_layers, capacity, config.num_kv_heads, config.head_dim)
        self.parent, self.capacity, self.length = parent, capacity, 0
        self._keys_LNKD = torch.empty(shape, dtype=dtype, device=device)
        self._values_LNKD = torch.empty(shape, dtype=dtype, device=device)

    @property
    def total(self) -> int:
        """Tokens stored, the parent's included."""
        return self.length + (self.parent.total if self.parent else 0)

    def extend(self, layer: int, k_TKD: Tensor, v_TKD: Tensor) -> tuple[Tensor, Tensor]:
        """Write one layer's new tokens behind `length`; return this layer's keys and values.

        The length grows in advance(), once every layer has been written.
        """
        end = self.length + k_TKD.shape[0]
        assert end <= self.capacity
        self._keys_LNKD[layer, self.length : end] = k_TKD
        self._values_LNKD[layer, self.length : end] = v_TKD
        keys, values = self._keys_LNKD[layer, :end], self._values_LNKD[layer, :end]
        if self.parent is not None:
            above_k, above_v = self.parent.read(layer)
            keys, values = torch.cat((above_k, keys)), torch.cat((above_v, values))
        return keys, values

    def advance(self, tokens: int) -> None:
        """Count the tokens that every layer has now stored."""
        self.length += tokens

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """This layer's stored keys and values, each [N, K, D]."""
        keys = self._keys_LNKD[layer, : self.length]
        values = self._values_LNKD[layer, : self.length]
        if self.parent is None:
            return keys, values
        above_k, above_v = self.parent.read(layer)
        return torch.cat((above_k, keys)), torch.cat((above_v, values))


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Memory one cached token takes over all layers, in bytes."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
