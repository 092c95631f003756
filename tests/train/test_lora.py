"""Adapters add B A alpha / rank to frozen matrices, and are an ordinary model once written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.checkpoint.filesystem import FileSystemReader

from qwen_eval.errors import UserError
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model
from qwen_eval.train.export import Exporter
from qwen_eval.train.lora import Lora, add_adapters, merged
from qwen_eval.train.parallel import World, joined
from tests.train.toy_training import bits, whole_weights
from tests.train.toy_tuning import toy_base, tuner, tuning_recipe

peft = pytest.importorskip("peft")
LORA = Lora(rank=3, alpha=12, dropout=0, targets=("q_proj", "v_proj", "down_proj"))
IDS = [torch.tensor([1, 5, 9, 200, 7, 31])]


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


def with_adapters(seed: int = 3, **changes: Any) -> Transformer:
    """A base with adapters that matter: B is no longer 0."""
    model = toy_base(**changes)
    add_adapters(model, LORA, seed)
    generator = torch.Generator().manual_seed(8)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, 0, 0.1, generator=generator)
    return model


def adapters(model: Transformer) -> dict[str, Tensor]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def plain_logits(model: Transformer, given: dict[str, Tensor]) -> Tensor:
    """Those of the base whose matrices are W + B A alpha / rank, by hand."""
    base = toy_base(tied=model.config.tied)
    weights: dict[str, Tensor] = dict(base.named_parameters())
    for name, b in given.items():
        if name.endswith("lora_B.default.weight"):
            matrix = name.removesuffix("lora_B.default.weight") + "weight"
            a = given[name.replace("lora_B", "lora_A")]
            weights[matrix] = weights[matrix] + b @ a * (12 / 3)
    out: Tensor = torch.func.functional_call(base, weights, (IDS,))[0]
    return out


@pytest.mark.parametrize("tied", [False, True])
def test_logits_and_gradients_are_those_of_the_formula(tied: bool) -> None:
    model = with_adapters(tied=tied)
    given = adapters(model)
    assert len(given) == 2 * 2 * 3
    by_hand = {name: p.detach().clone().requires_grad_() for name, p in given.items()}
    logits, wanted = model(IDS)[0], plain_logits(model, by_hand)
    assert torch.allclose(logits, wanted, atol=1e-5)
    assert not torch.allclose(logits, toy_base(tied=tied)(IDS)[0], atol=1e-2)
    found = torch.autograd.grad(logits.log_softmax(-1)[:, 3].sum(), list(given.values()))
    hand = torch.autograd.grad(wanted.log_softmax(-1)[:, 3].sum(), list(by_hand.values()))
    for one, other in zip(found, hand, strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_merging_is_what_peft_does() -> None:
    model = with_adapters()
    ours = merged(model.state_dict(), LORA.scale)
    assert ours.keys() == toy_base().state_dict().keys()
    for name, layer in model.named_modules():
        if isinstance(layer, peft.tuners.lora.Linear):
            layer.merge()
            assert torch.allclose(layer.base_layer.weight, ours[f"{name}.weight"], atol=1e-6)
    base = toy_base().state_dict()
    assert merged(base, LORA.scale).keys() == base.keys()


def test_adapters_begin_as_nothing_the_same_for_one_seed() -> None:
    models = [toy_base(), toy_base(), toy_base()]
    state = torch.get_rng_state()
    for model, seed in zip(models, (3, 3, 4), strict=True):
        add_adapters(model, LORA, seed)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(models[0](IDS)[0], toy_base()(IDS)[0])
    drawn = [bits(adapters(model)) for model in models]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_run_learns_in_adapters_alone(tmp_path: Path, world: World) -> None:
    said = {"rank": 4, "alpha": 8, "dropout": 0.0}
    recipe = tuning_recipe(tmp_path, lora=said, steps=20, save_every=10)
    trainer, seen = tuner(recipe, toy_base(), tmp_path, world)
    trainer.run()
    assert seen.losses[-1] < 0.8 * seen.losses[0]
    now = whole_weights(trainer)
    frozen = {
        name.removeprefix("transformer.").replace("base_layer.", ""): weight
        for name, weight in now.items()
        if "lora_" not in name
    }
    assert bits(frozen) == bits(toy_base().state_dict())
    state = tmp_path / "out" / "states" / "step-00000020"
    kept = FileSystemReader(state).read_metadata().state_dict_metadata
    weights = [name.removeprefix("model.") for name in kept if name.startswith("model.")]
    assert sorted(weights) == sorted(name for name in now if "lora_" in name)
    assert all("lora_" in name for name in kept if ".exp_avg" in name)
    model: Any = trainer.model
    export = Exporter(model.transformer, world, torch.float32, None, partial(merged, scale=8 / 4))
    export(tmp_path / "model")
    written = load_model(tmp_path / "model")
    with torch.no_grad():
        unmerged = toy_base()
        assert recipe.lora is not None
        add_adapters(unmerged, recipe.lora, 0)
        names = {name.removeprefix("transformer."): weight for name, weight in now.items()}
        unmerged.load_state_dict(names)
        assert torch.allclose(written(IDS)[0], unmerged(IDS)[0], atol=1e-5)
        assert not torch.allclose(written(IDS)[0], toy_base()(IDS)[0], atol=1e-2)


def test_without_peft_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(UserError, match=r"lora: needs peft; pip install 'qwen-eval\[lora\]'"):
        add_adapters(toy_base(), LORA, 0)
