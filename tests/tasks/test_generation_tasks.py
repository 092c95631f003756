"""Every task that lets a model write: the oracle is always right, a guesser hardly ever."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends.base import BackendOptions
from qwen_eval.backends.mock import MockBackend
from qwen_eval.datasets import TaskData, open_data, take
from qwen_eval.prompts import Renderer
from qwen_eval.suites import expand
from qwen_eval.tasks.scorers import read
from qwen_eval.taskspec import find_task
from qwen_eval.types import GenerateRequest, Item

# Rows of sets that no mirror holds, in the schema of their releases.
MADE: dict[str, dict[str, list[dict[str, Any]]]] = {
    "math401": {
        "test": [
            {"query": " ( 8 - 90) / 95=", "response": "-0.8632"},
            {"query": "62×42=", "response": "2604"},
            {"query": "e^(iπ)+1=", "response": "0"},
            {"query": "9.2725^3.8687=", "response": "5518.1617"},
        ]
    },
    "math23k": {
        "test": [
            {"original_text": "一桶油重20千克，用去四分之一，还剩多少千克？", "answer": "15"},
            {"original_text": "3个苹果平均分给4人，每人几个？", "ans": "((3)/(4))"},
            {"original_text": "全班50人，到校48人，出勤率是多少？", "answer": "96%"},
            {"original_text": "一根绳长1(1/2)米，再接上1米，共几米？", "answer": "2(1/2)"},
        ]
    },
    "natural_questions": {
        "validation": [
            {"question": "who wrote the made song", "answer": ["Ada Moor", "A. Moor"]},
            {"question": "when was the made bridge built", "answer": ["14 May 1907"]},
        ],
        "train": [{"question": f"what is {i}", "answer": [f"number {i}"]} for i in range(6)],
    },
}
TASKS = ("gsm8k", "competition_math", "math500", "math401", "math23k", "bbh", "cmath",
         "natural_questions", "cmrc2018", "ifeval", "gaokao_bench", "agieval")  # fmt: skip
RECIPES = [f"{task}@{recipe}" for task in TASKS for recipe in find_task(task)[0].recipes]
# The released reading takes no sign; nothing follows a prompt of IFEval but what a model writes.
WITHOUT_ORACLE = ("gsm8k@qwen", "ifeval@")
CHANCE = {"gaokao_bench": 0.25, "agieval": 0.25, "bbh": 0.25, "ifeval": 0.3}
SLOWLY_READ = ("competition_math", "ifeval")  # by libraries, in a process of their own


def items_of(name: str, mirror: Path, rows: int = 40) -> list[Item]:
    spec, recipe = find_task(name)
    data = TaskData(spec, "given", _splits=dict(MADE[spec.name])) if spec.name in MADE else None
    renderer = Renderer(data or open_data(spec, mirror), recipe)
    items = [renderer.render(sample) for sample in take(renderer.data.samples(), rows)]
    assert not [item.fault for item in items if item.fault]
    return items


def answered(name: str, items: list[Item], mode: str) -> float:
    """The mean score of a mock model's replies, each cut where the recipe stops."""
    backend = MockBackend.open(mode, BackendOptions())
    for item in items:
        backend.submit(GenerateRequest(item.prompt, item.decoding, reference=item.reference))
    replies = [response.text for _, response in backend.step()]
    scores = [read(reply, item) for reply, item in zip(replies, items, strict=True)]
    return math.fsum(score.values[items[0].metric] for score in scores) / len(scores)


@pytest.mark.parametrize("name", RECIPES)
def test_the_oracle_is_right_and_a_guesser_is_not(name: str, mirror: Path) -> None:
    items = items_of(name, mirror, 10 if name.startswith(SLOWLY_READ) else 40)
    if not name.startswith(WITHOUT_ORACLE):
        assert answered(name, items, "oracle") == 1.0
    guessed = answered(name, items, "random")
    assert guessed <= CHANCE.get(name.partition("@")[0], 0.05) + 0.05


@pytest.mark.parametrize("name", [name for name in RECIPES if "chat" in name])
def test_a_chat_asks_one_question_behind_its_exemplars(name: str, mirror: Path) -> None:
    for item in items_of(name, mirror, 3):
        roles = [turn.role for turn in item.prompt.messages]
        exemplars = 8 if name == "gsm8k@chat-8shot" else 0
        system = ["system"] if "qwen-chat" in name else []
        assert roles == [*system, *["user", "assistant"] * exemplars, "user"]


def test_every_objective_question_of_the_gaokao_is_asked(mirror: Path) -> None:
    items = items_of("gaokao_bench", mirror, 9999)
    assert len(items) == 1781
    assert len({item.sample.group for item in items}) == 14
    assert all(set(item.target) <= set("ABCDEFG ") for item in items)


def test_agieval_has_letters_or_a_formula(mirror: Path) -> None:
    items = items_of("agieval", mirror, 9999)
    clozes = [item for item in items if not set(item.target) <= set("ABCDE")]
    assert {item.sample.group for item in clozes} == {"gaokao-mathcloze"}
    assert {"ABD", "BD"} <= {item.target for item in items}
    assert sum("Among A through E, the answer is" in item.prompt.text for item in items) == 254


def test_the_suite_of_the_papers_mathematics() -> None:
    assert [name.partition("@")[0] for name in expand(["math"])] == [
        "gsm8k", "math500", "math401", "math23k",
    ]  # fmt: skip
