"""A plan's figures against models that are really built, counted and trained."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.batch import QUERY_BLOCK
from qwen_eval.train.cross_entropy import ROWS
from qwen_eval.train.feed import Part
from qwen_eval.train.language_model import LanguageModel, flops_per_token
from qwen_eval.train.optim import Optimiser, adamw
from qwen_eval.train.parallel import World, share_out
from qwen_eval.train.plan import (
    Work,
    activations,
    block_shapes,
    memory,
    plan,
    root_shapes,
)
from qwen_eval.train.pretrain import Pretraining, read_pretraining

ROOT = Path(__file__).parents[2]
RECIPES = ROOT / "train" / "recipes" / "pretrain"
QWEN = ModelConfig("qwen", 515, 64, 3, 4, 4, 16, 160, trained_length=256, qkv_bias=True)
GROUPED = replace(QWEN, family="qwen3", num_kv_heads=2, qkv_bias=False, qk_norm=True)
LLAMA = replace(QWEN, family="llama", tied=True, qkv_bias=False, out_bias=True, mlp_bias=True)
# Of the CPU: attention in blocks, logits of all these tokens at a time.
WORK = Work(QWEN, 1, 256, 2, 1, 2, ROWS["cpu"], QUERY_BLOCK)


def part_of(config: ModelConfig, sequences: int, length: int, separate: bool = False) -> Part:
    ids = torch.randint(config.vocab_size, (sequences, length + 1))
    documents = torch.arange(length).expand(sequences, -1) // 100 if separate else None
    return Part(ids[:, :-1], ids[:, 1:].contiguous(), documents)


def model_of(config: ModelConfig, dtype: torch.dtype) -> LanguageModel:
    model = LanguageModel(config, compiled=False)
    model.transformer.init_weights(torch.Generator().manual_seed(0))
    return model.to(dtype)


@pytest.mark.parametrize("name", ["tiny", "qwen-1.8b", "qwen-7b", "qwen-14b"])
def test_parameters_are_those_of_the_model(name: str) -> None:
    recipe = read_pretraining(RECIPES / f"{name}.yaml")
    planned = plan(recipe, 1, 4096)
    with torch.device("meta"):
        model = Transformer(recipe.model.config(recipe.longest))
    named = dict(model.named_parameters())
    inside = sum(p.numel() for n, p in named.items() if not n.startswith(("embedding", "head")))
    assert planned.parameters == sum(p.numel() for p in named.values())
    assert planned.outside_embeddings == inside


@pytest.mark.parametrize("config", [QWEN, GROUPED, LLAMA])
def test_shapes_are_those_of_the_model(config: ModelConfig) -> None:
    model = Transformer(config)
    block = [tuple(p.shape) for p in model.blocks[0].parameters()]
    assert sorted(block) == sorted(block_shapes(config))
    every = [tuple(p.shape) for p in model.parameters()]
    assert sorted(every) == sorted(root_shapes(config) + config.num_layers * block)


@pytest.mark.parametrize(
    ("name", "total", "inside", "rate", "tokens"),
    [
        ("qwen-1.8b", 1.8368e9, 1.2145e9, 3e-4, 2.2e12),
        ("qwen-7b", 7.7213e9, 6.4767e9, 3e-4, 2.4e12),
        ("qwen-14b", 14.1673e9, 12.6102e9, 3e-4, 3.0e12),
    ],
)
def test_the_papers_sizes_and_budgets(
    name: str, total: float, inside: float, rate: float, tokens: float
) -> None:
    recipe = read_pretraining(RECIPES / f"{name}.yaml")
    planned = plan(recipe, 64, 4096)
    assert planned.parameters == pytest.approx(total, abs=5e4)
    assert planned.outside_embeddings == pytest.approx(inside, abs=5e4)
    assert recipe.model.config(2048).head_dim == 128
    assert recipe.batch_tokens == 2048 * 2048
    assert planned.tokens == pytest.approx(tokens, rel=2e-6)
    assert planned.steps * recipe.batch_tokens == planned.tokens
    said = recipe.optimiser
    assert (said.learning_rate, said.beta1, said.beta2, said.eps) == (rate, 0.9, 0.95, 1e-8)
    assert planned.peak_bytes < 0.9 * 80 * 2**30


@pytest.mark.parametrize("config", [QWEN, GROUPED])
@pytest.mark.parametrize("length", [128, 256])
def test_operations_are_those_that_are_counted(config: ModelConfig, length: int) -> None:
    model = model_of(config, torch.float32)
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(model(part_of(config, 2, length), 1.0))
    # Blocks of queries meet all keys up to the block's end: half a block more each on average than
    # the S / 2 of the formula, 12 L Q times that for the scores and sums of both passes.
    extra = 6 * config.num_layers * config.num_heads * config.head_dim * QUERY_BLOCK
    expected = 2 * length * (flops_per_token(config, length) + extra)
    assert counter.get_total_flops() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("config", [QWEN, GROUPED])
def test_activations_are_the_bytes_that_autograd_keeps(
    config: ModelConfig, separate: bool, dtype: torch.dtype
) -> None:
    model, kept = model_of(config, dtype), {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if tensor.dim() and storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(part_of(config, 2, 256, separate), 1.0)
    work = replace(WORK, config=config, width=dtype.itemsize, separate=separate)
    own = dtype.itemsize * config.hidden_size * (work.tokens + config.vocab_size)
    assert sum(kept.values()) == activations(work) + own
    assert torch.isfinite(loss)


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most that all storages which any operation read or wrote took at one time."""

    def __init__(self, held: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self.storages: dict[int, StorageWeakRef] = {}
        self._see(held)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        self._see(tree_leaves((args, kwargs, found)))
        live = {
            at: storage
            for at, seen in self.storages.items()
            if (storage := torch.UntypedStorage._new_with_weak_ptr(seen.cdata)) is not None
        }
        self.storages = {at: self.storages[at] for at in live}
        self.peak = max(self.peak, sum(storage.nbytes() for storage in live.values()))
        return found

    def _see(self, leaves: list[Any]) -> None:
        for tensor in leaves:
            if isinstance(tensor, Tensor):
                storage = _local(tensor).untyped_storage()
                seen = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self.storages.setdefault(seen.cdata, seen)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sequences", "world", "parts", "recompute", "dtype", "vocabulary"),
    [
        (8, 4, 1, False, torch.bfloat16, 2051),
        (8, 4, 3, True, torch.bfloat16, 2051),
        (1, 4, 3, False, torch.float32, 2051),
        (1, 1, 1, True, torch.bfloat16, 2051),
        (8, 1, 3, True, torch.float32, 2051),
        (8, 4, 1, True, torch.bfloat16, 67),
        (8, 4, 1, False, torch.bfloat16, 67),
        (1, 4, 1, True, torch.float32, 20003),
    ],
)
def test_the_peak_is_what_a_step_takes(
    sequences: int, world: int, parts: int, recompute: bool, dtype: torch.dtype, vocabulary: int
) -> None:
    config = replace(QWEN, vocab_size=vocabulary, num_layers=4)
    dist.init_process_group("fake", rank=0, world_size=world, store=FakeStore())
    try:
        device = World(0, world, torch.device("cpu"))
        model = model_of(config, torch.float32)
        blocks = model.transformer.blocks
        share_out(model, blocks, device, dtype=dtype, compiled=False, recompute=recompute)
        optimiser = adamw(model, Optimiser.model_validate({}))
        for _ in range(2):  # AdamW's moments are there from the second step on
            gc.collect()  # what earlier tests left in cycles is not the step's
            live = LiveBytes(tree_leaves([*optimiser.state.values()]))
            with live:
                for at in range(parts):
                    cast(FSDPModule, model).set_requires_gradient_sync(at == parts - 1)
                    torch.autograd.backward(model(part_of(config, sequences, 256), 1.0))
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
    finally:
        dist.destroy_process_group()
    work = replace(WORK, config=config, world=world, sequences=sequences, parts=parts)
    work = replace(work, width=dtype.itemsize, recompute=recompute)
    planned = {moment: sum(items.values()) for moment, items in memory(work).items()}
    assert live.peak == pytest.approx(max(planned.values()), rel=0.1)


