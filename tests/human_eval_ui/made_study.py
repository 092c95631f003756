"""A small study made up for the tests, its database, and a clock that they set."""

from __future__ import annotations

import json
from pathlib import Path

from qwen_eval.human_eval_ui.store import access
from qwen_eval.human_eval_ui.store.store import Store, open_store
from qwen_eval.human_eval_ui.study import making
from qwen_eval.human_eval_ui.study.spec import Study

CATEGORIES = ("knowledge", "writing", "coding")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def lines(items: int = 12, systems: tuple[str, ...] = ("north", "south")) -> list[dict]:
    """What a file of answers holds."""
    return [
        {
            "id": f"i{i:02}",
            "category": CATEGORIES[i % 3],
            "text": f"第 {i} 题：请说明水为什么会结冰。",
            "points": ["说明温度", "说明结晶", "语言通顺"],
            "answers": {
                system: f"这是第 {i} 题的第 {n} 种回答，温度降到零度以下时，水分子会排成晶体。"
                * (n + 1)
                for n, system in enumerate(systems)
            },
        }
        for i in range(items)
    ]


def write_lines(path: Path, rows: list[dict]) -> Path:
    """As JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def made_study(
    folder: Path,
    items: int = 12,
    systems: tuple[str, ...] = ("north", "south"),
    baseline: str | None = "north",
    **rules: object,
) -> Study:
    """A frozen study."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = making.Rules(**({"control_every": 0, "dwell": 0.0} | rules))  # type: ignore[arg-type]
    path = write_lines(folder / "answers.jsonl", lines(items, systems))
    return making.make_study(folder / "study", making.from_lines(path, chosen), baseline, chosen)


def made_store(
    folder: Path, url: str | None = None, people: int = 3, **study: object
) -> tuple[Store, Clock, list[str]]:
    """A store with annotators, by their ids."""
    clock = Clock()
    store = open_store(made_study(folder, **study), url, clock=clock)  # type: ignore[arg-type]
    ids = []
    for number in range(people):
        access.invite(store, f"person {number}")
        person = access.named(store, f"person {number}")
        assert person is not None
        ids.append(person.id)
    return store, clock, ids
