"""`qwen-eval compare`: what a candidate does better or worse than a baseline, item by item."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import check_alpha

if TYPE_CHECKING:
    from rich.console import Console

    from qwen_eval.cli.table import ResultsTable
    from qwen_eval.compare import Flip, TaskComparison
    from qwen_eval.results import Run


@dataclass(frozen=True)
class CompareOptions:
    """The options of `compare`."""

    baseline: Annotated[Path, typer.Argument(help="A run directory.")]
    candidate: Annotated[Path, typer.Argument(help="Another one, over the same items.")]
    tasks: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None
    allow: Annotated[
        list[str] | None,
        typer.Option(help="A field that may differ; without it such runs are refused."),
    ] = None
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm.")] = 0.05
    flips: Annotated[int, typer.Option(min=0, help="Changed items to list per task.")] = 5
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(CompareOptions)
def command(options: CompareOptions) -> None:
    """Compare two runs by paired tests: differences with intervals, Holm over the tasks."""
    check_alpha(options.alpha)
    from rich.console import Console

    from qwen_eval.compare import compare_runs
    from qwen_eval.results import read_run

    runs = [read_run(folder) for folder in (options.baseline, options.candidate)]
    found = compare_runs(
        *runs,
        tasks=[name.strip() for name in options.tasks.split(",")] if options.tasks else None,
        allow=options.allow or (),
        alpha=options.alpha,
    )
    console = Console(stderr=options.as_json)
    for name, run in zip(("baseline", "candidate"), runs, strict=True):
        console.print(f"{name:10} {_title(run)}", markup=False, soft_wrap=True)
    console.print()
    console.print(comparison_table(found, options.alpha))
    for one in found:
        for line in notes(one):
            console.print(line, style="yellow", markup=False)
        _print_flips(console, one, options.flips)
    if options.as_json:
        report = {"schema": 1, "baseline": str(options.baseline)}
        report |= {"candidate": str(options.candidate), "alpha": options.alpha}
        print(json.dumps(report | {"tasks": [one.to_json() for one in found]}))


def comparison_table(found: list[TaskComparison], alpha: float) -> ResultsTable:
    """One row per task, in points, or in bits per byte where a rise is a loss."""
    from qwen_eval.cli.table import ResultsTable, Row
    from qwen_eval.measures import measure_of

    rows = []
    for one in found:
        measure = measure_of(one.metric)
        colour = "default"
        if one.p_adjusted <= alpha:
            colour = "red" if one.paired.delta < 0 else "green"
        cells = (
            str(one.paired.n),
            measure.shown(one.baseline),
            measure.shown(one.candidate),
            f"[{colour}]{measure.step(one.paired.delta)}[/]",
            " – ".join(measure.bounds(one.paired.low, one.paired.high)),
            f"{one.p_adjusted:.3f}" if one.p_adjusted >= 0.001 else "<0.001",
            str(one.lost),
            str(one.gained),
            measure.shown(one.detectable),
        )
        rows.append(Row(one.task, cells))
    interval = f"{1 - alpha:.0%} interval"
    names = ("n", "baseline", "candidate", "difference", interval, "p", "lost", "gained")
    return ResultsTable(tuple(rows), (*names, "detectable"))


def notes(one: TaskComparison) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    from qwen_eval.measures import measure_of

    lines = []
    if measure_of(one.metric).sign < 0:
        lines.append(f"{one.task}: {measure_of(one.metric).unit}, less is better")
    units = f", {one.paired.clusters} groups are the units" if one.paired.clusters else ""
    lines.append(f"{one.task}: {one.paired.method}{units}; p is two-sided, Holm's over all tasks")
    if one.differing:
        lines.append(
            f"{one.task}: DIFFERENT {', '.join(one.differing)}: not only the model changed"
        )
    left = ", ".join(f"{count} {why}" for why, count in one.left_out.items() if count)
    if left:
        lines.append(f"{one.task}: left out: {left}")
    noisy = sum(flip.in_noise for flip in one.flips)
    if noisy:
        lines.append(
            f"{one.task}: {noisy} of {len(one.flips)} changed answers lie inside the noise of "
            "dtype and machine"
        )
    return lines


def _title(run: Run) -> str:
    model = run.info.model
    return f"{model.get('name')} {model.get('dtype')}  {run.folder}"


def _print_flips(console: Console, one: TaskComparison, most: int) -> None:
    for flip in one.flips[:most]:
        console.print(_flip_line(flip, one.metric), style="dim", markup=False)
    if len(one.flips) > most > 0:
        console.print(f"  … {len(one.flips) - most} more (--flips)", style="dim")


def _flip_line(flip: Flip, metric: str) -> str:
    from qwen_eval.measures import SHARE, measure_of

    before, after = (repr(answer)[:40] for answer in flip.answers)
    way = "lost  " if flip.lost else "gained"
    where = f" {flip.group}" if flip.group else ""
    if (measure := measure_of(metric)) is not SHARE:
        change = f"{measure.shown(flip.baseline)} → {measure.shown(flip.candidate)}"
        return f"  {way} {flip.id}{where}: {change} {measure.unit}"
    noise = "  (inside the noise)" if flip.in_noise else ""
    return f"  {way} {flip.id}{where}: {before} → {after}, right is {flip.target!r:.40}{noise}"
