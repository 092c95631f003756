"""Positions in a chart: inside it, in order, and where a ruler would put them."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.reports import charts

FIGURES = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(FIGURES, min_size=1, max_size=20))
def test_an_axis_holds_every_value_on_few_round_ticks(values: list[float]) -> None:
    axis = charts.axis(values)
    assert axis.low <= min(values) + 1e-6
    assert axis.high >= max(values) - 1e-6
    assert 2 <= len(axis.ticks) <= 8
    places = [axis.x(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= axis.width for place in places)
    step = axis.ticks[1] - axis.ticks[0]
    lead = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert min(abs(lead - nice) for nice in (1, 2, 5, 10)) < 1e-3


def test_ticks_as_a_person_would_set_them() -> None:
    assert charts.axis([3, 97]).ticks == (0, 50, 100)
    assert charts.axis([31.2, 38.4]).ticks == (30, 32, 34, 36, 38, 40)
    assert charts.even([-2.9, 1.4]).x(0) == charts.WIDTH / 2


def test_what_is_not_finite_takes_no_place() -> None:
    axis = charts.axis([1.0, 2.0, 1e308, -math.inf])
    assert (axis.low, axis.high) == (1.0, 2.0)
    assert charts.axis([]).ticks


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 10_000)), max_size=6))
def test_a_bar_is_full_and_has_no_gaps(parts: list[tuple[str, float]]) -> None:
    segments = charts.stacked(parts)
    if not any(amount for _, amount in parts):
        assert not segments
        return
    assert math.fsum(part.share for part in segments) == pytest.approx(1.0)
    for before, after in pairwise(segments):
        assert before.x + before.width == pytest.approx(after.x, abs=0.15)
    assert segments[-1].x + segments[-1].width == pytest.approx(charts.WIDTH, abs=0.3)


def test_heat_runs_from_end_to_end() -> None:
    assert [charts.heat(v, 20, 60) for v in (0, 20, 40, 60, 90)] == [0, 0, 5, 10, 10]
    assert charts.heat(3, 3, 3) == 5
    assert [charts.heat(v, 0, 1) for v in (0.34, 0.36)] == [3, 4], "to the nearest"


def test_curves_double_in_equal_steps_and_rise_upwards() -> None:
    line = [(1024.0, 4.2, 4.0, 4.4), (2048.0, 3.8, 3.7, 3.9), (4096.0, 39.0, 30.0, 45.0)]
    drawn = charts.curves([line], width=400, height=200)
    assert [x for _, x in drawn.across] == [0, 200, 400]
    (curve,) = drawn.curves
    heights = [y for _, y in curve.points]
    assert heights[1] > heights[0] > heights[2], "a larger value lies higher"
    assert curve.band.count(",") == 6
    assert charts.curves([line[:1]]).across == ((1024.0, 0.0),)
