"""Items, records and run infos as tests need them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_eval.metrics import summarise
from qwen_eval.results import RunInfo, SampleRecord, TaskInfo
from qwen_eval.run_writer import RunWriter
from qwen_eval.types import Item, Prompt, Sample


def item(number: int, task: str = "toy@strict", **fields: Any) -> Item:
    """A small item; `number` makes its id and its question."""
    sample = Sample(f"{number:04x}", task.partition("@")[0], {"n": number}, "g")
    given = {"target": str(number), "scorer": "number", "metric": "accuracy"} | fields
    return Item(sample, task, given.pop("prompt", Prompt(f"{number}?", "header ")), **given)


def task_info(**fields: Any) -> TaskInfo:
    """Everything about a task that a run records."""
    defaults: dict[str, Any] = {
        "recipe": "toy@strict",
        "version": 1,
        "recipe_version": 1,
        "spec_digest": "s",
        "solver": "generate",
        "metric": "accuracy",
        "scorer": "number",
        "data_kind": "mirror",
        "data_source": "somewhere",
        "data_digest": "d",
        "prompts_digest": "p",
        "available": 3,
        "selected": 3,
    }
    return TaskInfo(**defaults | fields)


def run_info(**fields: Any) -> RunInfo:
    """A run of the toy task."""
    defaults: dict[str, Any] = {
        "model": {"name": "m", "fingerprint": "f", "dtype": "float32"},
        "tasks": {"toy@strict": task_info()},
        "settings": {"seed": 0},
        "isolation": "none needed",
        "environment": {},
    }
    return RunInfo(**defaults | fields)


def record(number: int, value: float = 1.0, **fields: Any) -> SampleRecord:
    """A scored sample."""
    return SampleRecord(
        **{
            "id": f"{number:04x}",
            "task": "toy@strict",
            "group": "g",
            "target": "1",
            "prefix": "",
            "text": "?",
            "responses": [],
            "values": {"accuracy": value},
            "answer": "1",
            "status": "scored",
            "detail": {},
        }
        | fields
    )


def finished_run(
    folder: Path,
    values: Sequence[float | None],
    started: str = "2026-01-01T00:00:00+00:00",
    **fields: Any,
) -> Path:
    """A finished run of the toy task; None is a sample that failed."""
    info = run_info(**{"invocations": [{"started": started}]} | fields)
    records = [
        record(number, 0.0, status="error", error="down")
        if value is None
        else record(number, value)
        for number, value in enumerate(values)
    ]
    writer = RunWriter(folder, info, [])
    for one in records:
        writer.add(one)
    metrics = summarise("toy@strict", "accuracy", records).to_json()
    writer.finish([(r.task, r.id) for r in records], {"tasks": {"toy@strict": metrics}})
    writer.close()
    return folder
