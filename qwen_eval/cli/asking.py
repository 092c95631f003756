"""From loaded tasks and an open model to a finished run directory.

Every command that asks tasks goes this way: what was finished before is kept, what is missing is
asked, the scores and DONE are written last. Knows nothing of a command's options, and shows no
result.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.progress import Progress, progress
from qwen_eval.cli.setup import LoadedTask, say
from qwen_eval.cli.solvers import solver_of
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend
    from qwen_eval.metrics import TaskMetrics
    from qwen_eval.ranks import Rank
    from qwen_eval.results import RunInfo
    from qwen_eval.run_writer import RunWriter
    from qwen_eval.sandbox.sandbox import Sandbox
    from qwen_eval.types import Item

AcceptNoSandbox = Annotated[
    bool,
    typer.Option(
        "--accept-no-sandbox",
        help="Run a model's programs even where nothing can contain them.",
    ),
]
Measured = list[tuple[LoadedTask, "TaskMetrics"]]


@dataclass(frozen=True)
class Meter:
    """How the work is counted: `of` is what an item counts, `shown` takes the sum of all and of
    what is done, and gives the Progress to go on with."""

    of: Callable[[Item], int] = lambda _: 1
    shown: Callable[[int, int], AbstractContextManager[Progress]] = progress


@dataclass(frozen=True)
class Asked:
    """A finished run: its scores, and why it cannot be relied upon where too many samples
    failed."""

    measured: Measured
    failure: str | None


def open_sandbox(tasks: list[LoadedTask], accept_none: bool) -> Sandbox | None:
    """A place to run programs, where a task has any; interpreter sessions are tried before a model
    says its first word. Raises RefusedError where there is none and that was not accepted,
    UserError for a package that sessions show and that is missing."""
    if not any(task.info.runs_programs for task in tasks):
        return None
    from qwen_eval.sandbox import preflight

    languages = {task.spec.program.language for task in tasks if task.spec.program is not None}
    sandbox = preflight.open_sandbox(accept_none=accept_none, languages=languages)
    try:
        _try_sessions(tasks, sandbox)
    except BaseException:
        sandbox.close()
        raise
    return sandbox


def _try_sessions(tasks: list[LoadedTask], sandbox: Sandbox) -> None:
    from importlib.metadata import PackageNotFoundError

    from qwen_eval.tasks.solvers import SESSION_PACKAGES

    for task in tasks:
        if task.solver in SESSION_PACKAGES:
            try:
                sandbox.interpreter(SESSION_PACKAGES[task.solver]).close()
            except PackageNotFoundError as error:
                raise UserError(
                    f"--tasks {task.info.recipe}: its programs may import {error.name}, which is "
                    "not installed: pip install 'qwen-eval[interpreter]'"
                ) from error


def ask(
    tasks: list[LoadedTask],
    backend: Backend,
    sandbox: Sandbox | None,
    info: RunInfo,
    out: Path,
    meter: Meter | None = None,
) -> Asked | None:
    """Begin the run in `out`, or go on with it, to its end. None: this process's part of it is
    done, and the rest is with the others that torchrun started.

    Raises UserError where `out` holds another run; KeyboardInterrupt leaves one to be resumed.
    """
    from qwen_eval.ranks import rank_of
    from qwen_eval.run_writer import RunWriter

    items = [item for task in tasks for item in task.items]
    rank = rank_of(os.environ)
    journal = rank.journal if rank else None
    writer = RunWriter(out, info, (item.prompt.prefix for item in items), journal)
    say(f"run directory {out}" + (f", {writer.resumed} samples kept" if writer.resumed else ""))
    try:
        _ask_missing(tasks, backend, sandbox, writer, rank, meter or Meter())
        if rank:
            writer.gather()
            missing = sum((item.recipe, item.sample.id) not in writer.done for item in items)
            if missing:
                say(f"rank {rank.index}: done; {missing} of {len(items)} samples are with others")
                return None
        measured = _summarise(tasks, writer)
        writer.finish(
            [(item.recipe, item.sample.id) for item in items],
            {"schema": 1, "tasks": {row.recipe: row.to_json() for _, row in measured}},
        )
    except KeyboardInterrupt:
        say(f"stopped: {len(writer.done)} of {len(items)} samples kept; the same command goes on")
        raise
    finally:
        writer.close()
    return Asked(measured, _failure(measured, writer))


def _ask_missing(
    tasks: list[LoadedTask],
    backend: Backend,
    sandbox: Sandbox | None,
    writer: RunWriter,
    rank: Rank | None,
    meter: Meter,
) -> None:
    from qwen_eval.provenance import peak_memory
    from qwen_eval.ranks import deal
    from qwen_eval.results import sample_record
    from qwen_eval.runner import Runner

    max_length = backend.info().max_length
    solvers = {task.info.recipe: solver_of(task, max_length) for task in tasks}
    items = [item for task in tasks for item in task.items]
    if rank:
        missing = [i for i in items if (i.recipe, i.sample.id) not in writer.done_before]
        items = deal(missing, rank.count)[rank.index]
    todo = [item for item in items if (item.recipe, item.sample.id) not in writer.done]
    runner = Runner(backend, lambda item: solvers[item.recipe](item), sandbox)
    started, began = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
    invocation: dict[str, Any] = {"started": started, "samples": 0, "tokens": 0, "seconds": 0.0}
    invocation |= {"rank": rank.index, "ranks": rank.count} if rank else {}
    # A run that was stopped may go on where less holds its programs, or more.
    invocation |= {"isolation": sandbox.isolation} if sandbox else {}
    writer.begin(invocation)
    total, left = sum(map(meter.of, items)), sum(map(meter.of, todo))
    try:
        with meter.shown(total, total - left) as bar:
            for done in runner.run(todo):
                writer.add(sample_record(done.item, done.responses, done.score, done.error))
                tokens = sum(r.prompt_tokens + r.output_tokens for r in done.responses)
                invocation["samples"] += 1
                invocation["tokens"] += tokens
                invocation["seconds"] = round(time.perf_counter() - began, 3)
                bar.advance(meter.of(done.item))
    finally:
        invocation["peak_memory"] = peak_memory()


def _summarise(tasks: list[LoadedTask], writer: RunWriter) -> Measured:
    from qwen_eval.metrics import summarise

    rows = []
    for task in tasks:
        records = [writer.done[item.recipe, item.sample.id] for item in task.items]
        rows.append(
            (
                task,
                summarise(
                    task.info.recipe,
                    task.info.metric,
                    records,
                    task.spec.categories,
                    by_design=task.by_design,
                    also=task.spec.also,
                    macro=task.recipe.macro,
                    whole=task.whole(records),
                ),
            )
        )
    return rows


def _failure(measured: Measured, writer: RunWriter) -> str | None:
    failed = [row for _, row in measured if any(r.startswith("errors") for r in row.invalid)]
    if not failed:
        return None
    first = next(r.error for r in writer.done.values() if r.error)
    return f"{failed[0].recipe}: {failed[0].counts['errors']} samples failed, first: {first}"
