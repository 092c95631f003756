"""Every sample of the runs for the sample browser: compact, packed, the same bytes for the same
input. The page unpacks it by itself (templates/browser.js), since a page opened from disk can fetch
nothing.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from typing import Any

from qwen_eval.results import Run, SampleRecord

from .flips import shorten, written_by
from .outcome import OUTCOMES, are_shares, outcome
from .plain import visible

LETTERS = 4000  # of a text
PREFIX_LETTERS = 20_000
INLINE_BYTES = 400_000  # a larger set is a page of its own


def pack(runs: Sequence[Run], labels: Sequence[str]) -> tuple[int, str]:
    """How many samples, and base64 of gzip of JSON: tasks, runs, outcomes, prefixes, and per sample
    [task, id, group, target, prefix, text, result of each run or null]; a result is
    [value, outcome, answer, reply, margin or null]."""
    prefixes = {key: text for run in runs for key, text in run.prefixes.items()}
    tasks = list(dict.fromkeys(task for run in runs for task in run.info.tasks))
    used: dict[str, int] = {}
    rows: dict[tuple[str, str], list[Any]] = {}
    for place, run in enumerate(runs):
        metrics = {task: info.metric for task, info in run.info.tasks.items()}
        plain = {
            task for task, metric in metrics.items() if are_shares(run.of(task).values(), metric)
        }
        for record in run.samples:
            key = record.task, record.id
            if key not in rows:
                prefix = used.setdefault(record.prefix, len(used))
                known = [tasks.index(record.task), record.id, record.group, record.target]
                rows[key] = [*map(_clean, known), prefix, _clean(record.text), [None] * len(runs)]
            rows[key][-1][place] = _result(record, metrics[record.task], record.task in plain)
    data = {
        "tasks": list(map(_clean, tasks)),
        "runs": list(map(_clean, labels)),
        "outcomes": OUTCOMES,
        "prefixes": [_clean(prefixes.get(key, ""), PREFIX_LETTERS) for key in used],
        "samples": list(rows.values()),
    }
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    squeezed = gzip.compress(text.encode(), compresslevel=6, mtime=0)
    return len(rows), base64.b64encode(squeezed).decode()


def _result(record: SampleRecord, metric: str, share: bool) -> list[Any]:
    return [
        record.values.get(metric, 0.0),
        OUTCOMES.index(outcome(record, metric, share=share)),
        _clean(record.answer if record.error is None else record.error),
        _clean(written_by(record)),
        record.detail.get("margin"),
    ]


def _clean(value: Any, most: int = LETTERS) -> Any:
    return visible(shorten(value, most)) if isinstance(value, str) else value