@pytest.mark.slow
def test_two_processes_hold_the_planned_shares(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    words += ["--master-port=0", "--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    config = replace(QWEN, vocab_size=4096)
    script = Path(__file__).parent / "shares.py"
    said = {k: v for k, v in asdict(config).items() if k != "windows"}
    done = subprocess.run(
        [*words, str(script), str(tmp_path), json.dumps(said)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    planned = memory(replace(WORK, config=config, world=2))["root"]
    for rank in range(2):
        held = json.loads((tmp_path / f"{rank}.json").read_text())
        assert held == {name: planned[name] for name in held}
    files = (tmp_path / "states").rglob("*.distcp")
    size = sum(path.stat().st_size for path in files)
    # A weight and its two moments are an entry each in both processes' files, with a header.
    entries = 2 * 3 * (config.num_layers * len(block_shapes(config)) + 3)
    assert 0 < size - 3 * 4 * config.parameters < 4096 * entries


def recipe_of(**changes: object) -> Pretraining:
    sizes = {"vocab_size": 515, "hidden_size": 64, "num_layers": 3, "num_heads": 4, "ffn_size": 160}
    given = {
        "model": sizes,
        "stages": [{"length": 128, "tokens": 10_000}, {"length": 256, "tokens": 20_000}],
        "batch_tokens": 2048,
        "part_tokens": 512,
    }
    return Pretraining.model_validate(given | changes)


def test_steps_operations_and_time_of_all_stages() -> None:
    recipe = recipe_of()
    planned = plan(recipe, 2, 4096)
    assert planned.steps == 10_000 // 2048 + 20_000 // 2048
    config = recipe.model.config(256)
    tokens = (4 * 2048, 9 * 2048)
    assert planned.tokens == sum(tokens)
    assert planned.flops == sum(
        n * flops_per_token(config, length) for n, length in zip(tokens, (128, 256), strict=True)
    )
    assert planned.seconds(2, 1e9) == planned.flops / 2e9


def test_more_processes_need_fewer_parts_and_less_memory() -> None:
    one, all_in_one_part = plan(recipe_of(), 2, 4096), plan(recipe_of(), 4, 4096)
    assert one.memory["loss"]["gradients of all parts"] == 4 * one.parameters
    assert all_in_one_part.memory["loss"]["gradients of all parts"] == 0
    assert all_in_one_part.peak_bytes < one.peak_bytes


def test_processes_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(UserError, match=r"--world-size 3: batch_tokens is 16 sequences"):
        plan(recipe_of(), 3, 4096)
