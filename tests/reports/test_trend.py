"""The page of a history: every run a point, a line where a change is proven, texts inert."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from qwen_eval.changepoints import Change
from qwen_eval.history import Point
from qwen_eval.reports import charts
from qwen_eval.reports.plain import visible
from qwen_eval.reports.trend import history_page
from qwen_eval.trends import Series
from tests.reports.hostile import HOSTILE
from tests.reports.test_report import ELEMENTS, Reader

POINT = Point(
    "runs/1", "2026-01-01T00:00:00", "m", "f", "float32", 100, 0.5, 0.4, 0.6, "wilson", ()
)


def series(*points: Point, changes: tuple[Change, ...] = (), **fields: str) -> Series:
    key = {"metric": fields.pop("metric", "accuracy")}
    return Series("toy@strict", key, fields.pop("differs", ""), points, changes)


def test_points_stand_in_order_and_higher_is_better() -> None:
    drawn = charts.timeline([(50.0, 40.0, 60.0), None, (70.0, 65.0, 75.0)], width=300, height=100)
    first, none, last = drawn.points
    assert first is not None
    assert last is not None
    assert none is None
    assert (first[0], last[0]) == (50.0, 250.0)
    assert last[1] < first[1], "a higher score lies higher"
    for _, middle, low, high in (first, last):
        assert high < middle < low


def test_every_run_is_a_point_and_a_change_is_a_line() -> None:
    low = replace(POINT, run="runs/2", score=0.3, low=0.2, high=0.4)
    bad = replace(POINT, run="runs/3", invalid=("no_answer 60% > 20%",))
    html = history_page([series(POINT, low, bad, changes=(Change(1, -0.2, 0.004, 100, "t"),))])
    assert html.count("<circle") == 2
    assert html.count('class="ci worse"') == 1
    (place,) = re.findall(r'class="ci worse" x1="([\d.]+)"', html)
    points = [float(x) for x in re.findall(r'<circle class="dot" cx="([\d.]+)"', html)]
    assert points[0] < float(place) < points[1]
    text = Reader(html).text
    assert text.count("▼ −20.0") == 2
    assert "p 0.004" in text
    assert "no_answer 60% > 20%" in text


def test_a_perplexity_is_drawn_as_one() -> None:
    point = replace(POINT, score=-1.0, low=-1.1, high=-0.9)
    assert "2.72" in history_page([series(point, metric="log_likelihood")])


@pytest.mark.parametrize("text", HOSTILE)
def test_names_of_models_and_folders_stay_text(text: str) -> None:
    point = replace(POINT, run=text, model=text, started=text, dtype=text, invalid=(text,))
    html = history_page([replace(series(point, POINT, differs=text), task=text)])
    found = Reader(html)
    assert {tag for tag, _ in found.elements} <= ELEMENTS
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
    assert len(found.raw["script"]) == 1
    assert visible(found.text) == found.text
    html.encode("utf-8")


def test_it_is_there_in_chinese() -> None:
    html = history_page([series(POINT)], language="zh")
    assert '<html lang="zh">' in html
    assert "历史" in html
    assert "History" not in html
