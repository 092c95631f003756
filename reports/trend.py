"""Scores over many runs as a page: a row of points per series, with the changes proven."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_eval.history import Point
from qwen_eval.trends import Series

from . import charts, figures
from .render import Language, written


def history_page(series: Sequence[Series], *, language: Language = "en") -> str:
    """Self-contained HTML, like a report."""
    drawings = [
        charts.timeline([_placed(p, figures.unit_of(one.key["metric"])) for p in one.points])
        for one in series
    ]
    known = {"series": series, "drawings": drawings}
    return written(language, "history.html", known)


def _placed(point: Point, unit: figures.Unit) -> tuple[float, float, float] | None:
    if point.invalid or point.score is None or point.low is None or point.high is None:
        return None
    low, high = sorted((figures.scaled(point.low, unit), figures.scaled(point.high, unit)))
    return figures.scaled(point.score, unit), low, high
