"""Suites: names that stand for several tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_eval.cli.setup import load_tasks
from qwen_eval.errors import UserError
from qwen_eval.suites import SUITES_DIR, expand, load_suite, suite_names


def test_a_suite_stands_for_its_tasks_among_others() -> None:
    tiny = load_suite(SUITES_DIR / "tiny.yaml").tasks
    assert "tiny" in suite_names()
    assert expand(["mmlu@qwen", "tiny", "gsm8k"]) == ["mmlu@qwen", *tiny, "gsm8k"]


def test_a_limit_names_tasks_of_a_suite() -> None:
    tasks = load_tasks("tiny", None, "tiny_pairs=5,tiny_bits_en=2")
    found = {task.info.recipe: task.info.selected for task in tasks}
    assert found["tiny_pairs@strict"] == 5
    assert found["tiny_bits_en@strict"] == 2
    assert found["tiny_brackets@strict"] == 240


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tiney", "did you mean tiny?"),
        ("tiny_pair", "did you mean tiny_pairs or"),
        ("mmlv", "did you mean mmlu or cmmlu?"),
        ("zzz", "--tasks zzz: no task or suite; suites: code,"),
        ("tiny@qwen", "tiny is a suite, its tasks have the recipes"),
    ],
)
def test_unknown_names_come_with_a_way_out(name: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        expand([name])
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_task_may_be_named_once_only() -> None:
    with pytest.raises(UserError, match="a task is named twice"):
        load_tasks("tiny,tiny_pairs", None, None)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: a\ntitle: t\ntasks: [mmlu]\n", "name: a is not what the file is called"),
        ("name: own\ntitle: t\ntasks: []\n", "own.yaml, line 3: tasks:"),
        ("name: own\ntitle: t\ntasks: [mmlu]\ncolour: red\n", "line 4: colour: unknown key"),
        ("name: own\ntitle: t\ntasks: [mmlu@loose]\n", "tasks: mmlu@loose: unknown recipe"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_suite(path)
    assert said in str(error.value)
