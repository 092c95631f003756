"""Shares and net preference against brute force, closed forms, scipy, and by simulation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.human_eval_ui.analysis.shares import (
    Shares,
    clustered_share,
    net_without_each,
    shares,
)
from qwen_eval.human_eval_ui.analysis.votes import Vote
from qwen_eval.stats import wilson_interval
from tests.human_eval_ui.studies import CATEGORIES, copied, doubled, mirrored

CHANCES = (0.3, 0.2, 0.5)


def _votes(outcomes: list[list[int]], category: str = "coding") -> list[Vote]:
    return [
        Vote(f"i{i}", category, f"a{k}", "old", "new", said)
        for i, some in enumerate(outcomes)
        for k, said in enumerate(some)
    ]


def _overall(votes: list[Vote], baseline: str = "old") -> Shares:
    return shares(votes, baseline)[0]


def _net(found: Shares) -> tuple[float, float, float]:
    return found.net.low, found.net.delta, found.net.high


def test_votes_are_pooled_as_in_figure_4() -> None:
    """The paper's coding panel: 40 instructions, three annotators, 36 wins, 32 ties, 52 losses are
    30.0, 26.7 and 43.3 percent."""
    said = [1] * 36 + [0] * 32 + [-1] * 52
    found = _overall(_votes([said[i::40] for i in range(40)]))
    assert (found.items, found.votes) == (40, 120)
    percent = [round(100 * share.value, 1) for share in (found.win, found.tie, found.lose)]
    assert percent == [30.0, 26.7, 43.3]
    assert found.net.delta == pytest.approx((36 - 52) / 120)


def test_every_category_of_every_system() -> None:
    random = np.random.default_rng(1)
    votes = copied(random, 40, 3, CHANCES, 0.5)
    third = [
        replace(v, left=v.left.replace("new", "third"), right=v.right.replace("new", "third"))
        for v in copied(random, 40, 2, (0.6, 0.2, 0.2), 0.5)
    ]
    others = [Vote("i000", "knowledge", "a0", "new", "third", 2)]
    found = shares([*votes, *third, *others], "old")
    names = [(each.system, each.category) for each in found]
    assert names == [(s, c) for s in ("new", "third") for c in (None, *sorted(CATEGORIES))]
    assert found[:6] == shares(votes, "old")
    for each in found:
        own = votes if each.system == "new" else third
        own = [v for v in own if each.category in (None, v.category)]
        counts = Counter(v.outcome_for(each.system) for v in own)
        assert each.votes == len(own)
        assert each.win.value == pytest.approx(counts[1] / len(own))
        assert each.tie.value == pytest.approx(counts[0] / len(own))
        assert each.lose.value == pytest.approx(counts[-1] / len(own))
        assert each.win.low <= each.win.value <= each.win.high
        assert each.net.low <= each.net.delta <= each.net.high
    assert shares(votes, "nobody") == []


def test_holm_is_over_the_categories_of_a_system() -> None:
    from statsmodels.stats.multitest import multipletests

    overall, *parts = shares(copied(np.random.default_rng(2), 100, 3, CHANCES, 0.5), "old")
    theirs = multipletests([part.net.p for part in parts], method="holm")[1]
    assert [part.p_adjusted for part in parts] == pytest.approx(theirs)
    assert overall.p_adjusted == overall.net.p


def test_the_sign_test_is_scipys_over_what_most_say() -> None:
    from scipy.stats import binomtest

    random = np.random.default_rng(3)
    outcomes = (random.choice(3, (50, 3), p=CHANCES) - 1).tolist()
    found = _overall(_votes(outcomes))
    most = [np.sign(sum(some)) for some in outcomes]
    won, lost = most.count(1), most.count(-1)
    assert (found.items_won, found.items_tied, found.items_lost) == (won, most.count(0), lost)
    assert found.p_items == pytest.approx(binomtest(won, won + lost).pvalue)


def test_the_net_interval_is_a_bootstrap_of_whole_items() -> None:
    """By hand, item by item: the plain percentiles of it. BCa moves them a little."""
    votes = copied(np.random.default_rng(4), 80, 3, CHANCES, 0.5)[:-40]  # not all items have three
    found = _overall(votes)
    items = [[v for v in votes if v.item == item] for item in sorted({v.item for v in votes})]
    random = np.random.default_rng(5)
    nets = []
    for _ in range(4000):
        drawn = [v for i in random.integers(0, len(items), len(items)) for v in items[i]]
        nets.append(sum(v.outcome_for("new") for v in drawn) / len(drawn))
    low, high = np.quantile(nets, (0.025, 0.975))
    width = high - low
    assert found.net.low == pytest.approx(low, abs=0.06 * width)
    assert found.net.high == pytest.approx(high, abs=0.06 * width)


def test_one_vote_each_is_wilsons_interval_but_for_students_t() -> None:
    hits = np.array([1.0] * 30 + [0.0] * 70)
    found = clustered_share(hits, np.ones(100))
    # 99 where Wilson has 100, and t at 99 degrees is 1.2% wider than the normal.
    low, high = wilson_interval(30, 100)
    assert (found.low, found.high) == pytest.approx((low, high), abs=2e-3)
    assert found.high - found.low > high - low


@pytest.mark.parametrize("item", [[1, 1, 1], [0, 0, 0], [1, 0, -1], [1, 1, -1]])
def test_items_that_are_all_alike_still_leave_doubt(item: list[int]) -> None:
    found = _overall(_votes([item] * 12))
    for share in (found.win, found.tie, found.lose, found.net):
        assert share.high - share.low > 0.2
    assert found.net.low <= found.net.delta <= found.net.high
    assert found.net.low >= -1
    assert found.net.high <= 1
    assert found.few


def test_a_single_item_says_nothing_for_sure() -> None:
    found = _overall(_votes([[1, 1, 0]]))
    assert (found.win.low, found.win.high) == (0, 1)
    assert (found.net.low, found.net.high) == (-1, 1)
    assert found.net.p == found.p_items == 1
    assert found.detectable > 1


def test_what_is_too_little_is_marked() -> None:
    random = np.random.default_rng(6)
    assert _overall(copied(random, 29, 3, CHANCES, 0.2)).few  # fewer than thirty items
    assert _overall(copied(random, 30, 1, (0.45, 0.1, 0.45), 0.0)).few  # the brief's 32 points
    assert not _overall(copied(random, 60, 3, CHANCES, 0.5)).few


def test_marks_are_counted() -> None:
    votes = _votes([[1], [0], [-1], [1]])
    votes[0] = replace(votes[0], masked=True)
    votes[1:3] = [replace(vote, both_bad=True) for vote in votes[1:3]]
    assert (_overall(votes).masked, _overall(votes).both_bad) == (0.25, 0.5)


def test_an_annotator_who_carries_the_result_shows() -> None:
    votes = _votes([[1, 0, 0], [1, 0, 0], [1, 0, -1]])
    assert net_without_each(votes, "new", "old") == pytest.approx(
        {"a0": -1 / 6, "a1": 2 / 6, "a2": 3 / 6}
    )
    assert net_without_each(votes, "old", "new")["a0"] == pytest.approx(1 / 6)
    assert net_without_each(_votes([[1]]), "new", "old") == {}


STUDIES = st.lists(
    st.lists(st.integers(-2, 2), min_size=1, max_size=4), min_size=2, max_size=12
).map(_votes)


@settings(max_examples=15)
@given(votes=STUDIES, seed=st.integers(0, 99))
def test_sides_and_order_change_nothing(votes: list[Vote], seed: int) -> None:
    random = np.random.default_rng(seed)
    shuffled = [votes[i] for i in random.permutation(len(votes))]
    turned = [mirrored(v) if random.random() < 0.5 else v for v in shuffled]
    assert shares(turned, "old") == shares(votes, "old")


@settings(max_examples=15)
@given(votes=STUDIES)
def test_the_other_systems_view_is_the_opposite(votes: list[Vote]) -> None:
    ours, theirs = _overall(votes), _overall(votes, "new")
    assert (ours.win, ours.lose, ours.tie) == (theirs.lose, theirs.win, theirs.tie)
    assert _net(ours) == pytest.approx([-x for x in reversed(_net(theirs))], abs=0.05)
    assert ours.net.p == pytest.approx(theirs.net.p, abs=0.01)
    assert ours.p_items == pytest.approx(theirs.p_items)
    assert (ours.items_won, ours.items_lost) == (theirs.items_lost, theirs.items_won)


@settings(max_examples=15)
@given(votes=STUDIES)
def test_who_says_the_same_again_adds_nothing(votes: list[Vote]) -> None:
    once, twice = _overall(votes), _overall(doubled(votes))
    assert twice.votes == 2 * once.votes
    assert _net(twice) == pytest.approx(_net(once))
    assert (twice.net.p, twice.p_items) == pytest.approx((once.net.p, once.p_items))


@settings(max_examples=25)
@given(seed=st.integers(0, 10_000), votes=st.integers(1, 4))
def test_nor_do_shares_become_surer(seed: int, votes: int) -> None:
    """Where items differ no less than chance has them differ, as they do in a study."""
    random = np.random.default_rng(seed)
    study = copied(random, 40, votes, CHANCES, 0.6 if votes > 1 else 0.0)
    once, twice = _overall(study), _overall(doubled(study))
    for one, other in ((once.win, twice.win), (once.tie, twice.tie), (once.lose, twice.lose)):
        assert (other.low, other.high) == pytest.approx((one.low, one.high))
    assert twice.effective == pytest.approx(once.effective, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("items", "votes", "chances", "correlation"),
    [(60, 3, (0.3, 0.2, 0.5), 0.5), (100, 1, (0.15, 0.2, 0.65), 0.0)],
)
def test_intervals_hold_the_truth_nineteen_times_in_twenty(
    items: int, votes: int, chances: tuple[float, ...], correlation: float
) -> None:
    random = np.random.default_rng(8)
    held, runs = np.zeros(4), 600
    for _ in range(runs):
        study = [
            replace(v, category="one") for v in copied(random, items, votes, chances, correlation)
        ]
        found = _overall(study)
        lose, tie, win = chances
        bounds: list[tuple[Any, float]] = [
            (found.win, win),
            (found.tie, tie),
            (found.lose, lose),
            (found.net, win - lose),
        ]
        held += [each.low <= truth <= each.high for each, truth in bounds]
    assert held / runs == pytest.approx(0.95, abs=0.02)
