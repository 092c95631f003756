"""No file over 400 lines, no function over 80 lines or 12 parameters."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("qwen_eval", "model", "train", "tasks", "reports", "human_eval_ui", "bench", "tests")


def _sources() -> list[Path]:
    # Links are not followed, so no file is seen twice.
    found = [p for name in FOLDERS for p in (ROOT / name).rglob("*.py")]
    return sorted(found)


SOURCES = _sources()


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_go(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_functions_are_short_and_take_few_parameters(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno + 1 <= 80, f"{node.name}, line {node.lineno}"
            arguments = node.args
            count = len(arguments.posonlyargs + arguments.args + arguments.kwonlyargs)
            assert count <= 12, f"{node.name}, line {node.lineno}: {count} parameters"


def test_the_sources_are_found() -> None:
    assert ROOT / "model" / "transformer.py" in SOURCES
    assert ROOT / "qwen_eval" / "model" / "transformer.py" not in SOURCES
