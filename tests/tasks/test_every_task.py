"""Tasks of options, weighed or chosen in words: who knows all is right, who guesses is at chance.

Tasks whose answers are written are in test_generation_tasks.py, programs and agents in files of
their own.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends.base import BackendOptions
from qwen_eval.backends.mock import MockBackend
from qwen_eval.cli.setup import LoadedTask, load_task
from qwen_eval.datasets import open_data
from qwen_eval.runner import Runner
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.taskspec import find_task, task_names

LETTERED = [
    {"subject": "law", "A": "一", "B": "二", "C": "三", "D": "四", "key": "ABCD"[i % 4], "n": i}
    for i in range(40)
]
# Rows as the hub has them, of sets that no mirror of ours holds.
MADE: dict[str, dict[str, list[dict[str, Any]]]] = {
    "ceval": {
        split: [
            row | {"question": f"{split}第{row['n']}题", "answer": row["key"]} for row in LETTERED
        ]
        for split in ("test", "dev")
    },
    "cmmlu": {
        split: [
            row
            | {"Question": f"{split}第{row['n']}题", "Answer": row["key"], "subject": "college_law"}
            for row in LETTERED
        ]
        for split in ("test", "dev")
    },
    "siqa": {
        "test": [
            {
                "context": f"Ann met {n} friends.",
                "question": "Why did she?",
                "answerA": "to talk",
                "answerB": "to sleep",
                "answerC": "to swim",
                "label": str(n % 3 + 1),
            }
            for n in range(40)
        ]
    },
    "ocnli": {
        "test": [
            {"sentence1": f"他有{n}本书", "sentence2": "他有书", "label": n % 4 - 1}
            for n in range(40)
        ]
    },
    "commonsense_qa@qwen": {
        split: [
            {
                "query": f"Question: {split} {n}?\nChoices:\nA. a\nB. b\nC. c\nAnswer:",
                "choices": ["A", "B", "C"],
                "gold": n % 3,
            }
            for n in range(40)
        ]
        for split in ("test", "train")
    },
}
CHOSEN = ("choice", "contexts", "continuation")
RECIPES = [
    f"{name}@{recipe}"
    for name in task_names()
    for spec, _ in [find_task(name)]
    for recipe in spec.recipes
    if spec.solver in CHOSEN and not name.startswith("tiny_")
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of the made rows."""
    folder = tmp_path_factory.mktemp("made")
    for name, splits in MADE.items():
        spec, _ = find_task(name)
        for split, rows in splits.items():
            path = folder / str(spec.splits[split].mirror)
            path.parent.mkdir(exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            path.write_bytes(gzip.compress(lines.encode(), mtime=0))
    return folder


def loaded(name: str, mirror: Path, made: Path, count: int) -> LoadedTask:
    """Some rows of a task, of the mirror or made."""
    spec, recipe = find_task(name)
    source = made if {name, spec.name} & MADE.keys() else mirror
    return load_task(open_data(spec, source, hub=False), recipe, count)


def accuracy(task: LoadedTask, model: str) -> float:
    """The mean score of a mock model, which answers every sample."""
    backend = MockBackend.open(model, BackendOptions())
    found = list(Runner(backend, SOLVERS[task.solver]).run(task.items))
    assert [f.error for f in found if f.error] == []
    return math.fsum(f.score.values[task.info.metric] for f in found) / len(found)


@pytest.mark.parametrize("name", RECIPES)
def test_who_knows_all_is_right(name: str, mirror: Path, made: Path) -> None:
    assert accuracy(loaded(name, mirror, made, 40), "oracle") == 1.0


@pytest.mark.parametrize("name", RECIPES)
def test_who_guesses_is_at_chance(name: str, mirror: Path, made: Path) -> None:
    task = loaded(name, mirror, made, 300)
    n = len(task.items)
    chance = 0.0
    if task.solver in ("choice", "contexts"):
        chance = math.fsum(1 / len(item.options) for item in task.items) / n
        # Five standard deviations, and never so few items that everything is at chance.
        spread = 5 * math.sqrt(chance * (1 - chance) / n)
        assert abs(accuracy(task, "random") - chance) <= spread
    else:
        # It writes "The answer is N.", N below 100, which is right by luck, if at all.
        assert accuracy(task, "random") <= 0.3
