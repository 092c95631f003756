"""Where tasks lie: no name stands for two files, and a wrong folder is named with the way out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from qwen_eval.catalogue import OURS, suite_files, task_files
from qwen_eval.errors import UserError
from qwen_eval.suites import expand
from qwen_eval.taskspec import find_task
from tests.cli.command import qwen_eval, refused

ROOT = Path(__file__).parents[2]


def task(folder: Path, name: str, called: str | None = None) -> Path:
    """A task of one row in folder/name; `called`: what its file says instead."""
    text = (OURS / "templates" / "choice" / "task.yaml").read_text()
    (folder / name).mkdir(parents=True)
    (folder / name / "task.yaml").write_text(text.replace("NAME", called or name))
    row = {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1}
    (folder / name / "data.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def suite(folder: Path, name: str, *tasks: str) -> Path:
    (folder / "suites").mkdir(parents=True, exist_ok=True)
    listed = f"name: {name}\ntitle: mine\ntasks: [{', '.join(tasks)}]\n"
    (folder / "suites" / f"{name}.yaml").write_text(listed)
    return folder


def test_a_folder_adds_its_tasks_and_suites(tmp_path: Path) -> None:
    suite(task(tmp_path, "sums"), "mine", "sums", "tiny_pairs")
    assert set(task_files([tmp_path])) - set(task_files()) == {"sums"}
    assert set(suite_files([tmp_path])) - set(suite_files()) == {"mine"}
    assert find_task("sums", [tmp_path])[0].folder == tmp_path / "sums"
    assert expand(["mine", "mmlu"], [tmp_path]) == ["sums", "tiny_pairs", "mmlu"]
    with pytest.raises(UserError, match="--task-path names a folder of others"):
        expand(["sums"])


def test_one_folder_may_be_named_twice_and_be_ours(tmp_path: Path) -> None:
    task(tmp_path / "a", "sums")
    paths = [tmp_path / "a", tmp_path / "a" / ".." / "a", OURS, ROOT / "tasks"]
    assert set(task_files(paths)) == {*task_files(), "sums"}


@pytest.mark.parametrize("name", ["mmlu", "tiny", "sums"])
def test_a_name_that_is_there_twice_is_refused_with_both_files(tmp_path: Path, name: str) -> None:
    first = task(tmp_path / "first", "sums")
    second = task(tmp_path / "second", name)
    with pytest.raises(UserError) as error:
        task_files([first, second])
    ours = {"mmlu": OURS / "mmlu" / "task.yaml", "tiny": OURS / "suites" / "tiny.yaml"}
    other = ours.get(name, first / "sums" / "task.yaml")
    mine = second / name / "task.yaml"
    assert str(error.value) == f"{name}: both {other} and {mine} have this name; rename one"


def test_a_suite_does_not_take_the_name_of_a_task(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gsm8k: both"):
        suite_files([suite(tmp_path, "gsm8k", "mmlu")])


def test_a_wrong_folder_is_named(tmp_path: Path) -> None:
    task(tmp_path, "sums")
    for folder, said in [
        (tmp_path / "nowhere", "--task-path .*nowhere: no such folder"),
        (tmp_path / "sums", "sums: holds no NAME/task.yaml; name the folder above it"),
    ]:
        with pytest.raises(UserError, match=said):
            task_files([folder])


def test_a_task_is_called_what_its_folder_is_called(tmp_path: Path) -> None:
    # Or its scores would stand in a table as another's.
    with pytest.raises(UserError, match="name: mmlu is not what its folder is called"):
        find_task("sums", [task(tmp_path, "sums", called="mmlu")])


def test_an_installed_package_brings_its_tasks(tmp_path: Path) -> None:
    package = task(tmp_path / "site" / "quizzes" / "tasks", "sums")
    for folder in (package.parent, package):
        (folder / "__init__.py").write_text("")
    installed = tmp_path / "site" / "quizzes-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: quizzes\nVersion: 1.0\n")
    points = installed / "entry_points.txt"
    points.write_text("[qwen_eval.tasks]\nall = quizzes.tasks\n")
    path = os.pathsep.join([str(ROOT), str(tmp_path / "site")])
    run = ("run", "--tasks", "sums", "--model", "mock:oracle", "--json")
    done = qwen_eval(*run, cwd=tmp_path, PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["tasks"]["sums@strict"]["overall"]["n"] == 1

    points.write_text("[qwen_eval.tasks]\nall = quizzes.gone\n")
    line = refused(qwen_eval("tasks", PYTHONPATH=path))
    assert line == "quizzes: entry point all of qwen_eval.tasks: there is no package quizzes.gone"
