"""The optimiser by its formula, and its rate by the points that the recipe promises."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from qwen_eval.model.transformer import Transformer
from qwen_eval.train.optim import Optimiser, adamw, learning_rate
from tests.train.toy_training import family

PAPER = Optimiser.model_validate({})


def settings(**said: float) -> Optimiser:
    return Optimiser.model_validate(said)


def test_the_papers_settings_are_the_defaults() -> None:
    found = (PAPER.beta1, PAPER.beta2, PAPER.eps, PAPER.final, PAPER.clip, PAPER.weight_decay)
    assert found == (0.9, 0.95, 1e-8, 0.1, 1.0, 0.1)


def test_the_rate_at_its_landmarks() -> None:
    chosen = settings(learning_rate=2e-3, warmup_steps=200)
    rates = [learning_rate(chosen, step, 1200) for step in range(1, 1201)]
    assert rates[0] == pytest.approx(2e-3 / 200)
    assert rates[99] == pytest.approx(1e-3)
    assert rates[199] == 2e-3 == max(rates)
    # Half way down the cosine the rate is half way between both ends.
    assert rates[699] == pytest.approx((2e-3 + 2e-4) / 2)
    assert rates[-1] == pytest.approx(2e-4, rel=1e-12)
    assert all(a < b for a, b in pairwise(rates[:200]))
    assert all(a > b for a, b in pairwise(rates[199:]))


def test_the_rate_is_pytorchs_cosine() -> None:
    """CosineAnnealingLR after the warm-up, which it reaches by recursion, not by the formula."""
    chosen, steps = settings(learning_rate=1e-3, warmup_steps=5), 60
    weight = nn.Parameter(torch.zeros(()))
    theirs = torch.optim.SGD([weight], lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, steps - 5, eta_min=1e-4)
    for step in range(6, steps + 1):
        theirs.step()
        schedule.step()
        assert learning_rate(chosen, step, steps) == pytest.approx(schedule.get_last_lr()[0])


def test_the_rate_without_warm_up_or_with_nothing_else() -> None:
    assert learning_rate(settings(learning_rate=1.0), 10, 10) == pytest.approx(0.1)
    assert learning_rate(settings(learning_rate=1.0), 1, 1) == pytest.approx(0.1)
    long = settings(learning_rate=1.0, warmup_steps=20)
    assert learning_rate(long, 10, 10) == pytest.approx(0.5)


@pytest.mark.parametrize("name", ["qwen", "qwen3"])
def test_matrices_decay_and_nothing_else(name: str) -> None:
    model = Transformer(family(name))
    decays, stays = adamw(model, PAPER).param_groups
    names = {id(p): n for n, p in model.named_parameters()}
    decaying = {names[id(p)] for p in decays["params"]}
    staying = {names[id(p)] for p in stays["params"]}
    assert decaying | staying == set(names.values())
    assert not decaying & staying
    assert (decays["weight_decay"], stays["weight_decay"]) == (0.1, 0.0)
    ends = ("norm.weight", ".bias")
    assert staying == {n for n in names.values() if n.endswith(ends)}
    assert {"embedding.weight", "head.weight"} <= decaying


def test_a_step_is_the_formula() -> None:
    """Loshchilov and Hutter 2019, algorithm 2: decay apart from the moments, bias-corrected."""
    draw = torch.Generator().manual_seed(0)
    model = nn.Linear(4, 3).double()
    chosen = settings(learning_rate=0.05, weight_decay=0.2)
    optimiser = adamw(model, chosen)
    hand = {n: p.detach().clone() for n, p in model.named_parameters()}
    first = {n: torch.zeros_like(p) for n, p in hand.items()}
    second = {n: torch.zeros_like(p) for n, p in hand.items()}
    for step in range(1, 6):
        for name, parameter in model.named_parameters():
            g = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
            parameter.grad = g
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g * g
            decay = 0.2 if name == "weight" else 0.0
            hand[name] = hand[name] * (1 - 0.05 * decay) - 0.05 * (
                first[name] / (1 - 0.9**step)
            ) / ((second[name] / (1 - 0.95**step)).sqrt() + 1e-8)
        optimiser.step()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(parameter.detach(), hand[name], rtol=1e-12, atol=1e-14)
    assert math.isfinite(float(model.weight.detach().sum()))
