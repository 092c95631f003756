"""Processes that train one model together: FSDP2 over all of them, one process included.

Started by torchrun, or alone. Every process holds a share of the fp32 weights, gradients and
optimiser states; a block's weights are gathered when it is their turn, in the dtype it computes in.
Knows nothing of data or losses.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint


@dataclass(frozen=True)
class World:
    """This process among all."""

    rank: int
    size: int
    device: torch.device

    def sum(self, *values: float) -> list[float]:
        """Each value added up over all processes; in fp64."""
        told = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(told)
        return [float(value) for value in told]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started; a process of its own is a world of one."""
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else None
    if device is not None:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device or torch.device("cpu"))
    finally:
        dist.destroy_process_group()


def share_out(
    model: nn.Module,
    blocks: nn.ModuleList,
    world: World,
    *,
    dtype: torch.dtype,
    compiled: bool,
    recompute: bool,
) -> None:
    """Cut the weights of each block, and of what is outside them, over all processes.

    dtype: what is computed in; sums of gradients are fp32. recompute: what a block computed is
    thrown away and computed again on the way back. Gradients of all processes are added, not
    averaged: losses are already divided by the tokens of the whole batch.
    """
    # Inputs keep their dtype: cast with the rest, RoPE's angles would be rounded to bf16.
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(world.device.type, (world.size,)),
        "mp_policy": policy,
    }
    for block in blocks:
        # Inside FSDP's hooks, which compile to nothing.
        if compiled:
            block.forward = torch.compile(block.forward, dynamic=False)
        if recompute:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)
        fully_shard(block, **settings)
    fully_shard(model, **settings)
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            # A plain sum: gloo knows none that multiplies on the way.
            module.set_force_sum_reduction_for_comms(True)


def clip(model: nn.Module, largest: float) -> float:
    """Shrink all gradients so that their norm is at most `largest`; returns the norm before."""
    norm: Tensor = torch.nn.utils.clip_grad_norm_(model.parameters(), largest)
    whole = norm.full_tensor() if isinstance(norm, dist.tensor.DTensor) else norm
    return float(whole)
