"""What the paper published of the tasks of a run, beneath the run's own table: its figures beside
ours, and everything in which the two did not come about alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from qwen_eval.cli.table import ResultsTable, Row
from qwen_eval.measures import measure_of
from qwen_eval.metrics import Estimate, TaskMetrics
from qwen_eval.protocol import UNPUBLISHED, Difference, PaperRow, metric_difference, rows
from qwen_eval.taskspec import DEFAULT_RECIPE

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from qwen_eval.results import RunInfo

Part = tuple[str, str | None]  # a metric and a category, None for the whole


@dataclass(frozen=True)
class Published:
    """A task of the run beside its figures. `metric`: its score's; `ours`: this run's figures, none
    where a score is invalid; `unmatched`: the metric, where nothing was published of the task's;
    `own`: the questions are nobody else's, so that nothing can be published of them."""

    recipe: str
    metric: str
    own: bool
    ours: Mapping[Part, float]
    rows: Sequence[PaperRow]
    unmatched: Difference | None

    @property
    def name(self) -> str:
        """As short as `--tasks` takes it."""
        return self.recipe.removesuffix(f"@{DEFAULT_RECIPE}")

    def to_json(self) -> list[dict[str, Any]]:
        """A row each, what was not published with null for the paper's side."""
        return [
            asdict(row)
            | {"ours": self.ours.get((row.metric, row.category))}
            | {"differences": [asdict(one) | {"text": one.text} for one in row.differences]}
            for row in self.rows
        ]


def beside_paper(info: RunInfo, measured: Sequence[TaskMetrics]) -> list[Published]:
    """What was published of each task of a finished run."""
    return [_published(info, metrics) for metrics in measured]


def _published(info: RunInfo, metrics: TaskMetrics) -> Published:
    task = info.tasks[metrics.recipe]
    found: dict[Part, Estimate | None] = {(metrics.metric, None): metrics.macro or metrics.overall}
    found |= {(metrics.metric, name): value for name, value in metrics.categories.items()}
    found |= {(name, None): value for name, value in metrics.others.items()}
    valid = {} if metrics.invalid else found
    beside = rows(task, info.model, list(found), metrics.counts["prompts_truncated"])
    return Published(
        metrics.recipe,
        metrics.metric,
        task.data_kind in ("own", "given"),
        {part: value.estimate for part, value in valid.items() if value},
        beside,
        # Its figures may stand beside the task's further metrics.
        None if beside else metric_difference(task),
    )


def print_beside(console: Console, found: Sequence[Published]) -> None:
    """The table and what was not alike; nothing where nothing was published."""
    shown = [one for one in found if one.rows]
    if shown:
        console.print()
        console.print("[bold]Beside the paper[/] (Qwen Technical Report, arXiv 2309.16609)")
        console.print(paper_table(shown))
    if shown or any(one.unmatched for one in found):
        console.print()
        console.print("Not as in the paper (here: this run; there: the paper)")
        console.print(_list(found))
        console.print()


def paper_table(found: Sequence[Published]) -> ResultsTable:
    """A line for each row of figures, a column for each model."""
    models = list(dict.fromkeys(m for one in found for row in one.rows for m in row.figures))
    sizes = sorted(
        {_size(model) for model in models}, key=lambda s: (float(s.partition("B")[0]), s)
    )
    lines = []
    for one in found:
        last: Part | None = None
        for row in one.rows:
            part = row.metric, row.category
            shown = measure_of(row.metric).shown
            ours = "" if part == last else shown(one.ours[part]) if part in one.ours else "invalid"
            by_size = {_size(model): f"{value:.1f}" for model, value in row.figures.items()}
            name = f"  {part[1] or part[0]}"
            if part == (one.rows[0].metric, None):
                name = one.recipe if part[0] == one.metric else f"{one.recipe}: {part[0]}"
            lines.append(
                Row(
                    "" if part == last else name,
                    (f"[bold]{ours}[/]", *(by_size.get(size, "–") for size in sizes), _where(row)),
                    "dim" if name.startswith(" ") else "",
                )
            )
            last = part
    headings = [size.replace(" ", "\n") if " " in size else f"Qwen\n{size}" for size in sizes]
    return ResultsTable(
        tuple(lines), ("\nours", *headings, "\npublished in"), words=("\npublished in",)
    )


def _size(model: str) -> str:
    """`Qwen-Chat 7B` → `7B`: whether it chats stands at the end of the line."""
    return model.partition(" ")[2]


def _where(row: PaperRow) -> str:
    shots = "" if row.shots is None else f", {row.shots}-shot"
    return f"{table_name(row.table)}, {row.kind}{shots}"


def table_name(name: str) -> str:
    """`table13` → `table 13`; the files of the release are its README."""
    number = name.removeprefix("table")
    return f"table {number}" if number.isdecimal() else name.partition("_")[0].upper()


def differing(found: Sequence[Published]) -> dict[str, list[str]]:
    """Each difference once, with the tasks that it holds for: by name where it holds beside all of
    a task's rows, else with the table. What holds for all of several tasks is of `all`."""
    said: dict[str, list[str]] = {}
    compared = [one for one in found if one.rows or one.unmatched]
    for one in compared:
        told = [list(_sentences(row)) for row in one.rows]
        told += [[one.unmatched.text]] if one.unmatched else []
        for text in dict.fromkeys(text for each in told for text in each):
            name = one.name
            if not all(text in each for each in told):
                of = (row.table for row, each in zip(one.rows, told, strict=True) if text in each)
                name += f" in {', '.join(map(table_name, dict.fromkeys(of)))}"
            said.setdefault(text, []).append(name)
    every = [one.name for one in compared]
    said = {
        text: ["all"] if names == every and len(every) > 1 else names
        for text, names in said.items()
    }
    if silent := [one.name for one in found if one not in compared and not one.own]:
        said["not published: any figure"] = silent
    return said


def _sentences(row: PaperRow) -> Iterator[str]:
    yield from (one.text for one in row.differences if one.paper is not None)
    unknown = [UNPUBLISHED[one.aspect] for one in row.differences if one.paper is None]
    if unknown:
        yield f"not published: {', '.join(unknown)}"
    if not row.differences:
        yield "no difference known"


def _list(found: Sequence[Published]) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=1, no_wrap=True)
    grid.add_column(overflow="fold")
    for text, names in differing(found).items():
        grid.add_row("·", Text.assemble(text, (f" ({', '.join(names)})", "dim")))
    return grid
