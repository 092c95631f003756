"""Where tasks and suites lie: the project's own folder, those of installed packages, and those that
a user names. Every folder holds NAME/task.yaml and may hold suites/NAME.yaml.

No name stands for two files: who runs a task must know which one. Knows nothing of what is in them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from qwen_eval.errors import UserError

OURS = Path(__file__).parent / "tasks"
GROUP = "qwen_eval.tasks"
"""Entry points of installed packages: each names a package whose folder holds tasks."""


def task_files(paths: Sequence[Path] = ()) -> dict[str, Path]:
    """Every task.yaml by its task's name, sorted; `paths`: folders that a user names.

    Raises UserError for a name that is there twice and for a folder without a task or suite."""
    return {name: path for name, path in _files(paths).items() if not _is_suite(path)}


def suite_files(paths: Sequence[Path] = ()) -> dict[str, Path]:
    """Every suite's file by its name, sorted. Raises UserError like task_files."""
    return {name: path for name, path in _files(paths).items() if _is_suite(path)}


def _files(paths: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (OURS, *_installed(), *map(_named, paths)):
        for name, path in _held(folder):
            other = found.setdefault(name, path)
            if other is not path and other.resolve() != path.resolve():
                raise UserError(f"{name}: both {other} and {path} have this name; rename one")
    return dict(sorted(found.items()))


def _held(folder: Path) -> list[tuple[str, Path]]:
    found = {*folder.glob("*/task.yaml"), *folder.glob("suites/*.yaml")}
    return [(path.stem if _is_suite(path) else path.parent.name, path) for path in sorted(found)]


def _is_suite(path: Path) -> bool:
    return path.parent.name == "suites"


def _named(folder: Path) -> Path:
    if not folder.is_dir():
        raise UserError(f"--task-path {folder}: no such folder")
    if not _held(folder):
        above = "; name the folder above it" if (folder / "task.yaml").is_file() else ""
        raise UserError(f"--task-path {folder}: holds no NAME/task.yaml{above}")
    return folder


@cache
def _installed() -> tuple[Path, ...]:
    """The folders of installed packages' tasks; what is installed stays so while we run."""
    return tuple(map(_folder_of, sorted(entry_points(group=GROUP), key=lambda point: point.value)))


def _folder_of(point: EntryPoint) -> Path:
    package = point.dist.name if point.dist else "an installed package"
    where = f"{package}: entry point {point.name} of {GROUP}"
    try:
        spec = importlib.util.find_spec(point.value)
    except (ImportError, ValueError) as error:
        raise UserError(f"{where}: {point.value} cannot be found ({error})") from error
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"{where}: there is no package {point.value}")
    folder = Path(spec.submodule_search_locations[0])
    if not _held(folder):
        raise UserError(f"{where}: {folder} holds no NAME/task.yaml")
    return folder
