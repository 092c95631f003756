"""Paired statistics against scipy, statsmodels, brute force, and by simulation."""

from __future__ import annotations

import itertools
import math
from statistics import NormalDist, fmean

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.paired import (
    Paired,
    benjamini_hochberg,
    difference,
    holm,
    mcnemar,
    sign_flips,
)

# --- against others on the same input -----------------------------------------------------------


@given(lost=st.integers(0, 300), gained=st.integers(0, 300))
def test_mcnemar_is_scipys_and_statsmodels(lost: int, gained: int) -> None:
    from scipy.stats import binomtest
    from statsmodels.stats.contingency_tables import mcnemar as theirs

    drop, gain = mcnemar(lost, gained)
    if lost + gained:
        n = lost + gained
        assert drop == pytest.approx(binomtest(lost, n, alternative="greater").pvalue)
        assert gain == pytest.approx(binomtest(gained, n, alternative="greater").pvalue)
    both = theirs([[9, lost], [gained, 9]], exact=True).pvalue
    assert min(1.0, 2 * min(drop, gain)) == pytest.approx(both)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_adjusted_p_values_are_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])
    theirs = multipletests(p_values, method="fdr_bh")[1]
    assert benjamini_hochberg(p_values) == pytest.approx(theirs)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(20, 200))
def test_the_bootstrap_is_scipys(seed: int, n: int) -> None:
    """Ours and theirs draw other resamples, so their ends agree to a part of the interval."""
    from scipy.stats import bootstrap

    random = np.random.default_rng(seed)
    a, b = random.gamma(1.0, size=(2, n))
    ours = difference(list(a), list(b))
    theirs = bootstrap((b - a,), np.mean, n_resamples=10_000, rng=random).confidence_interval
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)
    assert ours.low < ours.lower < ours.delta < ours.upper < ours.high


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), groups=st.integers(45, 60), size=st.integers(4, 9))
def test_clustered_errors_are_statsmodels(seed: int, groups: int, size: int) -> None:
    import statsmodels.api as sm

    random = np.random.default_rng(seed)
    at = random.integers(0, groups, groups * size)
    shift = random.normal(0, 0.5, groups)[at]
    a = random.normal(size=len(at))
    b = a + shift + random.normal(size=len(at))
    ours = difference(list(a), list(b), [str(i) for i in at])
    ids = np.unique(at, return_inverse=True)[1]
    model = sm.OLS(b - a, np.ones(len(at)))
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": ids, "df_correction": True}, use_t=True)
    assert ours.error == pytest.approx(float(fit.bse[0]), rel=1e-9)
    assert (ours.low, ours.high) == pytest.approx(tuple(fit.conf_int()[0]), rel=1e-6, abs=1e-9)
    assert ours.p == pytest.approx(float(fit.pvalues[0]), rel=1e-6)
    assert ours.clusters == len(set(at))


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=9))
def test_sign_flips_are_all_flips(sums: list[int]) -> None:
    total = sum(sums)
    ways = [
        sum(s * x for s, x in zip(signs, sums, strict=True))
        for signs in itertools.product((1, -1), repeat=len(sums))
    ]
    drop, gain = sign_flips(np.array(sums, dtype=float))
    assert drop == pytest.approx(sum(way <= total for way in ways) / len(ways))
    assert gain == pytest.approx(sum(way >= total for way in ways) / len(ways))


def test_few_groups_are_tested_by_flipping_their_signs() -> None:
    random = np.random.default_rng(4)
    a, b = (random.random((2, 60)) < 0.5).astype(float)
    names = [str(i % 10) for i in range(60)]
    sums = np.array([(b - a)[i::10].sum() for i in range(10)])
    found = difference(list(a), list(b), names)
    assert (found.p_drop, found.p_gain) == sign_flips(sums)


@given(lost=st.integers(0, 40), gained=st.integers(0, 40), alike=st.integers(1, 200))
def test_agresti_and_min_is_wald_with_half_an_item_more_in_each_cell(
    lost: int, gained: int, alike: int
) -> None:
    a = [1.0] * lost + [0.0] * (gained + alike)
    b = [0.0] * lost + [1.0] * gained + [0.0] * alike
    found = difference(a, b)
    cells = [lost + 0.5, gained + 0.5, alike + 1]
    moved = np.array([-1.0, 1.0, 0.0])
    mean = np.average(moved, weights=cells)
    error = math.sqrt(np.average((moved - mean) ** 2, weights=cells) / sum(cells))
    z = NormalDist().inv_cdf(0.975)
    assert found.low == pytest.approx(max(mean - z * error, -1))
    assert found.high == pytest.approx(min(mean + z * error, 1))


def test_the_bootstrap_of_few_kinds_of_scores_is_scipys() -> None:
    """Where many resampled means tie with the one seen, half of them count as below."""
    from scipy.stats import bootstrap

    a, b = [0.5] * 14, [0.0] * 3 + [0.5] * 6 + [1.0] * 5
    ours = difference(a, b)
    theirs = bootstrap((np.array(b) - np.array(a),), np.mean, n_resamples=10_000,
                       rng=np.random.default_rng(1)).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_many_units_are_flipped_at_random_and_come_near() -> None:
    ones = np.array([1.0] * 12 + [-1.0] * 28)
    drop, gain = sign_flips(ones)
    exact = mcnemar(28, 12)
    assert (drop, gain) == pytest.approx(exact, abs=0.005)


