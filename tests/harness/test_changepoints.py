"""Change points against a brute force, by simulation, and where the naive way goes wrong."""

from __future__ import annotations

import itertools
import time
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.changepoints import change_points
from qwen_eval.paired import Array, difference

# --- a brute force, one number at a time --------------------------------------------------------


def students_p(d: list[float], groups: list[str]) -> float:
    """The same t by scipy over items, by Miller's sum over pairs of items of a group."""
    from scipy.stats import t, ttest_1samp

    names = set(groups)
    if not any(d):
        return 1.0
    if not 1 < len(names) < len(d):
        return float(ttest_1samp(d, 0.0).pvalue)
    mean = fmean(d)
    pairs = itertools.product(range(len(d)), repeat=2)
    total = sum((d[i] - mean) * (d[j] - mean) for i, j in pairs if groups[i] == groups[j])
    error = (len(names) / (len(names) - 1) * total) ** 0.5 / len(d)
    return float(2 * t.sf(abs(mean) / error, len(names) - 1))


def shuffled_p(rows: list[list[float]], split: int) -> float:
    """The variance over all orders of each item's values, by going through them."""
    total, sum_of_variances = 0.0, 0.0
    for item in zip(*rows, strict=True):
        total += fmean(item[split:]) - fmean(item[:split])
        ways = [fmean(way[split:]) - fmean(way[:split]) for way in itertools.permutations(item)]
        sum_of_variances += fmean(way * way for way in ways)
    if not total:
        return 1.0
    return 2 * NormalDist().cdf(-abs(total) / sum_of_variances**0.5)


def brute_force(
    rows: list[list[float]], groups: list[str], places: int, alpha: float = 0.05
) -> list[tuple[int, float]]:
    """Positions and p of all changes."""
    passed = []
    for split in range(1, len(rows)):
        before = [fmean(item) for item in zip(*rows[:split], strict=True)]
        after = [fmean(item) for item in zip(*rows[split:], strict=True)]
        d = [y - x for x, y in zip(before, after, strict=True)]
        shuffled = shuffled_p(rows, split)
        if max(students_p(d, groups), shuffled) * places <= alpha:
            step = abs(fmean(d)) * (split * (len(rows) - split)) ** 0.5
            verdict = difference(before, after, groups, alpha=alpha)
            passed.append((step, split, max(verdict.p, shuffled) * places))
    if not passed:
        return []
    _, split, p = max(passed)
    if p > alpha:
        return []
    left, right = (brute_force(part, groups, places) for part in (rows[:split], rows[split:]))
    return [*left, (split, p), *((split + at, q) for at, q in right)]


def small_series(kind: str, seed: int) -> tuple[Array, list[str]]:
    """Up to six runs of 60 items with up to two steps."""
    random = np.random.default_rng(seed)
    runs = int(random.integers(2, 7))
    level = np.cumsum(random.choice([0.0, 0.0, 1.0], runs))[:, None]
    if kind == "nearly all right":
        return drawn(random, *np.repeat(0.98 - 0.15 * level, 60, axis=1).clip(0)), [""] * 60
    values = random.normal(size=60) + random.normal(0, 0.7, (runs, 60)) + 0.8 * level
    return values, [str(i % 35) if kind == "grouped" else "" for i in range(60)]


@pytest.mark.parametrize("kind", ["scores", "grouped", "nearly all right"])
def test_the_segmentation_is_that_of_a_brute_force(kind: str) -> None:
    seen = []
    for seed in range(12):
        values, groups = small_series(kind, seed)
        found = change_points(values, groups)
        expected = brute_force(values.tolist(), groups, len(values) - 1)
        assert [change.at for change in found] == [at for at, _ in expected]
        assert [change.p for change in found] == pytest.approx([p for _, p in expected], rel=1e-4)
        seen.append(len(found))
    assert {0, 1, 2} <= set(seen), "the comparison sees none, one and two changes"


# --- properties ---------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**6), runs=st.integers(1, 9), missing=st.floats(0, 0.3))
def test_what_is_reported_fits_the_scores(seed: int, runs: int, missing: float) -> None:
    random = np.random.default_rng(seed)
    values = (random.random((runs, 80)) < random.random((runs, 1))).astype(float)
    values[random.random((runs, 80)) < missing] = np.nan
    found = change_points(values, [""] * 80)
    ends = [0, *(change.at for change in found), runs]
    assert ends == sorted(set(ends))
    for change, start, end in zip(found, ends, ends[2:], strict=False):
        assert 0 <= change.p <= 0.05
        kept = [item for item in values[start:end].T.tolist() if not np.isnan(item).any()]
        k = change.at - start
        sides = fmean(fmean(item[k:]) for item in kept), fmean(fmean(item[:k]) for item in kept)
        assert change.delta == pytest.approx(sides[0] - sides[1])
        assert change.items <= len(kept)


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1 / 3])
def test_reruns_of_the_same_answers_are_no_change(value: float) -> None:
    answers = np.random.default_rng(0).choice([0.0, value], 500)
    assert change_points(np.tile(answers, (20, 1)), [""] * 500) == []


