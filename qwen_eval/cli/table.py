"""The table at the end of a run: scores with intervals, and everything that weakens them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_eval.metrics import Estimate, TaskMetrics

if TYPE_CHECKING:
    from rich.table import Table

    from qwen_eval.cli.setup import LoadedTask


def percent(value: Estimate) -> tuple[str, str]:
    """Score and interval in percent."""
    return f"{100 * value.estimate:.1f}", f"{100 * value.low:.1f} – {100 * value.high:.1f}"


def results_table(rows: Sequence[tuple[LoadedTask, TaskMetrics]]) -> Table:
    """One row per task, category averages below it, in 80 columns. Invalid scores are not printed;
    footnotes() says why."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("\ntask", no_wrap=True)
    for name in (
        "\nn",
        "\nscore",
        "\n95% interval",
        "no\nanswer",
        "cut\nin",
        "cut\nout",
        "\nerrors",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("\ndata", no_wrap=True)
    for task, metrics in rows:
        counts = metrics.counts
        score, interval = percent(metrics.overall) if metrics.overall else ("–", "–")
        if metrics.invalid:
            score, interval = "", "[red]invalid[/]"
        table.add_row(
            metrics.recipe,
            str(counts["samples"]),
            f"[bold]{score}[/]",
            interval,
            str(counts["no_answer"]),
            str(counts["prompts_truncated"]),
            str(counts["outputs_truncated"]),
            str(counts["errors"]),
            "[bold red]SAMPLE[/]" if task.info.data_kind == "sample" else task.info.data_kind,
        )
        for name, value in metrics.categories.items():
            if not metrics.invalid:
                table.add_row(f"  {name}", str(value.n), *percent(value), style="dim")
    return table


def footnotes(rows: Sequence[tuple[LoadedTask, TaskMetrics]]) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    notes = []
    for task, metrics in rows:
        if metrics.invalid:
            notes.append(f"{metrics.recipe} is invalid: {'; '.join(metrics.invalid)}")
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
