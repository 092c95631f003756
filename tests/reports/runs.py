"""Runs as reports read them, made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from qwen_eval.results import Run, SampleRecord
from tests.harness.toys import record, run_info, task_info


def a_run(
    records: Sequence[SampleRecord], name: str = "m", *, task: dict[str, Any] | None = None,
    **fields: Any,
) -> Run:  # fmt: skip
    """An unfinished run, so that it needs no files: its scores are made of its samples."""
    told = {"available": len(records), "selected": len(records)} | (task or {})
    infos = {"toy@strict": task_info(**told)} if "tasks" not in fields else fields.pop("tasks")
    model = {"name": name, "fingerprint": f"f-{name}", "dtype": "float32"}
    info = run_info(**{"model": model, "tasks": infos} | fields)
    return Run(Path("runs") / name, info, records, finished=False, prefixes={"p": "Few shots. "})


def answers(values: str, **fields: Any) -> list[SampleRecord]:
    """A sample per letter: `1` right, `0` wrong, `-` no answer, `!` failed."""
    kinds = {
        "1": (1.0, "scored"),
        "0": (0.0, "scored"),
        "-": (0.0, "no_answer"),
        "!": (0.0, "error"),
    }
    return [
        record(i, kinds[letter][0], status=kinds[letter][1], prefix="p",
               **{key: of(i) if callable(of) else of for key, of in fields.items()})
        for i, letter in enumerate(values)
    ]  # fmt: skip