@pytest.mark.parametrize("at", [1, 2, 6, 11])
def test_greedy_reruns_change_where_the_model_changed(at: int) -> None:
    """Every split has differences in proportion to those of the models: p is the same for all."""
    random = np.random.default_rng(1)
    old, new = (random.random((2, 400)) < [[0.6], [0.5]]).astype(float)
    runs = np.array([old] * at + [new] * (12 - at))
    (change,) = change_points(runs, [""] * 400)
    assert change.at == at
    assert change.delta == pytest.approx(new.mean() - old.mean())
    assert change.method == "exact McNemar"
    assert change.p == pytest.approx(11 * difference(list(old), list(new)).p), "copies add nothing"


def test_items_that_a_run_lacks_are_left_out() -> None:
    old, new = np.ones(300), np.ones(300)
    new[:40] = 0.0
    runs = np.array([old, old, new, new])
    runs[0, :20] = np.nan
    (change,) = change_points(runs, [""] * 300)
    assert (change.at, change.items) == (2, 280)
    assert change.delta == pytest.approx(-20 / 280)
    runs[1, 20:] = np.nan
    assert [c.at for c in change_points(runs, [""] * 300)] == [], "no item is in all four runs"


def test_many_runs_do_not_blind_it() -> None:
    """p of 10,000 flips, times 399 splits, could never be 0.05."""
    random = np.random.default_rng(0)
    rate = np.array([[0.7]] * 200 + [[0.6]] * 200)
    runs = (random.random((400, 300)) < rate).astype(float)
    assert [change.at for change in change_points(runs, [""] * 300)] == [200]


# --- by simulation ------------------------------------------------------------------------------


def drawn(random: np.random.Generator, *rates: Array) -> Array:
    """Runs of right and wrong answers, each drawn anew."""
    return (random.random((len(rates), len(rates[0]))) < np.array(rates)).astype(float)


def false_alarms(case: str, rounds: int) -> float:
    random = np.random.default_rng(5)
    alarms = 0
    for _ in range(rounds):
        groups = [""] * 300
        rate = random.beta(2, 2, 300)
        rates = [rate] * 12
        if case == "nearly all right":  # where the spread of few items deceives
            rates = [np.where(random.random(300) < 0.97, 0.99, 0.01)] * 40
        if case == "groups":  # a run is better or worse at a whole subject
            groups = [str(i % 40) for i in range(300)]
            rates = [np.clip(rate + random.normal(0, 0.15, 40)[np.arange(300) % 40], 0, 1)
                     for _ in range(12)]  # fmt: skip
        alarms += bool(change_points(drawn(random, *rates), groups))
    return alarms / rounds


@pytest.mark.parametrize("case", ["all sorts", "nearly all right", "groups"])
def test_equal_models_rarely_change(case: str) -> None:
    # Three standard errors above 0.05; without the test over runs, 0.15 of the second case alarm.
    assert false_alarms(case, 400) <= 0.05 + 3 * (0.05 * 0.95 / 400) ** 0.5


def models(random: np.random.Generator, *drops: float) -> list[Array]:
    """Chances of GSM8K's items under a model and under worse ones."""
    rate = 0.05 + 0.9 * random.beta(2, 2, 1319)
    return [np.clip(rate - drop, 0, 1) for drop in drops]


@pytest.mark.slow
def test_a_drop_of_five_points_is_found_at_its_place() -> None:
    random = np.random.default_rng(2)
    exact = near = 0
    for _ in range(60):
        old, new = models(random, 0.0, 0.05)
        at = [c.at for c in change_points(drawn(random, *[old] * 6, *[new] * 6), [""] * 1319)]
        exact += at == [6]
        near += len(at) == 1 and abs(at[0] - 6) <= 1
    assert exact / 60 >= 0.8
    assert near / 60 >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("last", [0.0, 0.12])
def test_two_changes_are_both_found(last: float) -> None:
    """Down and up again, and down twice."""
    random = np.random.default_rng(3)
    both = more = 0
    for _ in range(30):
        old, worse, end = models(random, 0.0, 0.06, last)
        runs = drawn(random, *[old] * 5, *[worse] * 5, *[end] * 5)
        at = [change.at for change in change_points(runs, [""] * 1319)]
        both += any(abs(a - 5) <= 1 for a in at) and any(abs(a - 10) <= 1 for a in at)
        more += len(at) > 2
    assert both >= 29
    assert more <= 5


@pytest.mark.slow
def test_nearly_greedy_runs_are_split_at_the_right_place() -> None:
    """The split of smallest p is another one most of the time."""
    random = np.random.default_rng(4)
    right = 0
    for _ in range(30):
        old = (random.random(1319) < 0.6).astype(float)
        lost, gained = random.random((2, 1319)) < [[0.11], [0.03]]
        new = np.where(old == 1, 1.0 - lost, 1.0 * gained)
        rates = [np.where(model == 1, 0.99, 0.01) for model in [old] * 6 + [new] * 6]
        right += 6 in [change.at for change in change_points(drawn(random, *rates), [""] * 1319)]
    assert right == 30


@pytest.mark.slow
@pytest.mark.parametrize("groups", [57, 14_042])
def test_a_hundred_runs_of_mmlu_take_seconds(groups: int) -> None:
    random = np.random.default_rng(6)
    runs = drawn(random, *[np.full(14_042, 0.6)] * 50, *[np.full(14_042, 0.57)] * 50)
    began = time.process_time()
    assert [c.at for c in change_points(runs, [str(i % groups) for i in range(14_042)])] == [50]
    assert time.process_time() - began < 20
