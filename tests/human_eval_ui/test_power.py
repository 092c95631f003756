"""What a study can tell: the brief's own figures, brute force, and simulation."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist

import numpy as np
import pytest

from qwen_eval.human_eval_ui.analysis.power import (
    correlation_within,
    effective_votes,
    items_for,
    plan,
)
from qwen_eval.human_eval_ui.analysis.votes import Vote
from tests.human_eval_ui.studies import copied


def test_three_hundred_instructions() -> None:
    """One vote, a fifth of them ties: ten points of net preference, five of win rate. Three votes
    with a correlation of a half are worth 450. Thirty instructions: 32 points."""
    one = plan(300, 1)
    assert one.effective == 300
    assert one.net == pytest.approx(0.101, abs=5e-4)
    assert one.win_rate == pytest.approx(0.0506, abs=5e-4)
    assert plan(300, 3).effective == pytest.approx(450)
    assert plan(30, 1).net == pytest.approx(0.32, abs=1e-3)


def test_votes_that_are_one_and_the_same_add_nothing() -> None:
    assert plan(100, 5, correlation=1.0).net == plan(100, 1).net
    assert plan(100, 5, correlation=0.0).net == plan(500, 1).net
    assert plan(100, 3).detectable < plan(100, 1).detectable
    assert plan(3, 1).detectable > 1  # three items can show nothing at all


@pytest.mark.parametrize(("votes", "correlation"), [(1, 0.5), (3, 0.5), (3, 0.2), (5, 0.0)])
def test_the_items_asked_for_are_the_fewest(votes: int, correlation: float) -> None:
    for net in (0.05, 0.1, 0.2):
        items = items_for(net, votes, correlation=correlation)
        assert plan(items, votes, correlation=correlation).detectable <= net + 2e-3
        assert plan(items * 19 // 20, votes, correlation=correlation).detectable > net


@pytest.mark.parametrize(
    ("items", "votes", "ties", "correlation"),
    [(0, 1, 0.2, 0.5), (5, 0, 0.2, 0.5), (5, 1, 1.0, 0.5), (5, 1, -0.1, 0.5), (5, 1, 0.2, 1.1)],
)
def test_what_is_no_study_is_refused(
    items: int, votes: int, ties: float, correlation: float
) -> None:
    with pytest.raises(ValueError, match=r"study|shares"):
        plan(items, votes, ties=ties, correlation=correlation)


def test_effective_votes_are_those_of_the_plan() -> None:
    assert effective_votes([3] * 300, 0.5) == pytest.approx(plan(300, 3).effective)
    assert effective_votes([1] * 7, 1.0) == 7
    assert effective_votes([2, 2], -0.3) == 4  # a correlation below zero makes no votes
    # One vote alone and three that are the same: as Kish has it, by the size that a vote sees.
    assert effective_votes([1, 3], 1.0) == pytest.approx(4 / (10 / 4))


def _votes(outcomes: list[list[int]]) -> list[Vote]:
    return [
        Vote(f"i{i}", "coding", f"a{k}", "old", "new", said)
        for i, some in enumerate(outcomes)
        for k, said in enumerate(some)
    ]


def test_the_correlation_of_pairs_is_the_one_over_all_pairs() -> None:
    """Against the variance components that statsmodels' analysis of variance gives."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    random = np.random.default_rng(5)
    for _ in range(5):
        outcomes = random.integers(-1, 2, (12, 3)).tolist()
        rows = [(str(i), x) for i, some in enumerate(outcomes) for x in some]
        table = anova_lm(ols("x ~ C(i)", pd.DataFrame(rows, columns=["i", "x"])).fit())
        between, inside = table["mean_sq"]
        theirs = (between - inside) / (between + 2 * inside)
        assert correlation_within(_votes(outcomes), "new") == pytest.approx(theirs)
        assert correlation_within(_votes(outcomes), "old") == pytest.approx(theirs)


def test_no_correlation_where_there_is_nothing_to_tell_it_by() -> None:
    assert correlation_within(_votes([[1], [0], [-1]]), "new") is None
    assert correlation_within(_votes([[1, 1], [1, 1]]), "new") is None
    assert correlation_within(_votes([[1, 0]]), "new") is None
    assert correlation_within(_votes([[1, 1], [-1, -1]]), "new") == 1.0


def test_the_correlation_is_found_again() -> None:
    random = np.random.default_rng(6)
    for correlation in (0.0, 0.3, 0.7):
        found = correlation_within(copied(random, 2000, 3, (0.3, 0.2, 0.5), correlation), "new")
        assert found == pytest.approx(correlation, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("votes", "correlation"), [(1, 0.0), (3, 0.5)])
def test_the_detectable_difference_is_found_four_times_in_five(
    votes: int, correlation: float
) -> None:
    """Studies by the plan's own law, each tested with the normal test of clustered votes."""
    random = np.random.default_rng(7)
    items, ties = 200, 0.2
    net = plan(items, votes, ties=ties, correlation=correlation).detectable
    chances = [(1 - ties - net) / 2, ties, (1 - ties + net) / 2]
    found = 0
    for _ in range(1500):
        own = random.choice(3, (items, 1), p=chances) - 1
        each = random.choice(3, (items, votes), p=chances) - 1
        said = np.where(random.random((items, votes)) < correlation**0.5, own, each)
        means = said.mean(axis=1)
        found += abs(means.mean()) / (means.std(ddof=1) / items**0.5) > NormalDist().inv_cdf(0.975)
    assert found / 1500 == pytest.approx(0.8, abs=0.035)


def test_half_the_interval_is_where_the_net_preference_lies_by_chance() -> None:
    """All ways in which four votes can come out, among equals."""
    outcomes, chances = (-1, 0, 1), (0.3, 0.4, 0.3)
    variance = 0.0
    for way in itertools.product(range(3), repeat=4):
        chance = math.prod(chances[i] for i in way)
        variance += chance * (sum(outcomes[i] for i in way) / 4) ** 2
    assert plan(4, 1, ties=0.4).net == pytest.approx(NormalDist().inv_cdf(0.975) * variance**0.5)
