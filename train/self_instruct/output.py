"""The files of a build: samples to train on, what was dropped, a summary, two for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from qwen_eval.fileio import write_atomic

from .review import agreed, judged, observed_by, read_verdicts, write_page, write_sheet
from .rounds import Outcome, Rounds, counts
from .samples import Sample

SAMPLES, DROPPED, SUMMARY = "samples.jsonl", "dropped.jsonl", "summary.json"
PAGE, SHEET = "page.html", "review.csv"


# The turns in which the harness asks a sample's question.
Render = Callable[[Sample], list[tuple[str, str]]]


def write_all(out: Path, rounds: Rounds, render: Render) -> dict[str, Any]:
    """Write everything, as people's verdicts in the sheet have it; the summary is given back.
    Raises UserError for a sheet with faults.
    """
    verdicts = read_verdicts(out / SHEET)
    outcomes = rounds.outcomes
    stays = agreed(outcomes, verdicts)
    _write(out / SAMPLES, (_row(outcome, render) for outcome in stays))
    _write(out / DROPPED, (_dropped(outcome) for outcome in outcomes if not outcome.kept))
    samples = [outcome.sample for outcome in stays if outcome.sample is not None]
    kept = [outcome for outcome in outcomes if outcome.kept]
    summary = {
        "seeds": len(rounds.seeds),
        "drafts": len(outcomes),
        "kept": len(kept),
        "written": len(samples),
        "rounds": {
            str(number): {
                "drafts": sum(o.round == number for o in outcomes),
                "kept": sum(o.round == number for o in kept),
            }
            for number in sorted({outcome.round for outcome in outcomes})
        },
        "dropped": [[*key, count] for key, count in counts(outcomes).most_common()],
        "languages": Counter(sample.language for sample in samples),
        "calls": Counter(str(len(sample.steps)) for sample in samples),
        "observed by": Counter(map(observed_by, samples)),
        "people": [verdict.line() for verdict in judged(outcomes, verdicts)],
        "failed requests": rounds.replies.failed,
    }
    write_atomic(out / SUMMARY, json.dumps(summary, ensure_ascii=False, indent=1) + "\n")
    write_sheet(out / SHEET, outcomes, verdicts)
    write_page(out / PAGE, outcomes, summary)
    return summary


def _row(outcome: Outcome, render: Render) -> dict[str, Any]:
    sample = outcome.sample
    assert sample is not None
    return {
        "messages": [
            {"role": role, "content": content} for role, content in [*render(sample), *sample.turns]
        ],
        "id": sample.id,
        "draft": outcome.id,
        "query": sample.query,
        "tools": list(sample.tools),
        "trace": sample.trace,
        "observed_by": observed_by(sample),
    }


def _dropped(outcome: Outcome) -> dict[str, Any]:
    return {
        "draft": outcome.id,
        "filter": outcome.filter,
        "reason": outcome.reason,
        "like": outcome.like,
        "text": outcome.text,
    }


def _write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
