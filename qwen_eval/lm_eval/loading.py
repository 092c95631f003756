"""From `lm_eval:NAME` to the tasks of lm-evaluation-harness that it means.

NAME is a task, a group or a tag of the installed package, or a YAML file of one's own. A group
whose sub-tasks are all scored alike is one benchmark, its sub-tasks are the groups of the samples;
any other group, and a tag, is several. Knows nothing of models.
"""

from __future__ import annotations

import contextlib
import difflib
import logging
import os
import random
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_eval.datasets import hub_answers
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.lm_eval.figures import Scoring, scoring_of
from qwen_eval.taskspec import DEFAULT_RECIPE

PREFIX = "lm_eval:"
# The seeds that its own command sets: random, numpy, and the sampler of exemplars.
SEEDS = (0, 1234, 1234)
_TASK = re.compile(r"""^task:[ \t]*["']?([\w.:-]+)["']?[ \t]*$""", re.MULTILINE)
_NAME = re.compile(r"""^(?:task|group):[ \t]*["']?([\w.:-]+)["']?[ \t]*$""", re.MULTILINE)


@dataclass(frozen=True)
class Benchmark:
    """One row of a run's table: tasks of lm-evaluation-harness that are scored alike, by name.

    `shots` is what was asked for, None for each task's own number. `categories` gathers sub-tasks
    into the averages of a group's inner groups. `macro`: the group's own score is the mean over
    its sub-tasks.
    """

    name: str
    shots: int | None
    tasks: Mapping[str, Any]
    scoring: Scoring
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    macro: bool = False

    @property
    def task(self) -> str:
        """`lm_eval:mmlu`."""
        return PREFIX + self.name

    @property
    def recipe(self) -> str:
        """`lm_eval:mmlu@5`, or @strict with the number of shots that the tasks themselves set."""
        return f"{self.task}@{DEFAULT_RECIPE if self.shots is None else self.shots}"


def benchmarks(name: str) -> list[Benchmark]:
    """What `lm_eval:NAME`, `lm_eval:NAME@SHOTS` or `lm_eval:FILE.yaml` means. Raises UserError for
    a name that is unknown and for a task that cannot be loaded, RefusedError for one that runs
    programs of the model in this very process."""
    wanted, shots = _parts(name)
    with _quiet():
        loaded = _load(name, wanted)
    tasks: dict[str, Any] = loaded["tasks"]
    if not tasks:
        raise UserError(f"--tasks {name}: holds no tasks")
    for task_name, task in tasks.items():
        _check(name, task_name, task)
        _set_shots(name, task_name, task, shots)
    found = {task_name: scoring_of(task) for task_name, task in tasks.items()}
    # The first of the groups is the one that was named, the others are inside it.
    root, *inner = (loaded.get("groups") or {}).values() or [None]
    first = next(iter(found.values()))
    if root is None or first.whole or len(set(found.values())) > 1:
        return [Benchmark(one, shots, {one: task}, found[one]) for one, task in tasks.items()]
    members = {one.name: tuple(task.task_name for task in one.get_all_tasks()) for one in inner}
    macro = any(not one.weight_by_size for one in root.aggregate_metric_list or ())
    return [Benchmark(root.name, shots, tasks, first, members, macro)]


