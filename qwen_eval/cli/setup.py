"""From command-line words to open things: models, tasks with their items."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_eval.errors import MissingDataError, MissingToolError, UserError

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend, BackendOptions
    from qwen_eval.datasets import TaskData
    from qwen_eval.lm_eval.documents import Rendered
    from qwen_eval.lm_eval.loading import Benchmark
    from qwen_eval.metrics import Whole
    from qwen_eval.results import SampleRecord, TaskInfo
    from qwen_eval.taskspec import Recipe, TaskSpec
    from qwen_eval.types import Item

DTYPES = ("auto", "float32", "bfloat16")
LANGUAGES = ("en", "zh")
LM_EVAL = "lm_eval:"  # what the names of tasks of lm-evaluation-harness begin with
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True)
class LoadedTask:
    """A task under one recipe with its items, ready to be asked. `harness`: what else it takes to
    ask one of lm-evaluation-harness."""

    spec: TaskSpec
    info: TaskInfo
    items: list[Item]
    harness: Rendered | None = None

    @property
    def recipe(self) -> Recipe:
        """The one it is asked by."""
        return self.spec.recipes[self.info.recipe.partition("@")[2]]

    @property
    def solver(self) -> str:
        """What asks it."""
        return self.info.solver

    def whole(self, records: Sequence[SampleRecord]) -> dict[str, Whole]:
        """The figures that are made of the whole set, by their metrics' names."""
        if self.harness is None:
            return {}
        from qwen_eval.lm_eval.figures import whole_figures

        return whole_figures(self.harness.task, records)

    @property
    def length(self) -> int:
        """Tokens that the recipe feeds a model at a time; 0 where it sets no length."""
        return self.recipe.length or 0

    @property
    def by_design(self) -> tuple[str, ...]:
        """Limits of metrics.LIMITS that the recipe passes by itself: it cuts long prompts, or takes
        a few tokens of a reply that goes on."""
        cuts = {
            "prompts_truncated": self.recipe.max_prompt_tokens is not None,
            "outputs_truncated": self.solver == "needle",
        }
        return tuple(name for name, own in cuts.items() if own)

    @property
    def label(self) -> str:
        """`mmlu@strict`, with SAMPLE behind it where the rows are not the benchmark's."""
        return self.info.recipe + (" SAMPLE" if self.info.data_kind == "sample" else "")


def say(message: str) -> None:
    """A line for the person at the terminal; stdout stays free for results."""
    print(message, file=sys.stderr, flush=True)


def check_choice(flag: str, value: str, allowed: Sequence[str]) -> None:
    """Raises UserError unless value is one of the allowed words."""
    if value not in allowed:
        raise UserError(f"{flag} {value}: choose one of {', '.join(allowed)}")


def check_alpha(alpha: float) -> None:
    """Raises UserError unless alpha is a chance of a false alarm that tests can be held to."""
    if not 1e-9 <= alpha < 0.5:
        raise UserError(f"--alpha {alpha}: give a chance between 0 and 0.5, such as 0.05")


