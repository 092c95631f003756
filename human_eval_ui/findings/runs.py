"""Votes as run directories, which `qwen-eval report`, `compare`, `gate` and `history` read.

One run per system that was compared with the baseline, one sample per item: its net preference is
the mean outcome of its votes, from -1 (all lost) to 1, and it weighs as much as it has votes, so
that the run's score is the net preference over all votes. The category is the sample's group. What
annotators read is not in votes: a sample's text is the name of its item. Knows nothing of how
surely a system is preferred; the interval of a run's score is of the ratio over items.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from qwen_eval import __version__
from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, text_hash
from qwen_eval.metrics import summarise
from qwen_eval.results import RunInfo, SampleRecord, TaskInfo
from qwen_eval.run_writer import RunWriter

from ..analysis.votes import Vote, between, by_item

METRIC = "net_preference"
TASK = "human_votes"


def task_of(baseline: str) -> str:
    """The task with its recipe, as reports and the rules of a gate name it."""
    return f"{TASK}@vs-{safe(baseline)}"


def safe(name: str) -> str:
    """A name as a folder's, the same on every system; one that had to be changed ends in its
    hash, so that two names stay two."""
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[:60]
    return kept if kept == name else f"{kept}-{text_hash(name, 8)}".lstrip("-")


def write_runs(
    votes: Sequence[Vote], baseline: str, out: Path, study: Mapping[str, str]
) -> list[Path]:
    """The folders, one under `out` for each system, by name. `study` is kept among the settings:
    its name and the hash of its specification. The same votes written again change nothing.

    Raises UserError where no vote is on the baseline, and for a folder that holds other votes."""
    systems = sorted({s for vote in votes for s in (vote.left, vote.right)} - {baseline})
    compared = [(s, own) for s in systems if (own := between(votes, s, baseline))]
    if not compared:
        raise UserError(f"baseline {baseline}: no vote on it, so there is no run to write")
    data = _digest(sorted({(vote.item, vote.category) for vote in votes}))
    return [
        _write(own, system, baseline, out / safe(system), data, study) for system, own in compared
    ]


def _write(
    votes: Sequence[Vote],
    system: str,
    baseline: str,
    folder: Path,
    data: str,
    study: Mapping[str, str],
) -> Path:
    task = task_of(baseline)
    records = [_record(task, item, some, system) for item, some in by_item(votes).items()]
    # Of the weights nothing is known; another vote makes another run.
    fingerprint = f"votes-{_digest(sorted(repr(vote) for vote in votes))}"
    info = RunInfo(
        model={"name": system, "fingerprint": fingerprint, "dtype": "", "backend": "votes"},
        tasks={task: _task(task, records, baseline, data, study)},
        settings={"baseline": baseline, "study": dict(study)},
        isolation="no programs were run",
        environment={"python": platform.python_version(), "versions": {"qwen-eval": __version__}},
    )
    writer = RunWriter(folder, info, [""])
    try:
        fresh = [record for record in records if (task, record.id) not in writer.done]
        if fresh:
            seconds = round(sum(vote.seconds for vote in votes), 3)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            writer.begin({"started": started, "samples": len(fresh), "seconds": seconds})
        for record in fresh:
            writer.add(record)
        categories = {name: [name] for name in sorted({record.group for record in records})}
        metrics = summarise(task, METRIC, records, categories)
        order = [(task, record.id) for record in records]
        writer.finish(order, {"schema": 1, "tasks": {task: metrics.to_json()}})
    finally:
        writer.close()
    return folder


def _task(
    task: str,
    records: Sequence[SampleRecord],
    baseline: str,
    data: str,
    study: Mapping[str, str],
) -> TaskInfo:
    return TaskInfo(
        recipe=task,
        version=1,
        recipe_version=1,
        spec_digest=_digest(study),
        solver="people",
        metric=METRIC,
        scorer="votes",
        data_kind="own",
        data_source=study.get("name", "votes"),
        data_digest=data,
        prompts_digest=_digest([record.id for record in records]),
        available=len(records),
        selected=len(records),
        protocol=f"pairs of answers, blinded, against {baseline}; wins minus losses of all votes",
    )


def _record(task: str, item: str, votes: Sequence[Vote], system: str) -> SampleRecord:
    outcomes = [vote.outcome_for(system) for vote in votes]
    counts = {name: outcomes.count(kind) for name, kind in (("win", 1), ("tie", 0), ("loss", -1))}
    shares = {name: count / len(votes) for name, count in counts.items()}
    return SampleRecord(
        id=item,
        task=task,
        group=votes[0].category,
        target="",
        prefix=text_hash(""),
        text=item,
        responses=[],
        values={METRIC: sum(outcomes) / len(votes), **shares, "votes": float(len(votes))},
        answer=", ".join(f"{count} {name}" for name, count in counts.items() if count),
        status="scored",
        detail={},
    )


def _digest(value: object) -> str:
    return text_hash(canonical_json(value))
