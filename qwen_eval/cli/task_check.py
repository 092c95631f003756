"""`qwen-eval tasks check`: what is wrong with a task, before a model is asked.

Every recipe is rendered for every row that can be had, and then asked of two models that are none:
one that is always right must get everything, and one that guesses must be near chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.asking import AcceptNoSandbox
from qwen_eval.cli.options import DataFolder
from qwen_eval.cli.setup import find_functions
from qwen_eval.errors import UserError
from qwen_eval.reports.plain import one_line

if TYPE_CHECKING:
    from qwen_eval.datasets import TaskData
    from qwen_eval.prompts import Renderer
    from qwen_eval.runner import Finished
    from qwen_eval.sandbox.sandbox import Sandbox
    from qwen_eval.taskspec import TaskSpec
    from qwen_eval.types import Item

SHOWN = 5  # faults of one kind that are told one by one
SURELY = 0.9999  # confidence at which a guesser is not near chance


def command(
    file: Annotated[Path, typer.Argument(help="A task.yaml, or its folder.")],
    data: DataFolder = None,
    accept_no_sandbox: AcceptNoSandbox = False,
) -> None:
    """Check a task: schema, every prompt, gold answers, doubles, scorers. Exit 2 for a fault."""
    from qwen_eval.datasets import open_data
    from qwen_eval.taskspec import load_spec

    path = file / "task.yaml" if file.is_dir() else file
    spec = load_spec(path)
    find_functions(spec)
    count = _told(name_faults(spec, path))
    given = [name for name, split in spec.splits.items() if split.given]
    if given:
        print(f"{spec.name}: the rows of {', '.join(given)} are handed in, none can be checked")
    else:
        source = open_data(spec, data)
        count += _told(row_faults(source))
        sandbox = _sandbox(spec, accept_no_sandbox)
        try:
            for recipe in spec.recipes:
                count += _told(recipe_faults(source, recipe, sandbox))
        finally:
            if sandbox is not None:
                sandbox.close()
    if count:
        raise UserError(f"{path}: {count} fault{'s' * (count > 1)}, see above")
    print("no faults")


def name_faults(spec: TaskSpec, path: Path) -> Iterator[str]:
    """A name that is not the folder's, or is another task's."""
    from qwen_eval.catalogue import suite_files, task_files

    folder = path.resolve().parent.name
    if spec.name != folder:
        yield f"name: {spec.name} is not what its folder is called, {folder}"
    other = (task_files() | suite_files()).get(spec.name)
    if other is not None and other.resolve() != path.resolve():
        yield f"name: {spec.name} is that of {other} already"


def row_faults(data: TaskData) -> Iterator[str]:
    """Splits without rows, and rows of the task's own that are there twice."""
    from qwen_eval.fileio import canonical_json

    spec = data.spec
    splits = [spec.eval_split, *filter(None, [spec.haystack])]
    shots = [recipe.shots for recipe in spec.recipes.values() if recipe.shots]
    splits += [shot.split for shot in shots if shot.split is not None]
    for split in dict.fromkeys(splits):
        rows = data.rows(split)
        print(f"{spec.name}: {len(rows)} {split} rows of {data.where(split)} ({data.kind})")
        places: dict[str, int] = {}
        for number, row in enumerate(rows, 1):
            first = places.setdefault(canonical_json(row), number)
            if first < number and spec.splits[split].own is not None:
                yield f"{split} row {number}: is row {first} once more"
        if len(places) < len(rows) and spec.splits[split].own is None:
            print(f"  note: {len(rows) - len(places)} rows are there twice, as published")


