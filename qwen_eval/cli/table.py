"""The table at the end of a run: scores with intervals, and everything that weakens them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from qwen_eval.measures import measure_of

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.table import Table
    from rich.text import Text

    from qwen_eval.cli.setup import LoadedTask
    from qwen_eval.metrics import Estimate, TaskMetrics


def written(value: Estimate, metric: str) -> tuple[str, str]:
    """Score and interval as the metric is read: percent, bits per byte, nats per token."""
    shown = measure_of(metric).shown
    return shown(value.estimate), f"{shown(value.low)} – {shown(value.high)}"


COLUMNS = (
    "\nn",
    "\nscore",
    "\n95% interval",
    "no\nanswer",
    "cut\nin",
    "cut\nout",
    "\nerrors",
    "\ndata",
)


@dataclass(frozen=True)
class Row:
    """A line of the table; cells may hold rich's markup."""

    name: str
    cells: tuple[str, ...]
    style: str = ""


@dataclass(frozen=True)
class ResultsTable:
    """One row per task, category averages below it. Where that is wider than the terminal, one
    block per row instead: no number is ever cut. Invalid scores are not printed; footnotes() says
    why. `words`: the columns that hold no numbers."""

    rows: tuple[Row, ...]
    columns: tuple[str, ...] = COLUMNS
    first: str = "task"
    words: tuple[str, ...] = ("\ndata",)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Called by rich, with the width of the terminal."""
        from rich.measure import Measurement

        table = self._table()
        unlimited = options.update(max_width=1000)
        if Measurement.get(console, unlimited, table).maximum <= options.max_width:
            yield table
        else:
            yield from self._blocks()

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("\n" * ("\n" in self.columns[0]) + self.first, no_wrap=True)
        for name in self.columns:
            justify: Literal["left", "right"] = "left" if name in self.words else "right"
            table.add_column(name, justify=justify, no_wrap=True)
        for row in self.rows:
            table.add_row(row.name, *row.cells, style=row.style)
        return table

    def _blocks(self) -> Iterator[Text]:
        from rich.text import Text

        for row in self.rows:
            yield Text(row.name, style=row.style or "bold")
            for name, cell in zip(self.columns, row.cells, strict=False):
                label = " ".join(name.split())
                if cell:
                    yield Text.from_markup(f"    {label:13}{cell}", style=row.style, emoji=False)


def results_table(rows: Sequence[tuple[LoadedTask, TaskMetrics]]) -> ResultsTable:
    """The scores of a run, for rich to print."""
    lines = []
    for task, metrics in rows:
        counts = metrics.counts
        score, interval = ("–", "–")
        if metrics.overall:
            score, interval = written(metrics.overall, metrics.metric)
        elif metrics.metric in metrics.whole:
            score, interval = whole_figure(metrics, metrics.metric), "none"
        if metrics.invalid:
            score, interval = "", "[red]invalid[/]"
        data = "[bold red]SAMPLE[/]" if task.info.data_kind == "sample" else task.info.data_kind
        counted = ("no_answer", "prompts_truncated", "outputs_truncated", "errors")
        cells = (f"[bold]{score}[/]", interval, *(str(counts[name]) for name in counted), data)
        lines.append(Row(metrics.recipe, (str(counts["samples"]), *cells)))
        if metrics.invalid:
            continue
        of_others = [(name, value, name) for name, value in metrics.others.items()]
        parts = [(name, value, metrics.metric) for name, value in metrics.categories.items()]
        if metrics.macro:
            parts.append((f"mean of {len(metrics.groups)} groups", metrics.macro, metrics.metric))
        for name, value, metric in of_others + parts:
            lines.append(Row(f"  {name}", (str(value.n), *written(value, metric)), "dim"))
    return ResultsTable(tuple(lines))


def whole_figure(metrics: TaskMetrics, name: str) -> str:
    """A figure of the whole set as it is read; a dash where it could not be made."""
    value = metrics.whole[name].value
    return "–" if value is None else measure_of(name).shown(value)


def footnotes(rows: Sequence[tuple[LoadedTask, TaskMetrics]]) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    notes = []
    less: dict[str, list[str]] = {}
    for _, row in rows:
        if measure_of(row.metric).sign < 0:
            less.setdefault(measure_of(row.metric).unit, []).append(row.recipe)
    notes += [f"{', '.join(names)}: {unit}, less is better" for unit, names in less.items()]
    for task, metrics in rows:
        if metrics.invalid:
            notes.append(f"{metrics.recipe} is invalid: {'; '.join(metrics.invalid)}")
        if excluded := metrics.counts.get("excluded"):
            why = "without a value" if task.harness else "as too short for the recipe"
            notes.append(
                f"{metrics.recipe}: {excluded} of {metrics.counts['samples']} samples excluded "
                f"{why}"
            )
        notes += [
            f"{metrics.recipe}: {name} {whole_figure(metrics, name)}, made by {figure.by} of "
            f"{figure.n} samples at once, so without an interval"
            for name, figure in metrics.whole.items()
        ]
        if task.info.data_kind == "sample":
            notes.append(
                f"{metrics.recipe}: SAMPLE questions of this project, not the benchmark; name a "
                "data mirror with --data"
            )
        elif task.info.selected < task.info.available:
            notes.append(
                f"{metrics.recipe}: {task.info.selected} of {task.info.available} samples "
                "(a fixed random draw)"
            )
    return notes
