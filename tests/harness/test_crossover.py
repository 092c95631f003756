"""The crossover against an isotonic fit and against pieces counted one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.crossover import crossover

SAVINGS = st.lists(st.integers(-5, 5), min_size=1, max_size=9)


def pooled(values: list[float]) -> list[float]:
    """The never-falling least-squares fit, by pooling neighbours that are out of order."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) >= np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    return [float(np.mean(block)) for block in blocks for _ in block]


@given(SAVINGS)
def test_it_is_where_the_isotonic_fit_begins_to_be_above_zero(savings: list[int]) -> None:
    starts = [10 * i for i in range(len(savings))]
    fit = pooled([float(s) for s in savings])
    above = next((start for start, value in zip(starts, fit, strict=True) if value > 1e-9), None)
    assert crossover(starts, [savings]).position == above


@given(SAVINGS)
def test_every_piece_from_there_saves_and_every_piece_up_to_there_costs(savings: list[int]) -> None:
    starts = list(range(len(savings)))
    at = crossover(starts, [savings]).position
    end = len(savings) if at is None else at
    assert all(sum(savings[end:stop]) > 0 for stop in range(end + 1, len(savings) + 1))
    assert all(sum(savings[begin:end]) <= 0 for begin in range(end))


def test_the_interval_holds_the_true_place_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    starts = [0, 100, 200, 300, 400, 500]
    truth = np.array([-1.0, -1.0, -0.5, 0.5, 1.0, 1.0])
    held = 0
    for _ in range(80):
        found = crossover(starts, (truth + random.normal(0, 3, (30, 6))).tolist())
        assert found.never is not None
        low = np.inf if found.low is None else found.low
        high = np.inf if found.high is None else found.high
        held += low <= 300 <= high
    assert held >= 0.93 * 80


def test_none_is_an_answer() -> None:
    found = crossover([0, 8], [[-1.0, -2.0], [-1.5, -1.0], [-1.0, -1.0]])
    assert (found.position, found.low, found.high, found.never) == (None, None, None, 1.0)
    same = crossover([0, 8], [[0.0, 0.0]] * 3)
    assert same.position is None, "what makes no difference is no gain"
    mixed = crossover([0, 8], [[1.0, 2.0], [1.0, 2.0], [-4.0, -3.0]])
    assert mixed.low == 0
    assert mixed.high is None
    assert mixed.never is not None
    assert 0.2 < mixed.never < 0.8


def test_one_text_has_no_interval_and_no_text_no_answer() -> None:
    found = crossover([0, 8], [[-1.0, 2.0]])
    assert (found.position, found.low, found.high, found.never, found.texts) == (
        8,
        None,
        None,
        None,
        1,
    )
    with pytest.raises(ValueError, match="at least one text"):
        crossover([0], [])


def test_the_same_texts_give_the_same_interval() -> None:
    savings = np.random.default_rng(3).normal(0.1, 1, (12, 5)).tolist()
    assert crossover(range(5), savings) == crossover(range(5), savings)
