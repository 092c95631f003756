"""The shape of the paper's Figure 4 as one self-contained SVG: win, tie and lose of each system by
category and on average, with the interval of the net preference, and the paper's own bars beside.

The paper's are of other models on other instructions, and it gives no intervals: they are drawn
paler under a head that says so. The same findings give the same bytes. Lengths are CSS pixels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from qwen_eval.errors import UserError
from qwen_eval.paper import published

from ..analysis.shares import Shares
from .findings import Findings
from .words import fitted, percent, points

Language = Literal["en", "zh"]
Say = Callable[..., str]

TEMPLATES = Path(__file__).parent / "templates"
TASK = "human300"
# A study's categories in the paper's order, each with its key and its title there.
PUBLISHED = {
    "knowledge": ("knowledge", "Knowledge"),
    "understanding": ("language_understanding", "Language understanding"),
    "writing": ("creative_writing", "Creative writing"),
    "mathematics": ("math", "Math"),
    "coding": ("coding", "Coding"),
}
OURS, THEIRS, NET = 240.0, 210.0, 130.0  # widths of a bar of ours, of the paper's, of the axis
ROW, HEAD = 22, 30  # heights of a bar with its gap, of a panel's title
LEGIBLE = 28.0  # the narrowest part of a bar that holds its figure


@dataclass(frozen=True)
class Part:
    """Of a bar: win, tie or lose, from where, how wide, and its figure where that fits."""

    kind: str
    x: float
    width: float
    figure: str


@dataclass(frozen=True)
class Bar:
    """`told`: what it shows, in words. `net`: in points, with its interval where it has one, which
    is drawn from `low` to `high` around `middle`. `sure`: whether it is proven."""

    label: str
    told: str
    parts: tuple[Part, ...]
    net: str
    count: str = ""
    interval: tuple[float, float, float] | None = None
    sure: bool = False
    few: bool = False


@dataclass(frozen=True)
class Panel:
    """A category, or all: the study's bars, and the paper's where it has the category."""

    title: str
    y: int
    ours: tuple[Bar, ...]
    theirs: tuple[Bar, ...]


def figure4(found: Findings, *, language: Language = "en") -> str:
    """The SVG. Raises UserError for findings without a baseline, which have no wins or losses."""
    if not found.shares:
        raise UserError("a figure of wins and losses needs a baseline, the study has none")
    say, most = _speaker(language), _reach(found.shares)
    panels: list[Panel] = []
    y = 0
    for category in _categories(found.shares):
        ours = [_ours(one, found, most, say) for one in found.shares if one.category == category]
        theirs = _theirs(category, say)
        panels.append(Panel(_title(category, say), y, tuple(ours), theirs))
        y += HEAD + ROW * max(len(ours), len(theirs))
    known = {
        "title": say("Human preference against %(name)s", name=fitted(str(found.baseline), 60)),
        "level": f"{100 * (1 - found.alpha):g}%",
        "panels": panels,
        "tall": y,
        "reach": f"{100 * most:g}",
        "counts": say(
            "%(votes)s votes on %(items)s instructions by %(annotators)s annotators",
            votes=f"{found.votes:,}",
            items=f"{found.items:,}",
            annotators=f"{found.annotators:,}",
        ),
        "few": any(bar.few for panel in panels for bar in panel.ours),
        "sizes": {"ours": OURS, "theirs": THEIRS, "net": NET, "row": ROW, "head": HEAD},
    }
    return _environment(language).get_template("figure4.svg").render(known)


def _categories(found: Sequence[Shares]) -> list[str | None]:
    """All of them first, then in the paper's order, then those that it does not have."""
    there = {one.category for one in found if one.category is not None}
    return [None, *(c for c in PUBLISHED if c in there), *sorted(there - PUBLISHED.keys())]


def _title(category: str | None, say: Say) -> str:
    if category is None:
        return say("Average")
    return say(PUBLISHED[category][1]) if category in PUBLISHED else fitted(category, 60)


def _reach(found: Sequence[Shares]) -> float:
    """How far the axis of net preference goes to each side: 0.2, 0.4, up to 1."""
    most = max(max(-one.net.low, one.net.high, abs(one.net.delta)) for one in found)
    return min(0.2 * -(-most // 0.2), 1.0) or 0.2


def _ours(one: Shares, found: Findings, most: float, say: Say) -> Bar:
    net = one.net
    p = one.p_adjusted
    if one.category is None:
        p = next(verdict.p for verdict in found.verdicts if verdict.system == one.system)
    interval = f"[{points(net.low)}, {points(net.high)}]"
    values = (one.win.value, one.tie.value, one.lose.value)
    low, middle, high = (
        round(NET / 2 * (1 + end / most), 1) for end in (net.low, net.delta, net.high)
    )
    return Bar(
        label=fitted(one.system, 24),
        told=_told(one.system, values, say),
        parts=_parts(values, OURS),
        net=f"{points(net.delta)} {interval}",
        count=f"{one.items:,} · {one.votes:,}",
        interval=(low, middle, high),
        sure=p <= found.alpha and net.low * net.high > 0,
        few=one.few,
    )


def _theirs(category: str | None, say: Say) -> tuple[Bar, ...]:
    if category is not None and category not in PUBLISHED:
        return ()
    by_model: dict[str, dict[str, float]] = {}
    for figure in published(TASK, PUBLISHED[category][0] if category else None):
        by_model.setdefault(figure.model, {})[figure.metric] = figure.value / 100
    return tuple(
        Bar(
            label=fitted(model, 20),
            told=_told(model, values, say),
            parts=_parts(values, THEIRS),
            net=points(values[0] - values[2]),
        )
        for model, by_metric in by_model.items()
        if (values := (by_metric["win"], by_metric["tie"], by_metric["loss"]))
    )


def _told(name: str, values: Sequence[float], say: Say) -> str:
    parts = zip(("win", "tie", "lose"), values, strict=True)
    return f"{fitted(name, 60)}: " + ", ".join(f"{say(k)} {percent(v)}%" for k, v in parts)


def _parts(values: Sequence[float], width: float) -> tuple[Part, ...]:
    """The figures of a bar: its whole width is a hundred percent, whatever rounding left of it."""
    found, at = [], 0.0
    for kind, value in zip(("win", "tie", "lose"), values, strict=True):
        wide = width * value / sum(values)
        found.append(
            Part(kind, round(at, 2), round(wide, 2), percent(value) if wide >= LEGIBLE else "")
        )
        at += wide
    return tuple(found)


@lru_cache
def _speaker(language: Language) -> Say:
    path = TEMPLATES / f"{language}.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def say(text: str, **values: Any) -> str:
        told = str(known.get(text, text))
        return told % values if values else told

    return say


@lru_cache
def _environment(language: Language) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"_": _speaker(language), "language": language}
    return environment
