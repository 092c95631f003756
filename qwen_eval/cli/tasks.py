"""`qwen-eval tasks`: what can be run."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the suites, the tasks, their recipes and where each recipe comes from."""
    from qwen_eval.suites import SUITES_DIR, load_suite, suite_names
    from qwen_eval.taskspec import find_task, task_names

    specs = [find_task(name)[0] for name in task_names()]
    suites = [load_suite(SUITES_DIR / f"{name}.yaml") for name in suite_names()]
    if as_json:
        listed = [
            {
                "name": spec.name,
                "title": spec.title,
                "metric": spec.metric,
                "recipes": {name: recipe.source for name, recipe in spec.recipes.items()},
            }
            for spec in specs
        ]
        print(json.dumps({"tasks": listed, "suites": [suite.model_dump() for suite in suites]}))
        return
    for suite in suites:
        print(f"suite {suite.name}: {suite.title}")
        print(f"  {', '.join(suite.tasks)}")
    for spec in specs:
        print(f"{spec.name}: {spec.title}; {spec.metric}")
        for name, recipe in spec.recipes.items():
            print(f"  {spec.name}@{name}: {recipe.source}")