def recipe_faults(data: TaskData, recipe: str, sandbox: Sandbox | None) -> Iterator[str]:
    """What is wrong with a recipe's prompts, and with what becomes of right and random replies."""
    from qwen_eval.prompts import Renderer
    from qwen_eval.taskspec import CHOOSING

    renderer = Renderer(data, recipe)
    try:
        items = [renderer.render(sample) for sample in data.samples()]
    except UserError as error:  # no exemplars, for one: it is the same for all rows
        yield str(error)
        return
    number_of = {item.sample.id: number for number, item in enumerate(items, 1)}

    def at(item: Item, what: str) -> str:
        return f"{item.recipe}, row {number_of[item.sample.id]}: {what}"

    asked = [item for item in items if not item.fault]
    yield from (at(item, item.fault) for item in items if item.fault)
    if renderer.recipe.shots:
        yield from (at(item, "is among its own exemplars") for item in asked if _is_leaked(item))
    if not asked:
        return
    if len({(item.prompt, item.options, item.hidden) for item in asked}) == 1 < len(asked):
        yield f"{renderer.recipe_id}: all {len(asked)} rows make the same prompt"
    done = {mode: _ask(mode, renderer, asked, sandbox) for mode in ("oracle", "random")}
    shares = ", ".join(f"mock:{mode} {_shown(found)}" for mode, found in done.items())
    chance = _chance(asked) if renderer.solver in CHOOSING else 0.0
    print(
        f"{renderer.recipe_id}: {len(asked)} of {len(items)} rows rendered, {shares}"
        + (f" (chance {100 * chance:.1f} %)" if chance else "")
    )
    for one in sorted(done["oracle"], key=lambda one: number_of[one.item.sample.id]):
        if what := _not_right(one):
            yield at(one.item, what)
    if chance and not _near(done["random"], chance):
        yield f"{renderer.recipe_id}: mock:random is not near chance, look at gold and options"


def _is_leaked(item: Item) -> bool:
    """Whether an exemplar is the row that is asked."""
    *before, asked = [turn.content for turn in item.prompt.messages] or [
        item.prompt.prefix,
        item.prompt.text,
    ]
    return bool(asked.strip()) and any(asked in text for text in before)


def _ask(
    mode: str, renderer: Renderer, items: list[Item], sandbox: Sandbox | None
) -> list[Finished]:
    from qwen_eval.backends.base import BackendOptions, open_backend
    from qwen_eval.runner import Runner
    from qwen_eval.tasks.solvers import find_solver

    solve = find_solver(renderer.solver, renderer.spec.folder)
    backend = open_backend("mock", mode, BackendOptions())
    return list(Runner(backend, solve, sandbox).run(items))


def _shown(done: Iterable[Finished]) -> str:
    from qwen_eval.measures import measure_of
    from qwen_eval.metrics import estimate_of

    scores = [one.score for one in done if one.score.status not in ("error", "excluded")]
    metric = next(one.item.metric for one in done)
    found = estimate_of(metric, scores)
    measure = measure_of(metric)
    return f"{measure.shown(found.estimate)}{' %' * (measure.scale == 100)}" if found else "–"


def _chance(items: list[Item]) -> float:
    """The mean share that a guesser gets of options."""
    return math.fsum(1 / len(item.options) for item in items) / len(items)


def _near(done: list[Finished], chance: float) -> bool:
    from qwen_eval.stats import wilson_interval

    values = [one.score.values[one.item.metric] for one in done if one.score.status == "scored"]
    low, high = wilson_interval(math.fsum(values), max(len(values), 1), SURELY)
    return low <= chance <= high


def _not_right(one: Finished) -> str | None:
    """Why a reply that should be right is not."""
    from qwen_eval.measures import measure_of, value_of

    if one.error is not None:
        return one.error
    best = 1.0 if measure_of(one.item.metric).sign > 0 else 0.0
    if one.score.status == "excluded" or value_of(one.item.metric, one.score) == best:
        return None
    if any(response.logprobs for response in one.responses):  # options were weighed
        return f"option {one.item.gold} is right and does not win"
    if not one.item.reference:
        return "reference: empty, so nothing says what a right reply is"
    read = f"is read as {one.score.answer!r:.80}" if one.score.answer else "has no answer in it"
    return f"the reference {one.item.reference!r:.80} {read}, the target is {one.item.target!r:.80}"


def _sandbox(spec: TaskSpec, accept_none: bool) -> Sandbox | None:
    from qwen_eval.types import RUN_PROGRAMS

    if not RUN_PROGRAMS & {spec.solver_of(recipe) for recipe in spec.recipes}:
        return None
    from qwen_eval.sandbox import preflight

    assert spec.program is not None
    return preflight.open_sandbox(accept_none=accept_none, languages=[spec.program.language])


def _told(faults: Iterable[str]) -> int:
    """Say each of the first few faults; how many there are."""
    count = 0
    for count, fault in enumerate(faults, 1):
        if count <= SHOWN:
            print(f"fault: {one_line(fault)}")
    if count > SHOWN:
        print(f"fault: … and {count - SHOWN} more like these")
    return count