# --- edges --------------------------------------------------------------------------------------


def test_runs_that_agree_everywhere_leave_room_for_what_was_not_seen() -> None:
    same = difference([1.0, 0.0] * 82, [1.0, 0.0] * 82, ["a", "b"] * 82)
    assert same.method == "exact McNemar"
    assert same.delta == 0
    assert same.p == 1
    assert -0.02 < same.lower < 0 < same.upper < 0.02
    scores = difference([0.5, 0.7], [0.5, 0.7])
    assert (scores.delta, scores.low, scores.high, scores.p) == (0, 0, 0, 1)


def test_one_item_and_none() -> None:
    assert difference([1.0], [0.0]).delta == -1
    assert difference([1.0], [0.0]).low >= -1
    with pytest.raises(ValueError, match="at least one item"):
        difference([], [])


def test_one_group_or_a_group_per_item_are_no_clusters() -> None:
    a, b = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]
    for groups in (None, ["g"] * 4, list("abcd")):
        assert difference(a, b, groups).clusters is None
    assert difference(a, b, list("aabb")).clusters == 2


def test_swapping_the_runs_mirrors_everything() -> None:
    random = np.random.default_rng(1)
    a, b = (list((random.random(150) < p).astype(float)) for p in (0.5, 0.6))
    one, other = difference(a, b), difference(b, a)
    mirrored = (-other.delta, -other.high, -other.low, -other.upper, -other.lower)
    assert (one.delta, one.low, one.high, one.lower, one.upper) == pytest.approx(mirrored)
    assert (one.p_drop, one.p_gain) == (other.p_gain, other.p_drop)


# --- what the figures promise, by simulation ----------------------------------------------------


def paired_answers(
    random: np.random.Generator, n: int, p: float, discordance: float, delta: float
) -> tuple[list[float], list[float]]:
    """Right with chance p before; `discordance` of the items change sides, for -delta net."""
    up, down = (discordance + delta) / 2, (discordance - delta) / 2
    kinds = random.choice(4, n, p=[up, down, p - down, 1 - p - up])
    before, after = (np.isin(kinds, right).astype(float) for right in ((1, 2), (0, 2)))
    return list(before), list(after)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 400])
def test_intervals_of_paired_proportions_cover(n: int) -> None:
    random = np.random.default_rng(n)
    covered = []
    for p in np.arange(0.1, 0.95, 0.1):
        for delta in (0.0, -0.03):
            for _ in range(400):
                # Half of what two independent models would disagree on.
                found = difference(*paired_answers(random, n, float(p), p * (1 - p), delta))
                covered.append(found.low <= delta <= found.high)
    assert fmean(covered) == pytest.approx(0.95, abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("groups", "size"), [(40, 10), (57, 8)])
def test_intervals_of_clusters_cover(groups: int, size: int) -> None:
    """Items of a passage share a part of their difference, so plain intervals would not."""
    random = np.random.default_rng(groups)
    names = [str(g) for g in range(groups) for _ in range(size)]
    covered, plainly = [], []
    for p in np.arange(0.1, 0.95, 0.1):
        for _ in range(250):
            lean = random.normal(0, 1.0, groups).repeat(size)
            sides = NormalDist().inv_cdf(float(p)) + np.array([[0.0], [-0.1]])
            scores = sides * 1.4 + lean * np.array([[1.0], [-0.5]]) > random.normal(
                size=(2, groups * size)
            )
            a, b = scores.astype(float)
            truth = sum(
                sign * NormalDist(0, math.sqrt(1 + weight**2)).cdf(1.4 * float(side))
                for sign, weight, side in ((-1, 1.0, sides[0, 0]), (1, 0.5, sides[1, 0]))
            )
            found = difference(list(a), list(b), names)
            covered.append(found.low <= truth <= found.high)
            plain = difference(list(a), list(b))
            plainly.append(plain.low <= truth <= plain.high)
    assert fmean(covered) == pytest.approx(0.95, abs=0.01)
    assert fmean(plainly) < 0.90


@pytest.mark.slow
def test_power_is_what_theory_says() -> None:
    random = np.random.default_rng(5)
    n, discordance, delta = 1319, 0.15, -0.03
    found = [
        difference(*paired_answers(random, n, 0.6, discordance, delta)).p_drop <= 0.05
        for _ in range(2000)
    ]
    normal = NormalDist()
    reach = normal.inv_cdf(0.95) * math.sqrt(discordance)
    theory = normal.cdf((-delta * math.sqrt(n) - reach) / math.sqrt(discordance - delta**2))
    assert fmean(found) == pytest.approx(theory, abs=0.02)
    assert fmean(found) >= 0.85


def test_a_paired_result_is_plain_figures() -> None:
    found = difference([1.0, 0.0, 1.0], [0.0, 0.0, 1.0])
    assert isinstance(found, Paired)
    assert all(type(value) in (int, float, str, type(None)) for value in vars(found).values())
