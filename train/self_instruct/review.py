"""What was kept and dropped, for people: a page to read, a sheet to judge, and what the judgements
change.

On the sheet a person writes `right` or `wrong` behind a decision. At the next start a kept sample
whose decision is wrong goes, and a dropped one stays if it came to its end. Verdicts that were
given survive every start.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwen_eval.fileio import text_hash, write_atomic

from ..data.review import Judged, cell, read_sheet, tally
from .rounds import Outcome, counts
from .samples import Sample

COLUMNS = ("id", "decision", "filter", "reason", "text", "like", "verdict")
# Of every reason on the sheet, and on the page.
ON_SHEET, ON_PAGE = 20, 3
SHOWN = 3000


def read_verdicts(path: Path) -> dict[str, str]:
    """The verdicts of a sheet by draft; none where there is no sheet. Raises UserError as
    read_sheet does."""
    if not path.exists():
        return {}
    return {row["id"]: verdict for row, verdict in read_sheet(path, COLUMNS) if verdict}


def agreed(outcomes: Sequence[Outcome], verdicts: Mapping[str, str]) -> list[Outcome]:
    """Those that stay once people have spoken."""
    return [
        outcome
        for outcome in outcomes
        if outcome.sample is not None and outcome.kept is (verdicts.get(outcome.id) != "wrong")
    ]


def judged(outcomes: Sequence[Outcome], verdicts: Mapping[str, str]) -> list[Judged]:
    """How many decisions of every filter people found right."""
    found = tally(((o.filter or "all", _decision(o)), verdicts.get(o.id, "")) for o in outcomes)
    return [each for each in found if each.judged]


def write_sheet(path: Path, outcomes: Sequence[Outcome], verdicts: Mapping[str, str]) -> None:
    """All that was kept, and of every reason some that were dropped."""
    shown = {o.id for o in outcomes if o.kept or o.id in verdicts}
    for key in counts(outcomes):
        shown |= {o.id for o in _drawn(outcomes, key, ON_SHEET)}
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for o in outcomes:
        if o.id in shown:
            cells = [o.id, _decision(o), o.filter, o.reason, cell(o.text[:SHOWN]), cell(o.like)]
            writer.writerow([*cells, verdicts.get(o.id, "")])
    write_atomic(path, text.getvalue())


def write_page(path: Path, outcomes: Sequence[Outcome], summary: Mapping[str, Any]) -> None:
    """One HTML file that asks nobody for anything. Text of samples is escaped and shown."""
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("qwen_eval.train.self_instruct", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    reasons = [
        {"filter": key[0], "reason": key[1], "count": count, "samples": _drawn(outcomes, key)}
        for key, count in counts(outcomes).most_common()
    ]
    kept = [outcome for outcome in outcomes if outcome.kept]
    page = environment.get_template("page.html").render(
        summary=summary, reasons=reasons, kept=kept[:50], shown=SHOWN
    )
    write_atomic(path, page)


def _drawn(
    outcomes: Sequence[Outcome], key: tuple[str, str], count: int = ON_PAGE
) -> list[Outcome]:
    mine = [o for o in outcomes if not o.kept and (o.filter, o.reason) == key]
    return heapq.nsmallest(count, mine, key=lambda o: text_hash(o.id))


def _decision(outcome: Outcome) -> str:
    return "kept" if outcome.kept else "dropped"


def observed_by(sample: Sample) -> str:
    """`program` where all that tools returned is true, `model` where a model played one, `nobody`
    where none was called."""
    if not sample.steps:
        return "nobody"
    return "program" if all(step.run for step in sample.steps) else "model"
