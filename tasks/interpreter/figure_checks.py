"""What a session has drawn with matplotlib, for checks: bars, lines, points, shares, texts.

Every figure is remembered from here on, closed or not; asked is the last one with something in it.
Subplots are numbered in the order in which they were made.
"""

from __future__ import annotations

from typing import Any

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot  # loaded once, before the clock of a cell runs
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Wedge

_made: list[Figure] = []
_begin: Any = Figure.__init__


def _remember(self: Figure, *arguments: Any, **options: Any) -> None:
    _begin(self, *arguments, **options)
    _made.append(self)


Figure.__init__ = _remember  # type: ignore[method-assign]


def axes() -> list[Any]:
    """The subplots of the figure, those with something in them."""
    for figure in reversed(_made):
        found = [one for one in figure.axes if one.has_data() or one.patches]
        if found:
            return found
    raise AssertionError("no figure was drawn")


def bars(subplot: int = 0) -> list[list[float]]:
    """Lengths of the bars, series by series."""
    found = [box for box in axes()[subplot].containers if isinstance(box, BarContainer)]
    return [
        [p.get_width() if box.orientation == "horizontal" else p.get_height() for p in box]
        for box in found
    ]


def bottoms(subplot: int = 0) -> list[list[float]]:
    """Where the bars begin, series by series."""
    found = [box for box in axes()[subplot].containers if isinstance(box, BarContainer)]
    return [
        [p.get_x() if box.orientation == "horizontal" else p.get_y() for p in box] for box in found
    ]


def horizontal(subplot: int = 0) -> bool:
    """Whether the bars lie."""
    found = [box for box in axes()[subplot].containers if isinstance(box, BarContainer)]
    return bool(found) and all(box.orientation == "horizontal" for box in found)


def errors(subplot: int = 0) -> int:
    """How many series have error bars."""
    return sum(
        isinstance(box, ErrorbarContainer) or getattr(box, "errorbar", None) is not None
        for box in axes()[subplot].containers
    )


def lines(subplot: int = 0) -> list[tuple[list[float], list[float]]]:
    """x and y of the lines of at least two points."""
    found = [
        (line.get_xdata(orig=False), line.get_ydata(orig=False)) for line in axes()[subplot].lines
    ]
    return [(list(map(float, x)), list(map(float, y))) for x, y in found if len(x) > 1]


def points(subplot: int = 0) -> list[tuple[float, float]]:
    """Points of a scatter plot, of lines without a line as well, sorted."""
    plot = axes()[subplot]
    found = [(float(x), float(y)) for box in plot.collections for x, y in box.get_offsets()]
    for line in plot.lines:
        if line.get_linestyle() == "None":
            found += zip(map(float, line.get_xdata()), map(float, line.get_ydata()), strict=True)
    return sorted(found)


def shares(subplot: int = 0) -> list[float]:
    """Shares of a pie's pieces."""
    found = [p for p in axes()[subplot].patches if isinstance(p, Wedge)]
    return [(p.theta2 - p.theta1) / 360 for p in found]


def grid_values(subplot: int = 0) -> list[list[float]]:
    """Values of a heat map's cells, row by row."""
    plot = axes()[subplot]
    for box in [*plot.images, *plot.collections]:
        values = box.get_array()
        if values is not None and values.ndim == 2:
            return [[float(value) for value in row] for row in values]
    raise AssertionError("no heat map was drawn")


def filled(subplot: int = 0) -> int:
    """How many areas are filled between lines."""
    return sum(len(box.get_paths()) for box in axes()[subplot].collections if _is_area(box))


def _is_area(box: Any) -> bool:
    return type(box).__name__ in ("PolyCollection", "FillBetweenPolyCollection")


def ticks(axis: str = "x", subplot: int = 0) -> list[str]:
    """The labels along an axis, x or y."""
    plot = axes()[subplot]
    plot.figure.canvas.draw()
    found = plot.get_xticklabels() if axis == "x" else plot.get_yticklabels()
    return [label.get_text() for label in found]


def texts(subplot: int = 0) -> list[str]:
    """All that is written inside a subplot."""
    return [text.get_text() for text in axes()[subplot].texts]


def legend(subplot: int = 0) -> list[str]:
    """The entries of the legend."""
    found = axes()[subplot].get_legend()
    return [] if found is None else [text.get_text() for text in found.get_texts()]


def title(subplot: int = 0) -> str:
    """The title of a subplot, or of the whole figure where that has one alone."""
    plot = axes()[subplot]
    whole = plot.figure._suptitle
    own = plot.get_title() or plot.get_title("left") or plot.get_title("right")
    return own or (whole.get_text() if whole is not None else "")


def near(found: Any, wanted: Any, tolerance: float = 1e-6) -> bool:
    """Whether nested lists hold the same numbers in the same order."""
    if isinstance(wanted, list | tuple):
        together = zip(found, wanted, strict=False)
        return len(found) == len(wanted) and all(near(a, b, tolerance) for a, b in together)
    return bool(abs(found - wanted) <= tolerance * max(1.0, abs(wanted)))
