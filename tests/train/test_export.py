"""A trained model is a checkpoint folder like any other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.errors import UserError
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model
from qwen_eval.train.batch import batch_of
from qwen_eval.train.export import Exporter
from qwen_eval.train.language_model import LanguageModel, flops_per_token
from qwen_eval.train.loop import Trainer
from qwen_eval.train.parallel import World, joined
from qwen_eval.train.recipe import DTYPES
from qwen_eval.types import LoglikelihoodRequest, Prompt
from tests.train.test_checkpoint import small_disk
from tests.train.toy_training import family, recipe_of, trainer_of, whole_weights, write_packed


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


def trained(folder: Path, world: World, model: dict[str, Any], dtype: str) -> Trainer:
    corpus = write_packed(folder / "corpus")
    recipe = recipe_of(folder, model, dtype=dtype)
    trainer, _ = trainer_of(recipe, corpus, folder / "out", world)
    trainer.run()
    return trainer


def exporter(trainer: Trainer, folder: Path, dtype: str) -> Exporter:
    assert isinstance(trainer.model, LanguageModel)
    tokenizer = folder / "corpus" / "tokenizer"
    return Exporter(trainer.model.transformer, trainer.world, DTYPES[dtype], tokenizer)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("name", ["qwen", "qwen2", "qwen3", "llama"])
def test_what_is_written_is_what_was_trained(
    tmp_path: Path, world: World, name: str, tied: bool, dtype: str
) -> None:
    model = {"family": name, "tied": tied} | ({} if name == "qwen" else {"num_kv_heads": 2})
    trainer = trained(tmp_path, world, model, dtype)
    folder = tmp_path / "model"
    exporter(trainer, tmp_path, dtype)(folder)
    assert json.loads((folder / "config.json").read_text())["torch_dtype"] == dtype
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = file.keys()
        assert ("lm_head.weight" in names) == (not tied)
    kind = DTYPES[dtype]
    read = load_model(folder, dtype=kind)
    weights = {n.removeprefix("transformer."): w for n, w in whole_weights(trainer).items()}
    wanted = Transformer(read.config)
    wanted.load_state_dict(weights)
    wanted = wanted.to(kind)
    ids = [torch.arange(3, 30)]
    with torch.no_grad():
        assert torch.equal(read(ids)[0], wanted(ids)[0])
    if name == "qwen":  # the engine reads it too, tokenizer and all
        backend = open_backend("native", str(folder), BackendOptions(dtype=dtype))
        backend.submit(LoglikelihoodRequest(Prompt("The ca"), ("t", "r")))
        (told,) = backend.step()
        backend.close()
        text = torch.tensor([*b"The ca"])
        alphabet = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
        ids = [torch.tensor([alphabet[chr(c) if c != 32 else "Ġ"] for c in text.tolist()])]
        with torch.no_grad():
            shares = wanted(ids)[0][-1].float().log_softmax(0)
        expected = [float(shares[alphabet[c]]) for c in "tr"]
        near = 2e-2 if dtype == "bfloat16" else 1e-4
        assert told[1].logprobs == pytest.approx(expected, abs=near)


def test_a_full_disk_leaves_the_model_before(tmp_path: Path, world: World) -> None:
    trainer = trained(tmp_path, world, {}, "float32")
    folder = tmp_path / "model"
    export = exporter(trainer, tmp_path, "float32")
    export(folder)
    before = (folder / "model.safetensors").read_bytes()
    for limit in (0, 20_000):
        with small_disk(limit), pytest.raises(UserError, match="model could not be written"):
            export(folder)
        assert (folder / "model.safetensors").read_bytes() == before
    export(folder)
    assert sorted(path.name for path in tmp_path.glob(".model*")) == []


@pytest.mark.parametrize("name", ["qwen", "qwen3"])
def test_operations_are_those_that_pytorch_counts(name: str) -> None:
    """A sequence of one block of queries, whose whole square of scores is computed, not half."""
    from torch.utils.flop_counter import FlopCounterMode

    config = family(name, vocab_size=300)
    model, length = Transformer(config), 64
    model.init_weights()
    batch = batch_of(config, torch.zeros(1, length, dtype=torch.int64))
    with FlopCounterMode(display=False) as counted:
        torch.autograd.backward(model.logits(model.hidden(batch)).sum())
    half = 6 * config.num_layers * config.num_heads * config.head_dim * length
    assert counted.get_total_flops() == length * (flops_per_token(config, length) + half)
    assert flops_per_token(config, 2 * length) - flops_per_token(config, length) == half
