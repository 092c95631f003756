"""Suites: tasks that are run together under one name, tasks/suites/NAME.yaml.

Knows nothing of what a task is beyond its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import Field

from qwen_eval.catalogue import suite_files, task_files
from qwen_eval.errors import UserError
from qwen_eval.schema import Closed, parse, read_text
from qwen_eval.taskspec import TASKS_DIR, find_task

SUITES_DIR = TASKS_DIR / "suites"


class Suite(Closed):
    """`tasks`: names as --tasks takes them, with or without a recipe."""

    name: str
    title: str
    tasks: tuple[str, ...] = Field(min_length=1)


def suite_names(paths: Sequence[Path] = ()) -> list[str]:
    """The suites that are there, sorted; `paths`: folders of a user's own."""
    return list(suite_files(paths))


def load_suite(path: Path, paths: Sequence[Path] = ()) -> Suite:
    """Read one suite. Raises UserError naming file, line and key, or a task that is not there."""
    suite = parse(read_text(path), path, Suite)
    if suite.name != path.stem:
        raise UserError(f"{path}: name: {suite.name} is not what the file is called")
    for task in suite.tasks:
        try:
            find_task(task, paths)
        except UserError as error:
            raise UserError(f"{path}: tasks: {str(error).removeprefix('--tasks ')}") from error
    return suite


def expand(names: Iterable[str], paths: Sequence[Path] = ()) -> list[str]:
    """`tiny,mmlu` → the tasks of the suite, then mmlu. Raises UserError for a name that is neither
    a suite's nor a task's, with those that are close."""
    suites, tasks = suite_files(paths), task_files(paths)
    found: list[str] = []
    for name in names:
        bare, at, _ = name.partition("@")
        if bare in suites:
            if at:
                raise UserError(f"--tasks {name}: {bare} is a suite, its tasks have the recipes")
            found += load_suite(suites[bare], paths).tasks
        elif bare in tasks:
            found.append(name)
        else:
            close = difflib.get_close_matches(bare, [*suites, *tasks], 3)
            hint = f"did you mean {' or '.join(close)}? " if close else ""
            raise UserError(
                f"--tasks {name}: no task or suite; {hint}suites: {', '.join(suites)}; tasks: "
                f"{', '.join(tasks)}; --task-path names a folder of others"
            )
    return found