def _parts(name: str) -> tuple[str, int | None]:
    wanted = name.removeprefix(PREFIX)
    bare, at, shots = wanted.rpartition("@")
    if at and shots.isdecimal():
        return bare, int(shots)
    if at and shots == DEFAULT_RECIPE:
        return bare, None
    if at and not wanted.endswith(".yaml"):
        raise UserError(f"--tasks {name}: behind the @ stands a number of shots, such as {bare}@5")
    if not wanted:
        raise UserError(f"--tasks {name}: nothing after the colon")
    return wanted, None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Its loaders talk on stdout, which is kept for results, and warn of what is its own affair."""
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _load(name: str, wanted: str) -> dict[str, Any]:
    import numpy as np

    if not hub_answers():
        # Without it every data set is asked for again and again before it is given up.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    manager, spec = _manager(name, wanted)
    # Some tasks shuffle their options as they are loaded.
    random.seed(SEEDS[0])
    np.random.seed(SEEDS[1])
    try:
        loaded: dict[str, Any] = manager.load(spec)
    except Exception as error:  # data sets, templates and the files' own code raise what they like
        reason = " ".join(str(error).split()) or "no reason given"
        raise UserError(
            f"--tasks {name}: lm-evaluation-harness cannot load it "
            f"({type(error).__name__}: {reason[:300]}){_way_out(error)}"
        ) from error
    return loaded


def _way_out(error: Exception) -> str:
    if isinstance(error, ConnectionError) or "Hub" in str(error):
        return (
            "; its data come from the hub, which does not answer: run it once where there is a "
            "network, or give a YAML file with dataset_path: json and local data_files"
        )
    return ""


def _manager(name: str, wanted: str) -> tuple[Any, str]:
    """A task manager that knows what is wanted, and the words to ask it in."""
    from lm_eval import tasks

    if wanted.endswith((".yaml", ".yml")):
        path = Path(wanted).expanduser()
        return _own_manager(name, path)
    texts = _texts(Path(tasks.__file__).parent)
    # To load all of its 14,000 files takes many seconds: for one task, its own is enough.
    near = {path: text for path, text in texts.items() if wanted in text}
    own = [path for path, text in near.items() if wanted in _NAME.findall(text)]
    if len(own) == 1 and wanted in _TASK.findall(near[own[0]]):
        return tasks.TaskManager(include_defaults=False), str(own[0])
    if near:
        manager = tasks.TaskManager()
        if wanted in manager.task_index:
            return manager, wanted
    names = [known for text in texts.values() for known in _NAME.findall(text)]
    close = difflib.get_close_matches(wanted, names, 3)
    hint = f"did you mean {' or '.join(PREFIX + one for one in close)}? " if close else ""
    raise UserError(
        f"--tasks {name}: lm-evaluation-harness has no such task; {hint}"
        "`qwen-eval lm-eval ls tasks` lists them"
    )


def _texts(folder: Path) -> dict[Path, str]:
    found = sorted(folder.rglob("*.yaml"))
    return {path: path.read_text(encoding="utf-8", errors="replace") for path in found}


def _own_manager(name: str, path: Path) -> tuple[Any, str]:
    import yaml
    from lm_eval import tasks
    from lm_eval.tasks._yaml_loader import load_yaml

    if not path.is_file():
        raise UserError(f"--tasks {name}: no such file")
    try:
        raw = load_yaml(path, resolve_func=False)
    except (yaml.YAMLError, OSError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise UserError(f"--tasks {name}{where}: not YAML: {problem}") from error
    if not isinstance(raw, dict) or not isinstance(raw.get("task") or raw.get("group"), str | list):
        raise UserError(f"--tasks {name}: names no task: and no group:")
    if "group" not in raw:
        return tasks.TaskManager(include_defaults=False), str(path.resolve())
    # It may gather tasks that lie beside it, and the package's, which take seconds to be read.
    beside = tasks.TaskManager(include_path=path.parent, include_defaults=False)
    groups = [raw, *(entry.cfg or {} for entry in beside.task_index.values())]
    if all(name in beside.task_index for group in groups for name in _members(group)):
        return beside, raw["group"]
    return tasks.TaskManager(include_path=path.parent), raw["group"]


def _members(group: Mapping[str, Any]) -> Iterator[str]:
    """The tasks that a group names and does not hold itself."""
    listed = group.get("task") if "group" in group else None
    for one in listed if isinstance(listed, list) else ():
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping) and "dataset_path" not in one:
            yield from (
                _members(one)
                if "group" in one and "task" in one
                else [str(one.get("task") or one.get("group"))]
            )


def _check(name: str, task_name: str, task: Any) -> None:
    if getattr(task, "UNSAFE_CODE", False):
        raise RefusedError(
            f"--tasks {name}: {task_name} runs the model's programs with nothing around them; "
            "qwen-eval's own tasks run them in a sandbox (humaneval)"
        )
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"--tasks {name}: {task_name} shows pictures or sounds; ours are texts")


def _set_shots(name: str, task_name: str, task: Any, shots: int | None) -> None:
    own = task.get_config("num_fewshot")
    if shots is not None and own == 0 and shots:
        raise UserError(f"--tasks {name}: {task_name} allows no shots, its file says 0")
    task.set_config(key="num_fewshot", value=(own or 0) if shots is None else shots)
    task.set_fewshot_seed(seed=SEEDS[2])
