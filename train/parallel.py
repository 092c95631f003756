"""Processes that train one model together: FSDP2 over all of them, one process included.

Started by torchrun, or alone. Every process holds a share of the fp32 weights, gradients and
optimiser states; a block's weights are gathered when it is their turn, in the dtype it computes in.
Knows nothing of data or losses.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.utils.checkpoint import checkpoint

from qwen_eval.errors import QwenEvalError, UserError

# How long processes wait for one that judges a model while they have nothing to do.
PATIENCE = timedelta(days=30)
# How the names begin of what torchrun tells a process.
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
# Seconds for the first process to say why it ends: torchrun ends all as soon as one has left.
LINGER = 2.0

Told = TypeVar("Told")


@dataclass(frozen=True)
class World:
    """This process among all.

    group: by which they talk to one another beside the model's own traffic; they wait long in it.
    """

    rank: int
    size: int
    device: torch.device
    group: dist.ProcessGroup | None = field(default=None, repr=False)

    def sum(self, *values: float) -> list[float]:
        """Each value added up over all processes; in fp64."""
        told = torch.tensor(values, dtype=torch.float64)
        if self.size > 1:
            dist.all_reduce(told, group=self.group)
        return [float(value) for value in told]

    def gather(self, value: Told) -> list[Told]:
        """The value of every process, by rank."""
        if self.size == 1:
            return [value]
        told: list[Any] = [None] * self.size
        dist.all_gather_object(told, value, group=self.group)
        return told

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """A piece of work that fails in all processes if it fails in one: its UserError is theirs.

        No process goes on before all are through.
        """
        problem: UserError | None = None
        try:
            yield
        except UserError as error:
            problem = error
        if any(self.sum(float(problem is not None))):
            said = [text for text in self.gather(problem and str(problem)) if text is not None]
            raise problem or UserError(said[0])


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started; a process of its own is a world of one.

    What ends all of them is raised in the first one only; the others leave without a word.
    """
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else None
    if device is not None:
        torch.cuda.set_device(device)
    backend = "nccl" if cuda else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=HashStore(), rank=0, world_size=1)
    rank, size = dist.get_rank(), dist.get_world_size()
    group = dist.new_group(backend="gloo", timeout=PATIENCE) if size > 1 else None
    try:
        yield World(rank, size, device or torch.device("cpu"), group)
    except (QwenEvalError, KeyboardInterrupt):
        if rank == 0:
            raise
        time.sleep(LINGER)
        raise SystemExit(2) from None
    finally:
        dist.destroy_process_group()


def environment_alone() -> dict[str, str]:
    """The environment for a process that is started from here and not one of these."""
    return {k: v for k, v in os.environ.items() if not k.startswith(TOLD)}


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
