"""Curves stand where their figures say."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from qwen_eval.reports.learning_curves import HEIGHT, WIDTH, curves

SVG = "{http://www.w3.org/2000/svg}"


def lines(svg: str) -> list[list[tuple[float, float]]]:
    """The points of every line drawn in colour."""
    found = []
    for path in ElementTree.fromstring(svg).iter(f"{SVG}path"):
        if path.get("fill") == "none":
            points = re.findall(r"([\d.]+) ([\d.]+)", path.get("d", ""))
            found.append([(float(x), float(y)) for x, y in points])
    return found


def test_a_line_goes_from_the_first_step_to_the_last_on_its_axis() -> None:
    rows = [{"step": float(step), "reward": step / 10, "none": None} for step in range(1, 11)]
    svg = curves(rows, {"reward": "a < b", "none": "nothing", "absent": "nothing"})
    (line,) = lines(svg)
    assert [x for x, _ in line] == pytest.approx([WIDTH * i / 9 for i in range(10)], abs=0.06)
    ys = [y for _, y in line]
    assert ys == sorted(ys, reverse=True), "higher is further up"
    assert 0 <= ys[-1] < ys[0] <= HEIGHT
    steps = [a - b for a, b in pairwise(ys)]
    assert max(steps) - min(steps) < 0.21
    assert "a &lt; b" in svg


def test_what_is_missing_leaves_a_shorter_line_and_many_steps_are_means() -> None:
    rows: list[dict[str, float | None]] = [
        {"step": 1.0, "x": None},
        {"step": 2.0, "x": 1.0},
        {"step": 3.0, "x": math.nan},
        {"step": 4.0, "x": 3.0},
    ]
    (line,) = lines(curves(rows, {"x": "x"}))
    assert line == [(0.0, HEIGHT), (WIDTH, 0.0)]
    many = [{"step": float(step), "x": float(step % 2)} for step in range(1, 1001)]
    (line,) = lines(curves(many, {"x": "x"}))
    assert 100 < len(line) <= 160
    assert curves([], {"x": "x"}).startswith("<svg")
