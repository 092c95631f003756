"""Attention over pages by a GPU's variable-length kernels: one call per layer and pass.

Each stretch of new tokens is a sequence to the kernel, its keys named by a table of pages. With one
split over the keys, which torch's own kernel can be held to and flash-attn's cannot, a row is
reduced in an order that depends on its own sequence alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

import torch
from torch import Tensor

from .paged_attention import Stretch, places
from .pages import PagePool


@dataclass(frozen=True, eq=False)
class Tables:
    """Which queries and keys belong together.

    `begins`: [N + 1] where each sequence's queries begin. `keys`: [N] keys of each. `pages`: [N, M]
    those that hold them. `most`: the most queries and the most keys of one.
    """

    begins: Tensor
    keys: Tensor
    pages: Tensor
    most: tuple[int, int]


class Kernel(Protocol):
    """Causal attention of packed queries [T, H, D] over pages [P, S, K, D]; `window` is (left, 0),
    left -1 for all."""

    def __call__(
        self,
        q_THD: Tensor,
        k_PSKD: Tensor,
        v_PSKD: Tensor,
        tables: Tables,
        window: tuple[int, int],
    ) -> Tensor:
        """[T, H, D]."""
        ...


@dataclass(eq=False)
class VarlenAttention:
    """One pass's attention, as PagedAttention is. `padding`: rows that belong to nobody."""

    pool: PagePool
    stretches: Sequence[Stretch]
    padding: int
    device: torch.device
    kernel: Kernel

    def __post_init__(self) -> None:
        """Make the kernel's tables."""
        lengths = [stretch.length for stretch in self.stretches]
        keys = [stretch.start + stretch.length for stretch in self.stretches]
        pages = max(len(stretch.pages) for stretch in self.stretches)
        table = [[*s.pages, *[s.pages[-1]] * (pages - len(s.pages))] for s in self.stretches]
        self.rows = sum(lengths)
        begins = self._small([0, *accumulate(lengths)])
        most = max(lengths), max(keys)
        self._tables = Tables(begins, self._small(keys), self._small(table), most)
        self.places_T = torch.tensor(places(self.stretches, self.pool.size), device=self.device)

    def _small(self, figures: list[int] | list[list[int]]) -> Tensor:
        return torch.tensor(figures, dtype=torch.int32, device=self.device)

    def __call__(self, q_THD: Tensor, layer: int, window: int | None) -> Tensor:
        """[T, H, D]; the rows' own keys and values are in the pool already."""
        out = q_THD.new_zeros(q_THD.shape)
        out[: self.rows] = self.kernel(
            q_THD[: self.rows].contiguous(),
            self.pool.keys[layer],
            self.pool.values[layer],
            self._tables,
            (-1 if window is None else window - 1, 0),
        )
        return out


def torch_kernel(
    q_THD: Tensor,
    k_PSKD: Tensor,
    v_PSKD: Tensor,
    tables: Tables,
    window: tuple[int, int],
) -> Tensor:
    """PyTorch's own, held to one split."""
    from torch.nn.attention.varlen import varlen_attn

    out = varlen_attn(
        q_THD,
        k_PSKD,
        v_PSKD,
        tables.begins,
        None,
        *tables.most,
        window_size=window,
        enable_gqa=True,
        seqused_k=tables.keys,
        block_table=tables.pages,
        num_splits=1,
    )
    assert isinstance(out, Tensor)
    return out


def flash_attn_kernel(
    q_THD: Tensor,
    k_PSKD: Tensor,
    v_PSKD: Tensor,
    tables: Tables,
    window: tuple[int, int],
) -> Tensor:
    """The flash-attn package's, which splits long keys where few sequences decode."""
    flash_attn: Any = importlib.import_module("flash_attn")
    ends = torch.cat((tables.begins[:1], tables.keys.cumsum(0, dtype=torch.int32)))
    out: Tensor = flash_attn.flash_attn_varlen_func(
        q_THD,
        k_PSKD,
        v_PSKD,
        tables.begins,
        ends,
        *tables.most,
        causal=True,
        window_size=window,
        block_table=tables.pages,
    )
    return out


def kernel_for(
    device: torch.device, dtype: torch.dtype, *, batch_invariant: bool
) -> tuple[str, Kernel | None]:
    """The name and the kernel for a device; none where tiles are the way (PagedAttention)."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return "tiles", None
    if not batch_invariant and importlib.util.find_spec("flash_attn"):
        return "flash-attn", flash_attn_kernel
    return "torch varlen", torch_kernel
