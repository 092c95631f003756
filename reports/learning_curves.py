"""Figures of a training run by step, as one SVG of small charts. Knows nothing of what they mean.

Lengths are CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from xml.sax.saxutils import escape

from .charts import Axis, axis

WIDTH, HEIGHT, LEFT, TOP, GAP = 240.0, 100.0, 46.0, 24.0, 26.0
COLUMNS = 3
POINTS = 160  # of a line; more steps are drawn as means
Points = Sequence[tuple[float, float]]


def curves(rows: Sequence[Mapping[str, float | None]], titles: Mapping[str, str]) -> str:
    """An SVG with a chart for each of `titles` (key of a row to title) that has two finite figures
    or more. rows: of one step each, by `step`."""
    charts = []
    for key, title in titles.items():
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        finite = [(float(x or 0), y) for x, y in points if y is not None and math.isfinite(y)]
        if len(finite) > 1:
            charts.append((title, list(_smoothed(finite))))
    wide = LEFT + WIDTH + GAP
    high = TOP + HEIGHT + GAP
    lines = -(-len(charts) // COLUMNS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {COLUMNS * wide:g} '
        f'{max(1, lines) * high:g}" font-family="sans-serif" font-size="11" fill="#777">'
    ]
    for number, (title, points_of) in enumerate(charts):
        line, column = divmod(number, COLUMNS)
        parts.append(f'<g transform="translate({column * wide + LEFT:g} {line * high + TOP:g})">')
        parts += _chart(title, points_of)
        parts.append("</g>")
    return "".join(parts) + "</svg>\n"


def _smoothed(points: Points) -> Iterator[tuple[float, float]]:
    size = -(-len(points) // POINTS)
    for start in range(0, len(points), size):
        block = points[start : start + size]
        yield block[-1][0], fmean(value for _, value in block)


def _chart(title: str, points: Points) -> Iterator[str]:
    across = Axis(points[0][0], points[-1][0], (points[0][0], points[-1][0]), WIDTH)
    up = axis((value for _, value in points), width=HEIGHT)
    yield f'<text x="{-LEFT + 4:g}" y="-10" font-weight="bold">{escape(title)}</text>'
    for tick in up.ticks:
        y = HEIGHT - up.x(tick)
        yield f'<path d="M0 {y:.1f}H{WIDTH:g}" stroke="#8884"/>'
        yield f'<text x="-6" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
    for step, anchor in zip(across.ticks, ("start", "end"), strict=True):
        x, y = across.x(step), HEIGHT + 14
        yield f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}">{step:g}</text>'
    places = [f"{across.x(step):.1f} {HEIGHT - up.x(value):.1f}" for step, value in points]
    yield f'<path d="M{"L".join(places)}" fill="none" stroke="#2a6fdb" stroke-width="1.6"/>'
