"""Min-K% by its formula; the order's p against enumeration, and its size and power in
simulation."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.memorisation import (
    LEAST,
    MOST,
    StretchScores,
    likeness,
    min_k,
    order_test,
    rank,
    rank_sum_p,
    shuffles,
    stretches,
    vocabulary,
)


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=60))
def test_min_k_is_the_mean_of_the_lowest_fifth(logprobs: list[float]) -> None:
    count = max(len(logprobs) // 5, 1)
    assert min_k(logprobs) == pytest.approx(np.sort(logprobs)[:count].mean())


def test_min_k_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        min_k([])


@given(st.integers(0, 10**6), st.one_of(st.none(), st.integers(1, 60)))
def test_stretches_are_neighbours_of_one_group_that_fit(seed: int, room: int | None) -> None:
    rng = random.Random(seed)
    tokens = [rng.randrange(1, 30) for _ in range(rng.randrange(50))]
    groups = sorted(rng.choice("abc") for _ in tokens)
    found = stretches(tokens, groups, room)
    for rows in found:
        assert LEAST <= len(rows) <= MOST
        assert len({groups[i] for i in rows}) == 1
        assert room is None or sum(tokens[i] for i in rows) <= room
    every = [i for rows in found for i in rows]
    assert every == sorted(set(every))
    if room is None:  # whole groups but for what is left over at their ends
        left = [groups.count(name) % MOST for name in set(groups)]
        assert len(tokens) - len(every) == sum(count for count in left if count < LEAST)


def test_shuffles_are_orders_and_the_same_for_the_same_key() -> None:
    drawn = shuffles(4, 5000, "a")
    assert drawn == shuffles(4, 5000, "a")
    assert drawn != shuffles(4, 5000, "b")
    counts = [drawn.count(list(order)) for order in itertools.permutations(range(4))]
    assert sum(counts) == 5000
    assert min(counts) > 5000 / 24 * 0.6


@pytest.mark.parametrize(("stretch_count", "count"), [(1, 9), (3, 3), (4, 2), (2, 19)])
def test_p_is_the_share_of_all_rank_sums_that_are_as_low(stretch_count: int, count: int) -> None:
    sums = [sum(r) for r in itertools.product(range(count + 1), repeat=stretch_count)]
    for total in range(stretch_count * count + 1):
        ranks = [min(count, max(0, total - count * i)) for i in range(stretch_count)]
        expected = sum(one <= total for one in sums) / len(sums)
        assert rank_sum_p(ranks, count) == pytest.approx(expected, rel=1e-12)


def test_ties_count_against_the_published_order() -> None:
    assert rank(1.0, [1.0, 0.5, 2.0]) == 2
    same = StretchScores(4, 10, -5.0, [-5.0] * 9, 0.1, [0.1] * 9)
    found = order_test([same, same])
    assert (found.p, found.p_words, found.beaten, found.gain) == (1.0, 1.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="at least one"):
        order_test([])


def simulated(rng: np.random.Generator, bonus: float) -> float:
    """p of a set of 40 rows whose probability depends on what stands behind what, at random; the
    published neighbours are worth a bonus to a model that knows them."""
    found = []
    for rows in stretches([1] * 40, [""] * 40, None):
        pairs = rng.normal(size=(len(rows), len(rows)))
        pairs[np.arange(len(rows) - 1), np.arange(1, len(rows))] += bonus
        orders = [range(len(rows)), *shuffles(len(rows), 9, str(rng.integers(1 << 60)))]
        sums = [sum(pairs[a, b] for a, b in itertools.pairwise(order)) for order in orders]
        found.append(StretchScores(len(rows), 1, sums[0], sums[1:], 0.0, [0.0] * 9))
    return order_test(found).p


def test_p_is_uniform_where_nothing_is_known_and_small_where_the_order_is() -> None:
    rng = np.random.default_rng(0)
    found = np.array([simulated(rng, 0.0) for _ in range(800)])
    for level in (0.01, 0.05, 0.1, 0.25, 0.5, 0.9):
        error = np.sqrt(level * (1 - level) / len(found))
        assert abs((found <= level).mean() - level) < 4 * error + 0.01, level
    assert np.mean([simulated(rng, 1.5) <= 0.05 for _ in range(100)]) > 0.9


def test_likeness_is_the_mean_of_jaccards_indices() -> None:
    rows = [vocabulary(text) for text in ("a b c", "B c d!", "x")]
    assert likeness(rows, [0, 1, 2]) == pytest.approx((2 / 4 + 0) / 2)
    assert likeness(rows, [0, 2, 1]) == 0.0
