"""`qwen-eval tasks`: what can be run, and how to write a task of one's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from qwen_eval.cli import task_check, task_show
from qwen_eval.cli.options import TaskPath
from qwen_eval.cli.setup import check_choice, say
from qwen_eval.errors import UserError

app = typer.Typer(help="What can be run, and tasks of your own.")
KINDS = ("choice", "generate", "code")
MARK = "NAME"  # what a template calls its task


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    task_path: TaskPath = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """List the suites, the tasks, their recipes and where each recipe comes from."""
    if context.invoked_subcommand:
        source = context.get_parameter_source("task_path")
        if source is not None and source.name == "COMMANDLINE":
            raise UserError(f"--task-path: name it behind {context.invoked_subcommand}")
        return
    from qwen_eval.catalogue import suite_files, task_files
    from qwen_eval.suites import load_suite
    from qwen_eval.taskspec import find_task

    paths = task_path or ()
    specs = [find_task(name, paths)[0] for name in task_files(paths)]
    suites = [load_suite(path, paths) for path in suite_files(paths).values()]
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


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="What the task is called, and its folder.")],
    to: Annotated[Path, typer.Option(help="A folder for your tasks.")] = Path(),
    solver: Annotated[str, typer.Option(help="choice, generate or code.")] = "choice",
) -> None:
    """Write a task of three rows that runs at once, to begin with."""
    from qwen_eval.catalogue import OURS, suite_files, task_files
    from qwen_eval.fileio import write_atomic

    check_choice("--solver", solver, KINDS)
    if not re.fullmatch(r"[^\W\d]\w*", name) or name == "suites":
        raise UserError(f"tasks new {name}: a name is letters, digits and _, such as capitals")
    if name in task_files() or name in suite_files():
        raise UserError(f"tasks new {name}: there is a task or suite of this name already")
    folder = to / name
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise UserError(f"{folder}: is there already; nothing was written") from error
    except OSError as error:
        raise UserError(f"{folder}: cannot be made ({error.strerror})") from error
    for source in sorted((OURS / "templates" / solver).iterdir()):
        text = source.read_text(encoding="utf-8")
        write_atomic(folder / source.name, text.replace(MARK, name))
        say(f"wrote {folder / source.name}")
    say(f"next: qwen-eval tasks check {folder}")
    say(f"then: qwen-eval run --task-path {to} --tasks {name} --model tiny")


app.command("check")(task_check.command)
app.command("show")(task_show.command)
