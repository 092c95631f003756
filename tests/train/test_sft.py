"""Fine-tuning: padded as packed, dropout that a resumed run draws again, and what ends a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_eval.errors import UserError
from qwen_eval.train.dropout import add_dropout
from qwen_eval.train.parallel import World, joined
from tests.train.toy_training import bits, whole_weights
from tests.train.toy_tuning import toy_base, tuner, tuning_recipe


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


def test_padded_or_packed_a_conversation_is_learnt_alike(tmp_path: Path, world: World) -> None:
    """The loss over all of them differs by noise alone."""
    losses = {}
    for packing in (True, False):
        recipe = tuning_recipe(tmp_path, packing=packing, length=256)
        trainer, _ = tuner(recipe, toy_base(), tmp_path / str(packing), world)
        feed = trainer.stages[0].feed
        assert (len(feed) < 12) if packing else (len(feed) == 12)
        places = list(range(len(feed)))
        loss = sum(trainer.model(part, 1.0).detach() for part in feed.parts(places, 5))
        losses[packing] = float(loss) / feed.tokens_asked(places)
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)


def test_steps_or_epochs_end_a_run(tmp_path: Path, world: World) -> None:
    by_steps, _ = tuner(tuning_recipe(tmp_path, steps=7), toy_base(), tmp_path / "a", world)
    by_epochs, _ = tuner(
        tuning_recipe(tmp_path, steps=None, epochs=3, packing=False), toy_base(), tmp_path, world
    )
    assert by_steps.steps == 7
    assert by_epochs.steps == 3 * 12 / 4
    with pytest.raises(UserError, match="epochs or steps, not both"):
        tuning_recipe(tmp_path, epochs=1)


def test_dropout_zeroes_a_share_of_what_enters_the_stream() -> None:
    """The mean over many draws is what comes without it, and nothing is drawn in inference."""
    model, ids = toy_base(), torch.arange(40)
    plain = model.embedding(ids)
    add_dropout(model, 0.25)
    torch.manual_seed(1)
    draws = torch.stack([model.embedding(ids) for _ in range(2000)])
    zeros = (draws == 0).float().mean()
    assert zeros == pytest.approx(0.25, abs=0.01)
    assert torch.allclose(draws[draws != 0], (plain / 0.75).expand_as(draws)[draws != 0])
    hooked = [name for name, layer in model.named_modules() if layer._forward_hooks]
    assert hooked == [
        "embedding",
        *(f"blocks.{n}.{x}" for n in (0, 1) for x in ("attention", "ffn")),
    ]
    model.eval()
    assert torch.equal(model.embedding(ids), plain)


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4, "dropout": 0.2}])
def test_a_resumed_run_draws_the_same_dropout(
    tmp_path: Path, world: World, lora: dict[str, float] | None
) -> None:
    if lora:
        pytest.importorskip("peft")
    recipe = tuning_recipe(tmp_path, dropout=0.1, lora=lora)
    whole, seen = tuner(recipe, toy_base(), tmp_path / "whole", world)
    whole.run()
    torch.manual_seed(99)

    class BreakError(Exception):
        pass

    def breaks(part: Any, scale: float) -> Any:
        if broken.done == 3:
            raise BreakError
        return whole_loss(part, scale)

    broken, before = tuner(recipe, toy_base(), tmp_path / "broken", world)
    whole_loss, broken.loss = broken.loss, breaks
    with pytest.raises(BreakError):
        broken.run()
    again, after = tuner(recipe, toy_base(), tmp_path / "broken", world)
    assert again.done == 2
    again.run()
    assert before.losses[:2] + after.losses == seen.losses
    assert bits(whole_weights(again)) == bits(whole_weights(whole))
    reseeded = recipe.model_copy(update={"seed": 6})
    other, otherwise = tuner(reseeded, toy_base(), tmp_path / "other", world)
    other.run()
    assert otherwise.losses != seen.losses


def test_a_sequence_longer_than_the_base_knows_is_refused(tmp_path: Path, world: World) -> None:
    with pytest.raises(UserError, match="length: 512 is more than the 256 tokens the base knows"):
        tuner(tuning_recipe(tmp_path, length=512), toy_base(), tmp_path, world)
