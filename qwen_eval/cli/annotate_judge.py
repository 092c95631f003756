"""A study's pairs as a task that asks any model which answer is better."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_eval.cli.setup import LoadedTask, load_task
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.human_eval_ui.judging import JudgeRow


def judge_task(rows: Sequence[JudgeRow], recipe: str = "strict") -> LoadedTask:
    """The rows in Chinese (`strict`) or English (`en`), for cli.asking.ask.

    Raises UserError for another recipe, and where there are no rows.
    """
    from qwen_eval.datasets import given_data
    from qwen_eval.taskspec import TASKS_DIR, load_spec

    spec = load_spec(TASKS_DIR / "judging" / "pairwise" / "task.yaml")
    if recipe not in spec.recipes:
        raise UserError(f"--recipe {recipe}: unknown; known: {', '.join(spec.recipes)}")
    return load_task(given_data(spec, [row.asked for row in rows]), recipe)
