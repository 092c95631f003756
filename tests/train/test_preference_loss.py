"""The loss of pairs against its formula in float64, worked out without a library's help."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qwen_eval.train.preference_loss import preference_losses


def brute_force(chosen: float, rejected: float, margin: float, centring: float) -> float:
    apart = np.float64(chosen) - np.float64(rejected) - np.float64(margin)
    # -log(1 / (1 + e^-x)), written so that neither side overflows.
    entropy = math.log1p(math.exp(-abs(apart))) + max(-apart, 0.0)
    return float(entropy + centring * (np.float64(chosen) + np.float64(rejected)) ** 2)


@pytest.mark.parametrize("centring", [0.0, 0.01, 2.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_losses_are_those_of_the_formula(dtype: torch.dtype, centring: float) -> None:
    rng = np.random.default_rng(4)
    rewards = rng.normal(0, 3, (2, 40))
    rewards[:, :4] = np.array([[0, 60, -60, 1e-3], [0, -60, 60, 0]])
    margins = np.where(rng.random(40) < 0.5, 0.0, rng.normal(1, 1, 40))
    chosen, rejected, margin = (torch.tensor(x, dtype=dtype) for x in (*rewards, margins))
    found = preference_losses(chosen, rejected, margin, centring)
    wanted = [
        brute_force(float(c), float(r), float(m), centring)
        for c, r, m in zip(chosen, rejected, margin, strict=True)
    ]
    near = 1e-12 if dtype == torch.float64 else 1e-5
    assert found.tolist() == pytest.approx(wanted, rel=near, abs=near)


def test_gradients_are_differences_of_the_formula() -> None:
    chosen, rejected = (torch.tensor([x], dtype=torch.float64, requires_grad=True) for x in (1, -2))
    loss = preference_losses(chosen, rejected, torch.tensor([0.7]), 0.05).sum()
    found = torch.autograd.grad(loss, (chosen, rejected))
    step = 1e-6
    for at, gradient in enumerate(found):
        low, high = [1.0, -2.0], [1.0, -2.0]
        low[at] -= step
        high[at] += step
        margin = float(torch.tensor(0.7))
        above = brute_force(high[0], high[1], margin, 0.05)
        below = brute_force(low[0], low[1], margin, 0.05)
        slope = (above - below) / (2 * step)
        assert float(gradient) == pytest.approx(slope, abs=1e-7)


def test_margin_asks_for_distance_and_centring_for_zero() -> None:
    two, one, none = (torch.tensor([x]) for x in (2.0, 1.0, 0.0))
    assert preference_losses(two, one, one, 0) > preference_losses(two, one, none, 0)
    assert preference_losses(two, one, none, 0) == preference_losses(one, none, none, 0)
    assert preference_losses(two, one, none, 0.1) > preference_losses(one, none, none, 0.1)
