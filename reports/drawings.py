"""From a report's findings to the places and colours of its charts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from . import charts, figures
from .view import Report, Score

CHANGE = 50.0  # points of difference that get the full colour
SHORTEST = 64  # tokens of context that a group may stand for
_WHOLE = re.compile("[1-9][0-9]{0,8}")


def scores_of(report: Report, task: str) -> list[Score]:
    """A task's score in every run that has it."""
    return [run.scores[task] for run in report.runs if task in run.scores]


def scale(report: Report, task: str, published: Sequence[float]) -> charts.Axis:
    """An axis for a task's scores and what was published for it."""
    values = list(published)
    for score in scores_of(report, task):
        if score.overall and not score.invalid:
            values += figures.ends(score.overall, figures.unit_of(score.info.metric))
    return charts.axis(values)


def forest(report: Report) -> charts.Axis:
    """One axis for all differences, in points."""
    compared = [one.paired for pair in report.pairs for one in pair.sound]
    return charts.even(100 * bound for paired in compared for bound in (paired.low, paired.high))


@dataclass(frozen=True)
class ByLength:
    """A line per run, the runs in the same order."""

    labels: tuple[str, ...]
    chart: charts.Curves


def by_length(report: Report, task: str) -> ByLength | None:
    """Where a task's groups are lengths, three or more."""
    lines: dict[str, list[charts.Point]] = {}
    for run in report.runs:
        score = run.scores.get(task)
        if score is None or score.invalid or not _are_lengths(score):
            continue
        unit = figures.unit_of(score.info.metric)
        lines[run.label] = [
            (float(name), figures.scaled(one.estimate, unit), *figures.ends(one, unit))
            for name, one in sorted(score.groups.items(), key=lambda pair: int(pair[0]))
        ]
    return ByLength(tuple(lines), charts.curves(list(lines.values()))) if lines else None


def _are_lengths(score: Score) -> bool:
    """Whole numbers that at least double: not levels, nor years."""
    if len(score.groups) < 3 or not all(map(_WHOLE.fullmatch, score.groups)):
        return False
    lengths = sorted(map(int, score.groups))
    return lengths[0] >= SHORTEST and lengths[-1] >= 2 * lengths[0]


@dataclass(frozen=True)
class Subject:
    """A subject: percent in every run, and points of the others against the first one, each with
    its colour; None where a run does not say."""

    name: str
    n: int
    scores: list[tuple[float | None, int]]
    differences: list[tuple[float | None, int]]


def by_subject(report: Report, task: str) -> list[list[Subject]]:
    """The heat map's rows in columns of one height; none where there are fewer than two subjects,
    or where groups are lengths or scores no percentages."""
    scores = [score for score in scores_of(report, task) if not score.invalid]
    names = list(dict.fromkeys(name for score in scores for name in score.groups))
    if len(names) < 2 or any(
        _are_lengths(score) or figures.unit_of(score.info.metric) != "percent" for score in scores
    ):
        return []
    known = [100 * one.estimate for score in scores for one in score.groups.values()]
    low, high = min(known), max(known)
    rows = []
    for name in names:
        found = [run.scores.get(task) for run in report.runs]
        there = [s.groups.get(name) if s and not s.invalid else None for s in found]
        values = [None if one is None else 100 * one.estimate for one in there]
        first = values[0]
        gaps = [None if v is None or first is None else v - first for v in values[1:]]
        rows.append(
            Subject(
                name,
                max(one.n for one in there if one),
                [(v, 0 if v is None else charts.heat(v, low, high)) for v in values],
                [(v, 5 if v is None else charts.heat(v, -CHANGE, CHANGE)) for v in gaps],
            )
        )
    height = -(-len(rows) // (3 if len(report.runs) == 1 else 2))
    return [rows[i : i + height] for i in range(0, len(rows), height)]
