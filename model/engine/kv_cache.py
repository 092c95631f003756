"""The keys and values of one sequence, in one block of memory per layer.

A cache may stand on a parent's: the branches of one prompt (the options of a question), and all
questions behind one shared prefix, read its keys and values and hold only their own. Knows nothing
of scheduling.

Shapes: L layers, N tokens, K key-value heads, D head dimension.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..config import ModelConfig


class SequenceCache:
    """`length` tokens of a sequence, behind those of `parent`; implements attention.KeyValues.

    The memory given is its capacity; empty_cache() makes a new one.
    """

    def __init__(
        self,
        keys_LNKD: Tensor,
        values_LNKD: Tensor,
        length: int = 0,
        parent: SequenceCache | None = None,
    ) -> None:
        self._keys_LNKD, self._values_LNKD = keys_LNKD, values_LNKD
        self.length, self.parent = length, parent

    @property
    def capacity(self) -> int:
        """The most tokens it can hold, the parent's not counted."""
        return self._keys_LNKD.shape[1]

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
        return self._joined(layer, end)

    def advance(self, tokens: int) -> None:
        """Count the tokens that every layer has now stored."""
        self.length += tokens

    def adopt(self, other: SequenceCache) -> None:
        """Begin with a copy of all that `other` and its parents store: a sequence that decodes
        reads its keys at every step, and reads one block of memory faster than several."""
        assert self.length == 0
        assert self.parent is None
        for layer in range(len(self._keys_LNKD)):
            keys, values = other.read(layer)
            self._keys_LNKD[layer, : len(keys)] = keys
            self._values_LNKD[layer, : len(values)] = values
        self.length = other.total

    def part(self, start: int, end: int, parent: SequenceCache | None) -> SequenceCache:
        """A full cache of its own with a copy of this one's tokens [start, end), on `parent`."""
        assert end <= self.length
        keys_LNKD, values_LNKD = self._keys_LNKD[:, start:end], self._values_LNKD[:, start:end]
        return SequenceCache(keys_LNKD.clone(), values_LNKD.clone(), end - start, parent)

    def split(self, at: int) -> SequenceCache:
        """Cut in two: the first `at` tokens become a parent of its own, which is returned; this
        one keeps the rest, without room for more. Whoever stands on it sees no change."""
        above = self.part(0, at, self.parent)
        below = self.part(at, self.length, above)
        self._keys_LNKD, self._values_LNKD = below._keys_LNKD, below._values_LNKD
        self.length, self.parent = below.length, above
        return above

    def read(self, layer: int) -> tuple[Tensor, Tensor]:
        """This layer's stored keys and values, the parents' first, each [N, K, D]."""
        return self._joined(layer, self.length)

    def _joined(self, layer: int, end: int) -> tuple[Tensor, Tensor]:
        # The parents' tokens and then the first `end` of its own.
        keys, values = self._keys_LNKD[layer, :end], self._values_LNKD[layer, :end]
        if self.parent is None:
            return keys, values
        line_k, line_v = [keys], [values]
        above: SequenceCache | None = self.parent
        while above is not None:
            line_k.append(above._keys_LNKD[layer, : above.length])
            line_v.append(above._values_LNKD[layer, : above.length])
            above = above.parent
        return torch.cat(line_k[::-1]), torch.cat(line_v[::-1])


def empty_cache(
    config: ModelConfig,
    capacity: int,
    dtype: torch.dtype,
    device: torch.device,
    parent: SequenceCache | None = None,
) -> SequenceCache:
    """Room for `capacity` tokens after those of `parent`."""
    shape = (config.num_layers, capacity, config.num_kv_heads, config.head_dim)
    keys_LNKD = torch.empty(shape, dtype=dtype, device=device)
    return SequenceCache(keys_LNKD, torch.empty_like(keys_LNKD), parent=parent)


def bytes_per_token(config: ModelConfig, dtype: torch.dtype) -> int:
    """Memory one cached token takes over all layers, in bytes."""
    return 2 * config.num_layers * config.num_kv_heads * config.head_dim * dtype.itemsize
