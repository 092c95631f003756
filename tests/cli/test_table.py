"""The table in terminals of any width: numbers are never cut."""

from __future__ import annotations

import io
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from qwen_eval.cli.table import results_table
from qwen_eval.metrics import TaskMetrics, estimate
from tests.cli.command import qwen_eval


def row(recipe: str, n: int, right: int, **fields: Any) -> tuple[Any, TaskMetrics]:
    counts = {
        "samples": n, "errors": 101, "no_answer": 1234,
        "prompts_truncated": 2345, "outputs_truncated": 3456,
    }  # fmt: skip
    overall = estimate([1.0] * right + [0.0] * (n - right))
    task = SimpleNamespace(info=SimpleNamespace(data_kind=fields.pop("data", "mirror")))
    return task, TaskMetrics(
        recipe, "accuracy", overall, counts, fields.pop("invalid", []), **fields
    )


CATEGORY = estimate([1.0] * 1500 + [0.0] * 1577)
assert CATEGORY is not None
ROWS = [
    row("mmlu@strict", 14042, 14042, categories={"social sciences": CATEGORY}),
    row("humaneval@lm-eval", 164, 20, data="sample"),
    row("gsm8k@qwen", 1319, 900, invalid=["errors 8% > 2%"]),
]


def rendered(width: int) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(results_table(ROWS))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [200, 80, 60, 40, 30])
def test_every_number_is_whole_at_any_width(width: int) -> None:
    text = rendered(width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    # The same words in the same order as on a wide screen, save the headings.
    wide = " ".join(rendered(200).splitlines()[2:]).split()
    labels = r"^    (n|score|95% interval|no answer|cut in|cut out|errors|data)\b"
    words = re.sub(labels, "", text, flags=re.MULTILINE).split()
    assert words[-len(wide) :] == wide


def test_a_table_where_it_fits_and_blocks_where_not() -> None:
    assert rendered(90).splitlines()[1].split()[:3] == ["task", "n", "score"]
    assert rendered(60).splitlines()[:3] == [
        "mmlu@strict",
        "    n            14042",
        "    score        100.0",
    ]


def test_the_command_at_forty_columns(tmp_path: Path) -> None:
    done = qwen_eval(
        "run", "--tasks", "gsm8k", "--model", "mock:oracle", cwd=tmp_path, COLUMNS="40"
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^    score +100\.0$", done.stdout, re.MULTILINE)
    assert "…" not in done.stdout
