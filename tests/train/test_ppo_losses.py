"""PPO's pieces against loops over plain floats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.train.ppo_losses import (
    advantages,
    kl_of_tokens,
    policy_loss,
    spread,
    sums,
    token_rewards,
    value_loss,
    whitened,
)
from qwen_eval.train.running_moments import RunningMoments

Numbers = np.ndarray[Any, Any]


@st.composite
def replies(draw: st.DrawFn, tables: int) -> tuple[Numbers, list[Numbers]]:
    """A mask with one run a row, and tables of numbers beside it (anything outside the mask)."""
    rows, steps = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    mask = np.zeros((rows, steps), dtype=bool)
    for row in range(rows):
        start = draw(st.integers(0, steps - 1))
        mask[row, start : draw(st.integers(start + 1, steps))] = True
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    return mask, [rng.normal(0, draw(st.floats(0.01, 2)), mask.shape) for _ in range(tables)]


def runs(mask: Numbers) -> list[tuple[int, list[int]]]:
    return [(row, [int(t) for t in np.flatnonzero(mask[row])]) for row in range(len(mask))]


def call(function: Any, *arrays: Numbers, **settings: float) -> Any:
    return function(*(torch.from_numpy(array) for array in arrays), **settings)


@given(replies(2), st.floats(0, 1), st.floats(0, 1))
@settings(deadline=None, max_examples=40)
def test_advantages_are_the_sum_of_discounted_surprises(
    told: tuple[Numbers, list[Numbers]], gamma: float, lambda_: float
) -> None:
    mask, (rewards, values) = told
    wanted = np.zeros(mask.shape)
    for row, steps in runs(mask):
        for t in steps:
            for later in range(t, steps[-1] + 1):
                following = values[row, later + 1] if later < steps[-1] else 0.0
                surprise = rewards[row, later] + gamma * following - values[row, later]
                wanted[row, t] += (gamma * lambda_) ** (later - t) * surprise
    got, returns = call(advantages, rewards, values, mask, gamma=gamma, lambda_=lambda_)
    np.testing.assert_allclose(got.numpy(), wanted, atol=1e-9)
    np.testing.assert_allclose(returns.numpy(), np.where(mask, wanted + values, 0), atol=1e-9)


def test_undiscounted_returns_with_lambda_1_are_what_comes_in() -> None:
    rewards = torch.tensor([[9.0, 1.0, 2.0, 3.0, 9.0]])
    mask = torch.tensor([[False, True, True, True, False]])
    _, returns = advantages(rewards, torch.randn(1, 5), mask, 1.0, 1.0)
    torch.testing.assert_close(returns, torch.tensor([[0.0, 6.0, 5.0, 3.0, 0.0]]))


@given(replies(2), st.floats(0, 2))
@settings(deadline=None, max_examples=40)
def test_the_score_lands_on_the_last_token_and_nowhere_else(
    told: tuple[Numbers, list[Numbers]], coefficient: float
) -> None:
    mask, (logprobs, reference) = told
    scores = np.arange(1.0, len(mask) + 1)
    kl = call(kl_of_tokens, logprobs, reference, mask).numpy()
    got = call(token_rewards, kl, scores, mask, coefficient=coefficient).numpy()
    wanted = np.zeros(mask.shape)
    for row, steps in runs(mask):
        for t in steps:
            wanted[row, t] = -coefficient * (logprobs[row, t] - reference[row, t])
        wanted[row, steps[-1]] += scores[row]
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    assert not got[~mask].any()


@given(replies(3), st.floats(0.05, 0.5))
@settings(deadline=None, max_examples=40)
def test_the_policy_loss_is_the_clipped_one(
    told: tuple[Numbers, list[Numbers]], clip: float
) -> None:
    mask, (logprobs, old, advantage) = told
    wanted, clipped = 0.0, 0
    for row, steps in runs(mask):
        for t in steps:
            ratio = math.exp(logprobs[row, t] - old[row, t])
            held = min(max(ratio, 1 - clip), 1 + clip)
            gains = ratio * advantage[row, t], held * advantage[row, t]
            wanted -= min(gains)
            clipped += gains[1] < gains[0]
    loss, count = call(policy_loss, logprobs, old, advantage, mask, clip=clip)
    assert float(loss) == pytest.approx(wanted, abs=1e-9)
    assert int(count) == clipped


@given(replies(3), st.floats(0.05, 0.5))
@settings(deadline=None, max_examples=40)
def test_the_value_loss_is_the_clipped_one(
    told: tuple[Numbers, list[Numbers]], clip: float
) -> None:
    mask, (values, old, returns) = told
    wanted = 0.0
    for row, steps in runs(mask):
        for t in steps:
            held = min(max(values[row, t], old[row, t] - clip), old[row, t] + clip)
            errors = [(value - returns[row, t]) ** 2 for value in (values[row, t], held)]
            wanted += max(errors) / 2
    assert float(call(value_loss, values, old, returns, mask, clip=clip)) == pytest.approx(wanted)


def test_a_ratio_beyond_the_clip_has_no_gradient_and_one_within_has() -> None:
    old, mask = torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool)
    logprobs = torch.tensor([[0.5, -0.5, 0.5, 0.1]], requires_grad=True)
    advantage = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    loss, clipped = policy_loss(logprobs, old, advantage, mask, 0.2)
    (gradient,) = torch.autograd.grad(loss, logprobs)
    assert (gradient == 0).tolist() == [[True, True, False, False]]
    assert int(clipped) == 2


def test_outside_the_mask_nothing_is_looked_at() -> None:
    """Not even what is no number: padding may hold anything."""
    mask = torch.tensor([[True, False]])
    bad = torch.tensor([[0.1, math.nan]], requires_grad=True)
    zero = torch.zeros(1, 2)
    for loss in (
        policy_loss(bad, zero, zero + 1, mask, 0.2)[0],
        value_loss(bad, zero, zero, mask, 0.2),
    ):
        assert math.isfinite(float(loss.detach()))
    assert kl_of_tokens(bad, zero, mask)[0, 1] == 0


@given(replies(1))
@settings(deadline=None, max_examples=40)
def test_whitening_and_sums_of_parts(told: tuple[Numbers, list[Numbers]]) -> None:
    mask, (values,) = told
    parts = [call(sums, values[row], mask[row]) for row in range(len(mask))]
    together = tuple(sum(part[i] for part in parts) for i in range(3))
    mean, deviation = spread(*together)
    assert mean == pytest.approx(values[mask].mean(), abs=1e-12)
    assert deviation == pytest.approx(values[mask].std(), abs=1e-6)
    got = call(whitened, values, mask, mean=mean, deviation=deviation).numpy()
    assert not got[~mask].any()
    if deviation > 1e-3:
        assert got[mask].mean() == pytest.approx(0, abs=1e-6)
        assert got[mask].std() == pytest.approx(1, abs=1e-4)


def test_running_moments_are_those_of_all_rewards_and_travel_in_the_state() -> None:
    rewards = torch.randn(40, generator=torch.Generator().manual_seed(0)) * 3 + 70
    moments, taken = RunningMoments(), []
    for batch in torch.split(rewards, 7):
        moments.add(*sums(batch, torch.ones_like(batch, dtype=torch.bool)))
        taken.append(batch)
        seen = torch.cat(taken).double()
        torch.testing.assert_close(
            moments.normalised(batch, divide=False), (batch - seen.mean()).float()
        )
        torch.testing.assert_close(
            moments.normalised(batch, divide=True),
            ((batch - seen.mean()) / seen.std(correction=0)).float(),
        )
    again = RunningMoments()
    again.load_state_dict(moments.state_dict())
    assert torch.equal(
        again.normalised(rewards, divide=True), moments.normalised(rewards, divide=True)
    )
    one = RunningMoments()
    one.add(1, 5.0, 25.0)
    assert one.normalised(torch.tensor([5.0]), divide=True).tolist() == [0.0]