def parse_bytes(flag: str, text: str | None) -> int | None:
    """`2GiB`, `1.5G`, `800MB` → bytes, always in powers of 1024. Raises UserError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])i?B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise UserError(f"{flag} {text}: give a number and a unit, such as 2GiB or 800MiB")
    return int(float(match[1]) * 1024 ** (1 + "KMGT".index(match[2].upper())))


def parse_limits(text: str | None, recipes: Sequence[str]) -> dict[str, int]:
    """`60`, or `mmlu=60,gsm8k@qwen=4` → samples by recipe, for those that have a limit.

    A bare number comes first and is for all that are not named. Raises UserError for what is no
    number from 1 on, and for a task that is not run.
    """
    from qwen_eval.taskspec import recipe_id

    limits: dict[str, int] = {}
    for part in text.split(",") if text is not None else ():
        name, named, number = part.strip().rpartition("=")
        if not re.fullmatch(r"0*[1-9]\d{0,8}", number, re.ASCII) or (limits and not named):
            raise UserError(f"--limit {text}: give a number from 1 on, or TASK=NUMBER,TASK=NUMBER")
        if not named:
            limits = dict.fromkeys(recipes, int(number))
            continue
        recipe = recipe_id(name)
        if recipe not in recipes:
            raise UserError(f"--limit {text}: {name} is not run; --tasks has {', '.join(recipes)}")
        limits[recipe] = int(number)
    return limits


def load_tasks(
    names: str,
    mirror: Path | None,
    limit: str | None,
    seed: int = 0,
    paths: Sequence[Path] = (),
) -> list[LoadedTask]:
    """`tiny,mmlu,gsm8k@qwen,lm_eval:piqa` → tasks with rendered items, those of a suite one by
    one, those of lm-evaluation-harness last. `seed`: of the recipes that draw replies. `paths`:
    folders of a user's own tasks. Of a suite, tasks whose data are not there, or what runs their
    programs, are left out, and a line says so.

    Raises UserError for any mistake in them."""
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise UserError("--tasks: name at least one; `qwen-eval tasks` lists them")
    from qwen_eval.datasets import open_data
    from qwen_eval.suites import expand
    from qwen_eval.taskspec import find_task, recipe_id

    ours = expand([name for name in wanted if not name.startswith(LM_EVAL)], paths)
    own = [find_task(name, paths) for name in ours]
    theirs = _of_harness([name for name in wanted if name.startswith(LM_EVAL)])
    recipes = [f"{spec.name}@{recipe}" for spec, recipe in own]
    recipes += [benchmark.recipe for benchmark in theirs]
    if len(set(recipes)) < len(recipes):
        raise UserError(f"--tasks {names}: a task is named twice")
    limits = parse_limits(limit, recipes)
    # Recipes of a task ask the same rows, which may be books: they are read once.
    sources: dict[str, TaskData] = {}
    tasks, missing = list[LoadedTask](), dict[str, str]()
    for name, (spec, recipe) in zip(recipes, own, strict=False):
        try:
            _check_language(spec)
            if spec.name not in sources:
                sources[spec.name] = open_data(spec, mirror)
            tasks.append(load_task(sources[spec.name], recipe, limits.get(name), seed))
        except (MissingDataError, MissingToolError) as error:
            if name in map(recipe_id, wanted):
                raise
            missing[name] = str(error)
    for name, reason in missing.items():
        say(f"{name}: left out of the suite: {reason}")
    tasks += [_load_benchmark(one, limits.get(one.recipe)) for one in theirs]
    if not tasks:
        raise UserError(f"--tasks {names}: nothing is left; name a mirror of the data with --data")
    return tasks


def _of_harness(names: Sequence[str]) -> list[Benchmark]:
    if not names:
        return []
    from qwen_eval.lm_eval.loading import benchmarks

    return [one for name in names for one in benchmarks(name)]


def _load_benchmark(benchmark: Benchmark, limit: int | None) -> LoadedTask:
    from qwen_eval.lm_eval.documents import render

    rendered = render(benchmark, limit)
    return LoadedTask(rendered.spec, rendered.info, rendered.items, rendered)


def _check_language(spec: TaskSpec) -> None:
    """Raises MissingToolError where nothing here runs the programs that a task asks for."""
    if spec.program is None or spec.program.language == "Python":
        return
    from qwen_eval.sandbox.toolchains import toolchain

    try:
        toolchain(spec.program.language)
    except MissingToolError as error:
        raise MissingToolError(f"--tasks {spec.name}: asks for {error}") from None


def find_functions(spec: TaskSpec) -> None:
    """Look up every solver and scorer that a task names; code of its own is loaded here. Raises
    UserError for what is not there."""
    from qwen_eval.tasks.own import own_file
    from qwen_eval.tasks.scorers import (
        find_call_reader,
        find_cut,
        find_measure,
        find_reader,
        find_reading,
    )
    from qwen_eval.tasks.solvers import find_solver

    finders = {"choice": find_measure, "contexts": find_measure, "code": find_cut}
    finders |= {"react": find_call_reader, "code_interpreter": find_reading}
    finders |= dict.fromkeys(("generate", "needle"), find_reader)
    named = [(spec.solver_of(name), recipe.scorer) for name, recipe in spec.recipes.items()]
    named += [(spec.solver, scorer) for scorer in spec.panel]
    try:
        for solver, scorer in named:
            find_solver(solver, spec.folder)
            if solver in finders:
                finders[solver](scorer, spec.folder)
            elif own_file(scorer):
                find_reader(scorer, spec.folder)
    except UserError as error:
        raise UserError(f"{spec.folder / 'task.yaml'}: {error}") from error


def load_task(data: TaskData, recipe: str, limit: int | None = None, seed: int = 0) -> LoadedTask:
    """A task's rows, or the `limit` that take() draws, rendered under one of its recipes. Raises
    UserError where not one of them can be asked, and for a scorer or solver that is not there."""
    from qwen_eval.datasets import take
    from qwen_eval.prompts import Renderer, prompts_digest
    from qwen_eval.results import TaskInfo

    spec = data.spec
    find_functions(spec)
    samples = data.samples()
    chosen = take(samples, limit)
    renderer = Renderer(data, recipe, seed)
    items = [renderer.render(sample) for sample in chosen]
    if all(item.fault for item in items):
        raise UserError(f"{renderer.recipe_id}, sample {items[0].sample.id}: {items[0].fault}")
    info = TaskInfo(
        recipe=renderer.recipe_id,
        version=spec.version,
        recipe_version=renderer.recipe.version,
        spec_digest=spec.digest,
        solver=renderer.solver,
        metric=spec.metric,
        scorer=renderer.recipe.scorer,
        data_kind=data.kind,
        data_source=data.where(spec.eval_split),
        data_digest=data.digest(),
        prompts_digest=prompts_digest(items),
        available=len(samples),
        selected=len(items),
        shots=renderer.recipe.shots.count if renderer.recipe.shots else 0,
        protocol=renderer.recipe.source,
        chat=renderer.recipe.chat,
        max_prompt_tokens=renderer.recipe.max_prompt_tokens,
        decoding=_decoding(renderer.recipe),
        macro=renderer.recipe.macro,
    )
    return LoadedTask(spec, info, items)


def _decoding(recipe: Recipe) -> str:
    if not recipe.temperature:
        return "greedy"
    parts = [f"temperature {recipe.temperature:g}"]
    parts += [f"top-p {recipe.top_p:g}"] if recipe.top_p < 1 else []
    parts += [f"{recipe.repeats} replies"] if recipe.repeats > 1 else []
    return ", ".join(parts)


def name_samples(tasks: Sequence[LoadedTask]) -> None:
    """A line for every task whose rows are not the benchmark's."""
    for task in tasks:
        if task.info.data_kind == "sample":
            say(f"{task.info.recipe}: SAMPLE questions of this project, not the benchmark (--data)")


def fitting(tasks: Sequence[LoadedTask], max_length: int) -> list[LoadedTask]:
    """Those that a model's context is long enough for; 0 where that is not known. One line says
    which are left out. Raises UserError if nothing is left."""
    kept = [task for task in tasks if not max_length or task.length <= max_length]
    if len(kept) == len(tasks):
        return kept
    left = ", ".join(task.info.recipe for task in tasks if task.length > max_length)
    why = f"{left}: longer than this model's context of {max_length:,} tokens"
    if not kept:
        raise UserError(f"--tasks {why}, and nothing else is asked (--max-length, --ntk)")
    say(f"{why}; left out (--max-length, --ntk)")
    return kept


def open_model(name: str, options: BackendOptions) -> Backend:
    """Resolve and open `--model`."""
    from qwen_eval.backends.base import open_backend
    from qwen_eval.cli.names import resolve

    resolved = resolve(name)
    if resolved.note:
        say(f"model {name}: {resolved.note}")
    return open_backend(resolved.backend, resolved.target, options)
