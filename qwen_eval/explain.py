"""All that two runs say of one item, as plain data: what was asked, what each answered, whether
that changed, and what a gate makes of it. reports/item.py puts it into words.
"""

from __future__ import annotations

import difflib
import math
from datetime import date
from typing import Any

from qwen_eval.compare import in_noise, joined, noise_between
from qwen_eval.errors import UserError
from qwen_eval.measures import value_of, weights_of
from qwen_eval.noise import Noise
from qwen_eval.results import Run, SampleRecord
from qwen_eval.rules import Rules

SCHEMA = 1
SHOWN = 5  # ids that an error lists


def explain(
    item: str,
    baseline: Run,
    candidate: Run,
    *,
    today: date,
    rules: Rules | None = None,
    noise: Noise | None = None,
) -> dict[str, Any]:
    """An item by its id or a beginning of it, once for every recipe that asked it.

    Raises UserError, with ids that could be meant, where no item or several begin so.
    """
    known = list(dict.fromkeys(r.id for run in (baseline, candidate) for r in run.samples))
    found = [name for name in known if name.startswith(item)]
    if item in known:
        found = [item]
    if len(found) != 1:
        raise UserError(_not_one(item, found, known))
    runs = (baseline, candidate)
    asked = dict.fromkeys(r.task for run in runs for r in run.samples if r.id == found[0])
    return {
        "schema": SCHEMA,
        "item": found[0],
        "baseline": str(baseline.folder),
        "candidate": str(candidate.folder),
        "tasks": [
            {"task": task}
            | _asked(task, found[0], *runs)
            | _judged(task, found[0], *runs, rules.held(today) if rules else set())
            | {"unsteady": _unsteady(task, found[0], noise)}
            | {"quarantine": _quarantine(task, found[0], rules, today)}
            for task in asked
        ],
    }


def _asked(task: str, item: str, baseline: Run, candidate: Run) -> dict[str, Any]:
    """The question and both answers; None for a run that has not the item."""
    records = [run.of(task).get(item) for run in (baseline, candidate)]
    run, record = next((run, r) for run, r in zip((baseline, candidate), records, strict=True) if r)
    return {
        "group": record.group,
        "metric": run.info.tasks[task].metric,
        "prefix": run.prefixes.get(record.prefix, ""),
        "prompt": record.text,
        "target": record.target,
        "answers": dict(zip(("baseline", "candidate"), map(_answer, records), strict=True)),
    }


def _answer(record: SampleRecord | None) -> dict[str, Any] | None:
    if record is None:
        return None
    kept = ("status", "values", "answer", "error", "responses")
    return {key: getattr(record, key) for key in kept} | {"margin": record.detail.get("margin")}


def _judged(
    task: str, item: str, baseline: Run, candidate: Run, held: set[tuple[str, str]]
) -> dict[str, Any]:
    """`flipped`, `in_noise`: None where it has not a score in both runs. `weight`: its share of
    the score over the items that have one and are not `held`; 0 where it is not among these."""
    scored = {a.id: (a, b) for a, b in joined(task, baseline, candidate) if a.counted and b.counted}
    if item not in scored:
        return {"flipped": None, "in_noise": None, "weight": 0.0}
    metric = baseline.info.tasks[task].metric
    before, after = scored[item]
    counted = [pair[0] for id_, pair in scored.items() if (task, id_) not in held]
    weights = weights_of(metric, counted) or [1.0] * len(counted)
    own = [w for record, w in zip(counted, weights, strict=True) if record.id == item]
    return {
        "flipped": value_of(metric, before) != value_of(metric, after),
        "in_noise": in_noise(before, after, noise_between(baseline, candidate)),
        "weight": own[0] / math.fsum(weights) if own else 0.0,
    }


def _unsteady(task: str, item: str, noise: Noise | None) -> dict[str, int] | None:
    """How many of the A/A runs differ from the rest on the item; None where there are none."""
    if noise is None or task not in noise.tasks:
        return None
    return {"changed": noise.tasks[task].unsteady.get(item, 0), "runs": noise.runs}


def _quarantine(task: str, item: str, rules: Rules | None, today: date) -> list[dict[str, Any]]:
    return [
        {"until": str(q.until), "reason": q.reason, "over": q.until < today}
        for q in (rules.quarantine if rules else ())
        if (q.recipe, q.item) == (task, item)
    ]


def _not_one(item: str, found: list[str], known: list[str]) -> str:
    if found:
        more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        return f"{item}: {len(found)} items begin so: {', '.join(found[:SHOWN])}{more}"
    near = difflib.get_close_matches(item, known, SHOWN, 0.3) or known[:SHOWN]
    return f"{item}: no item begins so; there are {', '.join(near)}"
