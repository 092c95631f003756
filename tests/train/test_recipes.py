"""Recipes of ours are readable, and those of the paper's models have the paper's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_eval import train
from qwen_eval.train.optim import Optimiser, learning_rate
from qwen_eval.train.pretrain import Pretraining, read_pretraining
from qwen_eval.train.sft import FineTuning, read_fine_tuning

RECIPES = Path(train.__path__[0]) / "recipes"
SFT = [path.stem for path in sorted((RECIPES / "sft").glob("*.yaml"))]


def tuning(name: str) -> FineTuning:
    return read_fine_tuning(RECIPES / "sft" / f"{name}.yaml")


def pretraining(name: str) -> Pretraining:
    return read_pretraining(RECIPES / "pretrain" / f"{name}.yaml")


@pytest.mark.parametrize("name", SFT)
def test_nothing_that_is_fine_tuned_on_is_a_test_set(name: str) -> None:
    """Of the mirror's sets these are asked by tasks, whole or in part."""
    files = [file for of in tuning(name).conversations.values() for file in of.files]
    assert files
    for asked in ("test", "mbpp", "humaneval", "gaokao", "gsm8k_solutions", "bfcl", "hotpotqa_dev"):
        assert not any(asked in file for file in files), files


# name: length, batch, steps, peak, warm-up of 1,000 steps (sections 3.1, 4.2 and 5 of the paper)
PAPER = {
    "qwen": (2048, 128, 4000, 2e-6, 1430),
    "math-chat": (1024, 128, 50_000, 2e-5, 1430),
    "code-7b-chat": (2048, 128, None, 1e-5, 30),
    "code-14b-chat": (2048, 128, None, 2e-6, 30),
}


@pytest.mark.parametrize("name", PAPER)
def test_fine_tuning_of_the_paper(name: str) -> None:
    recipe = tuning(name)
    adam = recipe.optimiser
    found = (recipe.length, recipe.batch, recipe.steps, adam.learning_rate, adam.warmup(1000))
    assert found == PAPER[name]
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9, 0.95, 1e-8)
    assert (adam.weight_decay, recipe.dropout, adam.clip) == (0.1, 0.1, 1.0)
    assert recipe.mask == "paper"


@pytest.mark.parametrize(("size", "rate"), [("7b", 3e-5), ("14b", 6e-5)])
def test_code_goes_on_from_the_base_of_its_size(size: str, rate: float) -> None:
    code, base = pretraining(f"code-{size}"), pretraining(f"qwen-{size}")
    assert code.continues
    assert not base.continues
    assert code.model == base.model
    assert [(stage.length, stage.tokens) for stage in code.stages] == [(8192, 90_000_000_000)]
    adam = code.optimiser
    assert (adam.beta1, adam.beta2, adam.eps) == (0.9, 0.95, 1e-8)
    assert [learning_rate(adam, step, 1000) for step in (15, 30, 31, 1000)] == pytest.approx(
        [rate / 2, rate, rate, rate]
    )


def test_the_papers_rate_rises_for_1430_steps_and_stays() -> None:
    adam = tuning("qwen").optimiser
    rates = [learning_rate(adam, step, 4000) for step in (1, 715, 1430, 2000, 4000)]
    assert rates == pytest.approx([2e-6 / 1430, 1e-6, 2e-6, 2e-6, 2e-6])


def test_warmup_is_said_in_one_way() -> None:
    assert Optimiser.model_validate({"warmup_share": 0.03}).warmup(50_000) == 1500
    assert Optimiser.model_validate({"warmup_steps": 7}).warmup(50_000) == 7
    with pytest.raises(ValueError, match="warmup_steps or warmup_share, not both"):
        Optimiser.model_validate({"warmup_steps": 7, "warmup_share": 0.1})
