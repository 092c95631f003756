"""Continued pretraining begins with the weights of a model, and belongs to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.parallel import World, joined
from qwen_eval.train.pretrain import check_base, open_corpus, prepare
from tests.train.toy_training import Steps, recipe_of, write_packed


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


def base_of(config: ModelConfig, seed: int) -> Transformer:
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def test_the_first_loss_is_the_base_models(tmp_path: Path, world: World) -> None:
    recipe = recipe_of(tmp_path, continues=True)
    corpus = open_corpus(write_packed(tmp_path / "corpus"), recipe)
    base = base_of(recipe.model.config(recipe.longest), 77)
    check_base(recipe, base.config)
    steps = Steps()
    trainer = prepare(
        recipe, corpus, tmp_path / "out", world, lambda model: (steps,), (base, "its hash")
    )
    feed = trainer.stages[0].feed
    with torch.no_grad():
        ids = next(feed.parts(feed.places(0, 8), 8)).ids_BS
        logits = torch.cat([one[:-1] for one in base([*ids])])
        wanted = F.cross_entropy(logits, ids[:, 1:].flatten()).item()
    trainer.run()
    assert steps.losses[0] == pytest.approx(wanted, abs=1e-5)
    resumed = prepare(recipe, corpus, tmp_path / "out", world, base=(base, "its hash"))
    assert resumed.done == trainer.steps
    with pytest.raises(UserError, match="of another recipe or corpus"):
        prepare(recipe, corpus, tmp_path / "out", world, base=(base, "another"))


def test_a_base_is_there_where_it_is_wanted_and_fits(tmp_path: Path) -> None:
    anew, going_on = recipe_of(tmp_path), recipe_of(tmp_path, continues=True)
    config = anew.model.config(32)
    check_base(anew, None)
    with pytest.raises(UserError, match="--model: is missing; this recipe goes on from a model"):
        check_base(going_on, None)
    with pytest.raises(UserError, match="--model: this recipe begins anew"):
        check_base(anew, config)
    wide = recipe_of(tmp_path, {"hidden_size": 64}, continues=True)
    with pytest.raises(UserError, match="--model: its hidden_size is 32, the recipe's 64"):
        check_base(wide, config)
    # The context may grow.
    long = recipe_of(tmp_path, {"max_length": 4096, "ntk": True}, continues=True)
    check_base(long, config)
