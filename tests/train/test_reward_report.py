"""The figures of a reward report against counting by hand, scipy and statsmodels."""

from __future__ import annotations

import random

import pytest
from scipy.stats import pearsonr
from statsmodels.stats.proportion import proportion_confint

from qwen_eval.train.reward_report import Judged, report_of


def pairs(count: int) -> list[Judged]:
    rng = random.Random(3)
    return [
        Judged(
            rng.choice([-1.0, 0.0, 0.5, 2.0]),
            rng.choice([-1.0, 0.0, 0.5]),
            *rng.choices(range(6), k=2),
        )
        for _ in range(count)
    ]


def test_figures_are_those_counted_by_hand() -> None:
    judged = pairs(200)
    found = report_of(judged)
    higher = [p for p in judged if p.chosen > p.rejected]
    ties = [p for p in judged if p.chosen == p.rejected]
    assert ties
    assert found.n == 200
    assert found.ties == len(ties)
    assert found.accuracy == (len(higher) + len(ties) / 2) / 200
    low, high = proportion_confint(len(higher) + len(ties) / 2, 200, method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high))
    rewards = [p.chosen for p in judged] + [p.rejected for p in judged]
    tokens = [p.chosen_tokens for p in judged] + [p.rejected_tokens for p in judged]
    assert found.correlation == pytest.approx(pearsonr(rewards, tokens).statistic)
    unequal = [p for p in judged if p.chosen_tokens != p.rejected_tokens]
    assert found.unequal == len(unequal) < 200
    longer = 0.0
    for p in unequal:
        of_longer, of_shorter = p.chosen, p.rejected
        if p.chosen_tokens < p.rejected_tokens:
            of_longer, of_shorter = of_shorter, of_longer
        longer += 1 if of_longer > of_shorter else 0.5 if of_longer == of_shorter else 0
    assert found.longer_by_reward == longer / len(unequal)
    people = sum(p.chosen_tokens > p.rejected_tokens for p in unequal)
    assert found.longer_by_people == people / len(unequal)
    shorter = [p for p in unequal if p.chosen_tokens < p.rejected_tokens]
    right = [1 if p.chosen > p.rejected else 0.5 if p.chosen == p.rejected else 0 for p in shorter]
    assert (found.shorter, found.shorter_accuracy) == (len(shorter), sum(right) / len(shorter))


def test_what_no_pair_says_is_left_open() -> None:
    alike = report_of([Judged(1.0, 1.0, 4, 4), Judged(1.0, 1.0, 4, 4)])
    assert (alike.accuracy, alike.ties, alike.correlation) == (0.5, 2, None)
    assert (alike.longer_by_reward, alike.longer_by_people, alike.shorter_accuracy) == (None,) * 3
    with pytest.raises(ValueError, match="at least one"):
        report_of([])
