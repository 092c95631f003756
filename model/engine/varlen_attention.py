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


@dataclass(frozen=True, eq=False)
class VarlenAttention:
    """One pass's attention, as PagedAttention is.

    `rows`: those that belong to a sequence; they come first. For each pool, `places`: where their
    keys are stored, and `tables`. A sequence's keys are counted from the first page that its
    window reaches: only distances matter to the kernel.
    """

    pools: Sequence[PagePool]
    rows: int
    places: Sequence[Tensor]
    tables: Sequence[Tables]
    kernel: Kernel

    @classmethod
    def over(
        cls,
        pools: Sequence[PagePool],
        stretches: Sequence[Stretch],
        device: torch.device,
        kernel: Kernel,
    ) -> VarlenAttention:
        """Each stretch is a sequence to the kernel."""

        def small(figures: list[int] | list[list[int]]) -> Tensor:
            return torch.tensor(figures, dtype=torch.int32, device=device)

        size, lengths = pools[0].size, [stretch.length for stretch in stretches]
        begins = small([0, *accumulate(lengths)])
        tables, stored = [], []
        for i in range(len(pools)):
            runs = [stretch.runs[i] for stretch in stretches]
            keys = [
                stretch.start + stretch.length - run.first * size
                for stretch, run in zip(stretches, runs, strict=True)
            ]
            width = max(len(run.pages) for run in runs)
            pages = [[*run.pages, *run.pages[-1:] * (width - len(run.pages))] for run in runs]
            most = max(lengths), max(keys)
            tables.append(Tables(begins, small(keys), small(pages), most))
            stored.append(torch.tensor(places(stretches, i, size), device=device))
        return cls(pools, sum(lengths), stored, tables, kernel)

    def write(self, k_TKD: Tensor, v_TKD: Tensor, layer: int, window: int | None) -> None:
        """Store the rows' keys and values in the layer's pool."""
        i = self._pool(window)
        self.pools[i].write(layer, self.places[i], k_TKD[: self.rows], v_TKD[: self.rows])

    def __call__(self, q_THD: Tensor, layer: int, window: int | None) -> Tensor:
        """[T, H, D]; the rows' own keys and values are in the pool already."""
        i = self._pool(window)
        out = q_THD.new_zeros(q_THD.shape)
        out[: self.rows] = self.kernel(
            q_THD[: self.rows].contiguous(),
            self.pools[i].keys[layer],
            self.pools[i].values[layer],
            self.tables[i],
            (-1 if window is None else window - 1, 0),
        )
        return out

    def _pool(self, window: int | None) -> int:
        return [pool.window for pool in self.pools].index(window)


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
        max(tables.most[0], 2),  # lone queries have a kernel that sums otherwise
        tables.most[1],
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
    device: torch.device, dtype: torch.dtype, *, batch_invariant: bool, sinks: bool = False
) -> tuple[str, Kernel | None]:
    """The name and the kernel for a device; none where tiles are the way (PagedAttention), as
    where windows leave the first tokens in sight: these kernels know of no such mask."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16) or sinks:
        return "tiles", None
    if not batch_invariant and importlib.util.find_spec("flash_attn"):
        return "flash-attn", flash_attn_kernel
    return "torch varlen", torch_kernel
