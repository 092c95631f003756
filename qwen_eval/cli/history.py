"""`qwen-eval history`: scores over many runs, and where they changed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import LANGUAGES, check_choice, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from qwen_eval.changepoints import Change
    from qwen_eval.cli.table import ResultsTable
    from qwen_eval.history import History, Point
    from qwen_eval.measures import Measure
    from qwen_eval.reports.render import Language
    from qwen_eval.trends import Series

BARS = "▁▂▃▄▅▆▇█"
COLUMNS = ("\nmodel", "\nn", "\nscore", "\n95% interval", "run to\nrun", "\nchange")


@dataclass(frozen=True)
class HistoryOptions:
    """The options of `history`."""

    folders: Annotated[
        list[Path] | None, typer.Argument(help="Folders that hold run directories (runs).")
    ] = None
    index: Annotated[
        Path | None, typer.Option(help="Where to keep what was read; FOLDER/.history.sqlite.")
    ] = None
    tasks: Annotated[str | None, typer.Option(help="Only these, comma-separated.")] = None
    model: Annotated[str | None, typer.Option(help="Only this model, by its name.")] = None
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="Draw it as a .html page, too.")
    ] = None
    language: Annotated[str, typer.Option(help="Of the page: en or zh.")] = "en"
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(HistoryOptions)
def command(options: HistoryOptions) -> None:
    """Show the scores of many runs in order of time, with the changes that are proven."""
    from rich.console import Console

    from qwen_eval.history import read_history
    from qwen_eval.reports.plain import one_line
    from qwen_eval.trends import series

    check_choice("--language", options.language, LANGUAGES)
    if options.out is not None and options.out.suffix != ".html":
        raise UserError(f"--out {options.out}: end it in .html")
    folders = options.folders or [Path("runs")]
    history = read_history(folders, options.index, track=_tracked)
    for line in history.damaged:
        say(f"left out: {one_line(line)}")
    if history.unfinished:
        say(f"left out: {history.unfinished} unfinished")
    if not history.kept:
        say("the index cannot be written here, so all runs were read; --index FILE keeps it")
    tasks = [name.strip() for name in options.tasks.split(",")] if options.tasks else None
    found = series(history.results, tasks=tasks, model=options.model)
    if not found:
        raise UserError(_why_nothing(folders, history))
    console = Console(stderr=options.as_json, emoji=False, highlight=False)
    for one in found:
        console.print(f"\n{_title(one)}", style="bold", markup=False, soft_wrap=True)
        console.print(sparkline(one.points, one.key["metric"]), markup=False, soft_wrap=True)
        console.print(series_table(one))
        for line in notes(one):
            console.print(line, style="yellow", markup=False, soft_wrap=True)
    if options.out is not None:
        from qwen_eval.fileio import write_atomic
        from qwen_eval.reports.trend import history_page

        language: Language = "zh" if options.language == "zh" else "en"
        write_atomic(options.out, history_page(found, language=language))
        say(f"wrote {options.out}")
    if options.as_json:
        left_out = {"unfinished": history.unfinished, "damaged": history.damaged}
        report = {"schema": 1, "folders": [str(folder) for folder in folders]} | left_out
        print(json.dumps(report | {"series": [asdict(one) for one in found]}))


def _tracked(runs: list[Path]) -> Iterator[Path]:
    from qwen_eval.cli.progress import progress

    if runs:
        with progress(len(runs)) as bar:
            for run in runs:
                yield run
                bar.advance()


def _why_nothing(folders: Sequence[Path], history: History) -> str:
    from qwen_eval.reports.plain import one_line

    if history.results:
        tasks = sorted({result.task for result in history.results})
        models = sorted({result.point.model for result in history.results})
        return one_line(
            f"no such run: --tasks are {', '.join(tasks)} there, --model {', '.join(models)}"
        )
    return (
        f"{', '.join(map(str, folders))}: no finished run; `qwen-eval run --out "
        f"{folders[0]}/NAME` makes one, or name the folder that holds yours"
    )


def sparkline(points: Sequence[Point], metric: str) -> str:
    """The last 60 scores, from the lowest to the highest; a dot where there is none to show."""
    from qwen_eval.measures import measure_of

    scores = [None if point.invalid else point.score for point in points[-60:]]
    known = [score for score in scores if score is not None]
    low, high = min(known, default=0.0), max(known, default=0.0)
    step = (high - low) / (len(BARS) - 1)
    line = "".join(
        "·" if score is None else BARS[round((score - low) / step) if step else 3]
        for score in scores
    )
    shown = measure_of(metric).shown
    return f"{line}  {shown(low)} – {shown(high)}"


def series_table(one: Series) -> ResultsTable:
    """A row per run, in percent and points or in the metric's own unit; each difference is to the
    last valid score before."""
    from rich.markup import escape

    from qwen_eval.cli.table import ResultsTable, Row
    from qwen_eval.measures import measure_of
    from qwen_eval.reports.plain import one_line

    changes = {change.at: change for change in one.changes}
    measure = measure_of(one.key["metric"])
    rows, before = [], None
    for at, point in enumerate(one.points):
        score, interval, step = "–", "–", ""
        if point.invalid:
            score, interval = "", "[red]invalid[/]"
        elif point.score is not None and point.low is not None and point.high is not None:
            score = measure.shown(point.score)
            interval = f"{measure.shown(point.low)} – {measure.shown(point.high)}"
            rise = 0.0 if before is None else point.score - before
            step = "" if before is None else _step(measure.sign * rise, measure)
            before = point.score
        mark = _mark(changes[at], measure) if at in changes else ""
        cells = (escape(one_line(point.model, 32)), str(point.n), f"[bold]{score}[/]", interval)
        when = escape(one_line(point.started[:16].replace("T", " ")))
        rows.append(Row(when, (*cells, step, mark)))
    return ResultsTable(tuple(rows), COLUMNS, "when (UTC)", ("\nmodel", "\nchange"))


def notes(one: Series) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    from qwen_eval.measures import measure_of
    from qwen_eval.reports.plain import one_line

    measure = measure_of(one.key["metric"])
    lines = [f"{measure.unit}, less is better"] if measure.sign < 0 else []
    places = sum(not point.invalid for point in one.points) - 1
    for change in one.changes:
        after = one.points[change.at]
        before = next(p for p in reversed(one.points[: change.at]) if not p.invalid)
        same = ", same fingerprint" if before.fingerprint == after.fingerprint else ""
        moved = f"{_step(change.delta, measure)} {measure.unit}"
        lines.append(
            f"{moved} from {one_line(after.run)} on{same}: {_p(change.p)} "
            f"over {places} places, {change.items} items, {change.method}; "
            f"qwen-eval compare {_word(before.run)} {_word(after.run)}"
        )
    for point in one.points:
        if point.invalid:
            lines.append(f"{one_line(point.run)} is invalid: {one_line('; '.join(point.invalid))}")
    return lines


def _title(one: Series) -> str:
    from qwen_eval.reports.plain import one_line

    runs = "1 run" if len(one.points) == 1 else f"{len(one.points)} runs"
    parts = [one.task, one.differs, runs]
    if one.key.get("data_kind") == "sample":
        parts.append("SAMPLE questions of this project, not the benchmark")
    return one_line(" · ".join(part for part in parts if part))


def _mark(change: Change, measure: Measure) -> str:
    colour = "red" if change.delta < 0 else "green"
    arrow = "▼" if measure.sign * change.delta < 0 else "▲"
    return f"[{colour}]{arrow} {_step(change.delta, measure)}[/] {_p(change.p)}"


def _word(path: str) -> str:
    """A path as a shell takes it, on one line."""
    import shlex

    from qwen_eval.reports.plain import one_line

    return shlex.quote(one_line(path))


def _step(gain: float, measure: Measure) -> str:
    return measure.step(gain).replace("-", "−")


def _p(p: float) -> str:
    return f"p {p:.3f}" if p >= 0.001 else "p<0.001"
