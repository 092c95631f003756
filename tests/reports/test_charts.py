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


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=12))
def test_a_logarithmic_axis_holds_every_value_and_equal_ratios_are_equal_steps(
    values: list[float],
) -> None:
    scale = charts.log_axis(values, width=1e6)
    assert scale.low <= min(values)
    assert scale.high >= max(values)
    assert len(scale.ticks) <= 12
    assert all(scale.low <= tick <= scale.high for tick in scale.ticks)
    middle = math.sqrt(scale.low * scale.high)
    assert scale.x(middle) == pytest.approx(5e5, abs=1)


def test_logarithmic_ticks_as_a_person_would_set_them() -> None:
    assert charts.log_axis([3.5, 2600]).ticks == (10, 100, 1000)
    assert charts.log_axis([28, 650]).ticks == (50, 100, 200, 500)
    assert charts.log_axis([49.4, 57.4]).ticks == (50, 52, 54, 56)
    assert charts.log_axis([8.0, 1e308, 64.0]).high < 100


@given(st.lists(st.floats(0, 200), min_size=1, max_size=6))
def test_labels_stand_apart_in_their_order(places: list[float]) -> None:
    moved = charts.apart(places, 14.0, 0.0, 220.0)
    order = sorted(range(len(places)), key=lambda i: places[i])
    for before, after in pairwise(order):
        assert moved[after] - moved[before] >= 13.8
    assert all(-0.1 <= place <= 220.1 for place in moved)
    if all(places[b] - places[a] >= 14 for a, b in pairwise(order)):
        assert moved == pytest.approx(places, abs=0.06)
