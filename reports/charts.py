"""Where things stand in a chart: numbers in, positions out. The templates draw them.

Knows nothing of runs or languages. Lengths are CSS pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

WIDTH = 300.0


@dataclass(frozen=True)
class Axis:
    """A line from `low` to `high` over `width` pixels, with round tick marks."""

    low: float
    high: float
    ticks: tuple[float, ...]
    width: float = WIDTH

    def x(self, value: float) -> float:
        """Position of a value; what lies outside stands at the end."""
        share = (value - self.low) / (self.high - self.low)
        return round(self.width * min(max(share, 0.0), 1.0), 1)


def axis(values: Iterable[float], *, width: float = WIDTH) -> Axis:
    """An axis that holds every finite value, about five ticks on round figures."""
    finite = [value for value in values if abs(value) < 1e300]
    low, high = min(finite, default=0.0), max(finite, default=1.0)
    if high - low < 1e-9:
        low, high = low - 1.0, high + 1.0
    step = _round_step((high - low) / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(step * i, 10) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks, width)


def even(values: Iterable[float]) -> Axis:
    """An axis with zero in its middle, for differences."""
    most = max((abs(v) for v in values if abs(v) < 1e300), default=1.0)
    return axis((-most, most))


@dataclass(frozen=True)
class LogAxis(Axis):
    """The same by logarithm; all values above zero."""

    def x(self, value: float) -> float:
        """Position of a value; what lies outside stands at the end."""
        inner = min(max(value, self.low), self.high)
        share = math.log(inner / self.low) / math.log(self.high / self.low)
        return round(self.width * share, 1)


def log_axis(values: Iterable[float], *, width: float = WIDTH) -> LogAxis:
    """An axis that holds every finite value above zero. Ticks are powers of ten where there are
    many, else 1, 2 and 5 of each, else round figures one step apart; they lie within."""
    finite = [value for value in values if 0 < value < 1e300]
    low, high = min(finite, default=1.0), max(finite, default=10.0)
    if high < 1.001 * low:
        low, high = low / 1.05, high * 1.05
    margin = (high / low) ** 0.04
    low, high = low / margin, high * margin
    powers = [10.0**i for i in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))]
    fine = [power * nice for power in powers for nice in (1, 2, 5)]
    step = _round_step((high - low) / 6)
    steps = [step * i for i in range(math.floor(low / step), math.ceil(high / step) + 1)]
    for marks in (powers, fine, steps):
        within = tuple(round(mark, 10) for mark in marks if low <= mark <= high)
        if len(within) >= 3:
            return LogAxis(low, high, within, width)
    return LogAxis(low, high, within, width)


def apart(places: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places moved as little as is needed for labels to stand so far from one another, between
    two bounds as long as there is room; their order stays."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    found = [0.0] * len(places)
    least = low
    for i in order:
        found[i] = max(places[i], least)
        least = found[i] + gap
    most = high
    for i in reversed(order):
        found[i] = min(found[i], most)
        most = found[i] - gap
    return [round(place, 1) for place in found]


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * (1 - 1e-9))


@dataclass(frozen=True)
class Segment:
    """A part of a bar: what it is, how much of the whole, and where."""

    name: str
    share: float
    x: float
    width: float


def stacked(parts: Sequence[tuple[str, float]], *, width: float = WIDTH) -> list[Segment]:
    """The parts of a whole beside one another; empty ones are left out."""
    total = math.fsum(amount for _, amount in parts)
    found, at = [], 0.0
    for name, amount in parts:
        if amount > 0:
            share = amount / total
            found.append(Segment(name, share, round(at * width, 1), round(share * width, 1)))
            at += share
    return found


def heat(value: float, low: float, high: float) -> int:
    """A step of a colour scale, 0 to 10."""
    if high <= low:
        return 5
    return round(10 * min(max((value - low) / (high - low), 0.0), 1.0))


@dataclass(frozen=True)
class Curve:
    """A line through points with their band: both as SVG point lists, and the points alone."""

    line: str
    band: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Curves:
    """Several lines over one logarithmic axis of lengths."""

    curves: tuple[Curve, ...]
    across: tuple[tuple[float, float], ...]
    up: tuple[tuple[float, float], ...]
    width: float
    height: float


Point = tuple[float, float, float, float]
"""Length, estimate, and the ends of its interval."""


def curves(lines: Sequence[Sequence[Point]], width: float = 640.0, height: float = 240.0) -> Curves:
    """Lengths from left to right by their logarithm, estimates upwards."""
    lengths = sorted({point[0] for line in lines for point in line})
    first, span = math.log2(lengths[0]), math.log2(lengths[-1]) - math.log2(lengths[0]) or 1.0
    side = axis((v for line in lines for p in line for v in p[1:]), width=height)

    def place(length: float, value: float) -> tuple[float, float]:
        return round(width * (math.log2(length) - first) / span, 1), round(
            height - side.x(value), 1
        )

    found = []
    for line in lines:
        points = tuple(place(length, value) for length, value, _, _ in line)
        upper = [place(length, high) for length, _, _, high in line]
        lower = [place(length, low) for length, _, low, _ in reversed(line)]
        found.append(Curve(_svg(points), _svg([*upper, *lower]), points))
    return Curves(
        tuple(found),
        tuple((length, place(length, 0.0)[0]) for length in lengths),
        tuple((tick, round(height - side.x(tick), 1)) for tick in side.ticks),
        width,
        height,
    )


def _svg(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


@dataclass(frozen=True)
class Timeline:
    """Points one after another from left to right: each with its place and the ends of its
    interval, None where there is nothing to show."""

    points: tuple[tuple[float, float, float, float] | None, ...]
    up: tuple[tuple[float, float], ...]
    step: float
    width: float
    height: float


def timeline(
    points: Sequence[tuple[float, float, float] | None], width: float = 760.0, height: float = 170.0
) -> Timeline:
    """Points are (middle, low, high); the distance between two is the same whatever the time."""
    side = axis((v for point in points if point for v in point), width=height)
    step = width / max(len(points), 1)

    def placed(i: int, point: tuple[float, float, float] | None) -> Any:
        if point is None:
            return None
        return round(step * (i + 0.5), 1), *(round(height - side.x(value), 1) for value in point)

    return Timeline(
        tuple(placed(i, point) for i, point in enumerate(points)),
        tuple((tick, round(height - side.x(tick), 1)) for tick in side.ticks),
        step,
        width,
        height,
    )
