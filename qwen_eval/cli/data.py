"""`qwen-eval data`: what a mirror holds, making one where there is a network, and whether its test
sets are known already: to a corpus, or to a model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli import contamination, probe
from qwen_eval.cli.options import TaskPath
from qwen_eval.cli.setup import say
from qwen_eval.errors import MissingDataError, UserError

if TYPE_CHECKING:
    from qwen_eval.datasets import TaskData

app = typer.Typer(
    help="Check a data mirror, make one, find test sets in corpora.", no_args_is_help=True
)
app.command("contamination")(contamination.command)
app.command("probe")(probe.command)


@app.command("check")
def check(
    data: Annotated[Path | None, typer.Option(help="A mirror; else what `run` would use.")] = None,
    task_path: TaskPath = None,
) -> None:
    """Read every split of every task; say where its rows come from, how many, and their hash."""
    from qwen_eval.datasets import open_data
    from qwen_eval.taskspec import find_task, task_names

    failed = []
    paths = task_path or ()
    for name in task_names(paths):
        try:
            spec, _ = find_task(name, paths)
            try:
                source = open_data(spec, data)
            except MissingDataError as error:  # a mirror need not hold every set
                say(f"{name}: {error}")
                continue
            rows = len(source.rows(spec.eval_split))
            others = "".join(_counted(source, split) for split in spec.splits)
            mark = " – SAMPLE, not the benchmark" if source.kind == "sample" else ""
            where = source.where(spec.eval_split)
            print(
                f"{name}: {rows} rows, {others}digest {source.digest()}, {source.kind} "
                f"{where}{mark}"
            )
        except UserError as error:
            failed.append(name)
            say(f"{name}: {error}")
    if failed:
        raise UserError(f"data check: cannot be read whole: {', '.join(failed)}")


def _counted(source: TaskData, split: str) -> str:
    """How many rows a split beside the evaluated one has. One that only other recipes than the
    default one take their exemplars from may be missing, and a line says so."""
    from qwen_eval.taskspec import DEFAULT_RECIPE

    spec = source.spec
    if split == spec.eval_split:
        return ""
    shots = spec.recipes[DEFAULT_RECIPE].shots
    try:
        return f"{len(source.rows(split))} {split} rows, "
    except MissingDataError as error:
        if split == spec.haystack or (shots and shots.split == split):
            raise
        say(f"{spec.name}: {error}")
        return ""


@app.command("pull")
def pull(
    tasks: Annotated[str, typer.Option(help="Tasks, comma-separated.")],
    to: Annotated[Path, typer.Option(help="Folder of the mirror.")],
) -> None:
    """Make a mirror of the tasks' data from the hub, for machines without a network."""
    from qwen_eval.datasets import TaskData, hub_answers, write_mirror
    from qwen_eval.taskspec import find_task

    for name in tasks.split(","):
        spec, _ = find_task(name.strip())
        if spec.splits[spec.eval_split].own is not None:
            raise UserError(f"data pull {name}: this set is the project's own and comes with it")
        if spec.package is not None:
            source = TaskData(spec, "package")
        elif spec.hub is None:
            raise UserError(f"data pull {name}: this task names no data set of the hub")
        elif not hub_answers() and not Path(spec.hub.path).exists():
            raise UserError(f"data pull {name}: the hub does not answer; is there a network?")
        else:
            source = TaskData(spec, "hub")
        try:
            written = write_mirror(source, to)
        except OSError as error:
            raise UserError(f"data pull --to {to}: {error.strerror or error}") from error
        for path in written:
            say(f"wrote {path}")
