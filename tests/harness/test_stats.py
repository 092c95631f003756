"""Statistics against scipy, closed forms and brute force."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.stats import detectable_difference, mean_interval, pass_at_k, wilson_interval


@given(n=st.integers(1, 2000), data=st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    from scipy.stats import binomtest

    k = data.draw(st.integers(0, n))
    theirs = binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson_interval(k, n) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=50))
def test_the_mean_interval_is_scipys(values: list[float]) -> None:
    import numpy as np
    from scipy.stats import t

    spread = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    low, high = mean_interval(values)
    middle = math.fsum(values) / len(values)
    reach = float(t.ppf(0.975, len(values) - 1)) * spread
    assert (low, high) == pytest.approx((middle - reach, middle + reach), abs=1e-6)


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 5, 2), (4, 4, 4)])
def test_pass_at_k_is_the_share_of_draws_with_a_pass(n: int, c: int, k: int) -> None:
    draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_a_detectable_difference_is_detected_four_times_in_five() -> None:
    # By simulation: paired answers of which 10% differ, exact one-sided McNemar at 5%.
    from scipy.stats import binom

    n = 2000
    shift = detectable_difference(n)
    rng = random.Random(1)
    found = 0
    for _ in range(400):
        better = sum(rng.random() < 0.05 + shift / 2 for _ in range(n))
        worse = sum(rng.random() < 0.05 - shift / 2 for _ in range(n))
        both = better + worse
        found += binom.sf(better - 1, both, 0.5) < 0.05
    assert found / 400 == pytest.approx(0.8, abs=0.08)


def test_more_samples_show_smaller_differences() -> None:
    assert detectable_difference(14042) < detectable_difference(1319) < detectable_difference(164)


def test_no_drop_is_detectable_that_the_exact_test_cannot_prove() -> None:
    """Five lost and none gained is the least of which p is below 0.05."""
    from scipy.stats import binomtest

    for n in (1, 3, 5, 8, 150, 14042):
        lost = detectable_difference(n, 0.5 / n) * n
        assert lost == pytest.approx(5)
        assert binomtest(0, round(lost), alternative="less").pvalue <= 0.05
        assert binomtest(0, round(lost) - 1, alternative="less").pvalue > 0.05
    assert detectable_difference(150, 0.01, alpha=0.001) == pytest.approx(10 / 150)
