"""`qwen-eval explain`: why one model has two scores under two recipes of a task."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.asking import AcceptNoSandbox, ask, open_sandbox
from qwen_eval.cli.options import TaskPath, command_from
from qwen_eval.cli.run import RunOptions, open_backend, run_info
from qwen_eval.cli.setup import LoadedTask, load_task, say
from qwen_eval.cli.solvers import solver_of
from qwen_eval.errors import RefusedError, UserError

if TYPE_CHECKING:
    from qwen_eval.attribution import Effect, Step
    from qwen_eval.backends.base import Backend
    from qwen_eval.results import Run, SampleRecord
    from qwen_eval.sandbox.sandbox import Sandbox

Records = dict[str, "SampleRecord"]


@dataclass(frozen=True)
class ExplainOptions:
    """The options of `explain`."""

    run_a: Annotated[Path, typer.Argument(help="A run directory.")]
    run_b: Annotated[Path, typer.Argument(help="Another of the same model, or the same one.")]
    recipes: Annotated[
        str | None, typer.Option(help="Which two, where that is not plain: gsm8k@qwen,gsm8k.")
    ] = None
    data: Annotated[Path | None, typer.Option(help="The mirror that the runs used.")] = None
    task_path: TaskPath = None
    model: Annotated[str | None, typer.Option(help="The model, if it has moved.")] = None
    out: Annotated[Path, typer.Option(help="Folder for what is asked on the way.")] = Path(
        "runs/explain"
    )
    accept_no_sandbox: AcceptNoSandbox = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(ExplainOptions)
def command(options: ExplainOptions) -> None:
    """Attribute the gap between two recipes to prompt, exemplars, seam, cuts and reading."""
    from qwen_eval.results import read_run

    runs = (read_run(options.run_a), read_run(options.run_b))
    _check_same_model(*runs)
    found = []
    for names in _pairs(*runs, options.recipes):
        way = _Way(runs, names, options)
        try:
            found.append(way.explained())
        finally:
            way.close()
    if options.as_json:
        print(json.dumps({"explained": found}))


def _check_same_model(a: Run, b: Run) -> None:
    for key in ("fingerprint", "dtype"):
        there, here = a.info.model.get(key), b.info.model.get(key)
        if there != here:
            raise RefusedError(
                f"{b.folder}: model.{key} is {there} in {a.folder}, {here} here; recipes are held "
                "against each other on one model"
            )
    for run in (a, b):
        if not run.finished:
            raise RefusedError(f"{run.folder}: the run is not finished; let it end")


def _pairs(a: Run, b: Run, recipes: str | None) -> list[tuple[str, str]]:
    """(recipe in A, recipe in B) of every task that both have."""
    from qwen_eval.taskspec import recipe_id

    if recipes is not None:
        names = [recipe_id(name.strip()) for name in recipes.split(",") if name.strip()]
        if len(names) != 2 or names[0].partition("@")[0] != names[1].partition("@")[0]:
            raise UserError(f"--recipes {recipes}: name two recipes of one task, A's and B's")
        for name, run in zip(names, (a, b), strict=True):
            if name not in run.info.tasks:
                raise UserError(f"--recipes {recipes}: {run.folder} has no {name}")
        return [(names[0], names[1])]
    pairs = [
        (one, other)
        for one in a.info.tasks
        for other in b.info.tasks
        if one != other and one.partition("@")[0] == other.partition("@")[0]
    ]
    if not pairs:
        raise UserError(
            f"{a.folder} and {b.folder}: no task was asked by one recipe there and another here"
        )
    tasks = [one.partition("@")[0] for one, _ in pairs]
    if twice := next((task for task in tasks if tasks.count(task) > 1), None):
        raise UserError(f"{twice}: asked by several recipes; name two with --recipes A,B")
    return pairs


class _Way:
    """From one recipe of a task to another. A model is opened only where something new is asked."""

    def __init__(self, runs: tuple[Run, Run], names: tuple[str, str], options: ExplainOptions):
        from qwen_eval.datasets import open_data
        from qwen_eval.taskspec import find_task

        self.runs, self.names, self.options = runs, names, options
        self.spec, _ = find_task(names[0], options.task_path or ())
        self.data = open_data(self.spec, options.data)
        infos = [run.info.tasks[name] for run, name in zip(runs, names, strict=True)]
        for run, info in zip(runs, infos, strict=True):
            if info.data_digest != self.data.digest():
                raise UserError(
                    f"{run.folder}: {info.recipe} was run on other rows than "
                    f"{self.data.where(self.spec.eval_split)}; name its mirror with --data"
                )
        self.limit = min(info.selected for info in infos)
        self.seed = int(runs[0].info.settings.get("seed") or 0)
        self.backend: Backend | None = None
        self.sandbox: Sandbox | None = None
        self.replies: dict[tuple[str, str], Records] = {}
        recipes = [name.partition("@")[2] for name in names]
        self.ends = [load_task(self.data, recipe, self.limit, self.seed) for recipe in recipes]
        for run, name, task in zip(runs, names, self.ends, strict=True):
            self.replies[_asked(task)] = run.of(name)

    def close(self) -> None:
        """Let the model and the sandbox go."""
        for held in (self.backend, self.sandbox):
            if held is not None:
                held.close()

    def explained(self) -> dict[str, Any]:
        """Print the way and give it as data."""
        from qwen_eval.attribution import effect, steps

        first, last = self.ends
        groups = {item.sample.id: item.sample.group for item in first.items}
        factors = steps(first.recipe, last.recipe)
        way = [first, *map(self._at, factors)]
        tried = [self._values(task, self._replies(task)) for task in way]
        kept = [i for i in groups if all(i in scored for scored in tried)]
        if not kept:
            raise RefusedError(f"{self.names[0]}: no item has a score all the way")
        effects = [
            effect(
                step.factor,
                [tried[at][i] for i in kept],
                [tried[at + 1][i] for i in kept],
                [groups[i] for i in kept],
                macro=(way[at].recipe.macro, step.recipe.macro),
            )
            for at, step in enumerate(factors)
        ]
        begin = effects[0].score - effects[0].delta if effects else 0.0
        self._print(begin, effects, len(kept), len(groups) - len(kept))
        return {
            "recipes": self.names,
            "n": len(kept),
            "left_out": len(groups) - len(kept),
            "start": begin,
            "effects": [asdict(one) for one in effects],
        }

    def _at(self, step: Step) -> LoadedTask:
        """The task under a recipe that it does not have."""
        name = f"{self.names[0].partition('@')[2]}+{step.factor.replace(' ', '-')}"
        spec = self.spec.model_copy(update={"recipes": {**self.spec.recipes, name: step.recipe}})
        return load_task(replace(self.data, spec=spec), name, self.limit, self.seed)

    def _replies(self, task: LoadedTask) -> Records:
        """What the model answered where it was asked so; it is asked if it was not."""
        asked = _asked(task)
        if asked not in self.replies:
            self.replies[asked] = self._ask(task)
        return self.replies[asked]

    def _ask(self, task: LoadedTask) -> Records:
        from qwen_eval.results import identity_digest, read_samples

        model = self.runs[0].info.model
        options = _as_run(self.runs[0], self.options)
        if self.backend is None:
            self.backend = open_backend(options, [])
            found = self.backend.info().fingerprint
            if found != model.get("fingerprint"):
                raise RefusedError(
                    f"--model {options.model}: fingerprint {found}, the runs asked "
                    f"{model.get('fingerprint')}"
                )
        info = run_info([task], asdict(self.backend.info()), self._sandbox(task), options)
        folder = self.options.out / f"{task.info.recipe}-{identity_digest(info)}"
        say(f"asking {task.info.recipe}")
        ask([task], self.backend, self._sandbox(task), info, folder)
        return {record.id: record for record in read_samples(folder)}

    def _sandbox(self, task: LoadedTask) -> Sandbox | None:
        if self.sandbox is None:
            self.sandbox = open_sandbox([task], self.options.accept_no_sandbox)
        return self.sandbox

    def _values(self, task: LoadedTask, records: Records) -> dict[str, float]:
        """The items' values under a recipe, out of stored replies."""
        from concurrent.futures import ThreadPoolExecutor

        items = [item for item in task.items if item.sample.id in records]
        sandbox = self._sandbox(task)
        with ThreadPoolExecutor(2) as pool:
            found = pool.map(partial(_value, task, records, sandbox), items)
        return {name: value for name, value in found if value is not None}

    def _print(self, start: float, effects: list[Effect], n: int, left_out: int) -> None:
        from rich.console import Console

        from qwen_eval.cli.table import ResultsTable, Row
        from qwen_eval.measures import measure_of

        measure = measure_of(self.spec.metric)
        rows = [Row(self.names[0], (measure.shown(start), "", "", "", ""), "bold")]
        for one in effects:
            interval = (
                " – ".join(measure.bounds(one.paired.low, one.paired.high))
                if one.paired
                else "every item keeps its value"
            )
            step = measure.step(measure.sign * one.delta)
            cells = (measure.shown(one.score), step, interval, str(one.lost), str(one.gained))
            rows.append(Row(f"  {one.factor}", cells))
        end = effects[-1].score if effects else start
        gap = measure.step(measure.sign * (end - start))
        rows.append(Row(self.names[1], (measure.shown(end), gap, "", "", ""), "bold"))
        console = Console(stderr=self.options.as_json)
        columns = ("score", "change", "95% interval", "down", "up")
        console.print(ResultsTable(tuple(rows), columns, self.spec.name, ("95% interval",)))
        console.print(
            f"{n} items, asked one factor after the other in this order; what a factor changes "
            "depends on those before it"
            + (f"; {left_out} items without a score somewhere are left out" if left_out else ""),
            style="dim",
        )


def _asked(task: LoadedTask) -> tuple[str, str]:
    """Equal for two recipes that ask the same in the same way, whatever they make of replies."""
    return task.solver, task.info.prompts_digest


def _value(
    task: LoadedTask, records: Records, sandbox: Sandbox | None, item: Any
) -> tuple[str, float | None]:
    from qwen_eval.measures import value_of
    from qwen_eval.results import response_from
    from qwen_eval.runner import replay
    from qwen_eval.types import UNSCORED

    record = records[item.sample.id]
    if record.status in UNSCORED:
        return record.id, None
    if record.task == task.info.recipe:
        return record.id, value_of(task.info.metric, record)
    replies = [response_from(response) for response in record.responses]
    score = replay(solver_of(task)(item), replies, sandbox, task.info.metric)
    return record.id, None if score.status in UNSCORED else value_of(task.info.metric, score)


def _as_run(run: Run, options: ExplainOptions) -> RunOptions:
    """The options under which a run asked its model."""
    info, known = run.info, RunOptions.__dataclass_fields__
    kept = {key: value for key, value in info.settings.items() if key in known}
    return RunOptions(
        tasks="",
        model=options.model or str(info.model["asked_for"]),
        dtype=info.model.get("dtype") or "auto",
        **kept,
    )
