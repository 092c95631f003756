"""Tables of reward models: accuracy in the shape of the paper's Table 4, and the part of length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qwen_eval.cli.table import ResultsTable, Row

if TYPE_CHECKING:
    from qwen_eval.paper import Table
    from qwen_eval.train.reward_report import SetReport

Reports = dict[str, dict[str, "SetReport"]]  # by model and set


def accuracy_table(reports: Reports) -> ResultsTable:
    """A row for each model and a column for each set, as in Table 4."""
    sets = list(next(iter(reports.values())))
    rows = []
    for name, found in reports.items():
        cells = tuple(f"[bold]{_percent(found[of].accuracy)}[/]" for of in sets)
        rows.append(Row(name, cells))
        intervals = (f"{_percent(found[of].low)} – {_percent(found[of].high)}" for of in sets)
        rows.append(Row("  95% interval", tuple(intervals), "dim"))
        rows.append(Row("  n", tuple(str(found[of].n) for of in sets), "dim"))
        if any(found[of].ties for of in sets):
            rows.append(Row("  ties", tuple(str(found[of].ties) for of in sets), "dim"))
    return ResultsTable(tuple(rows), _headings(sets), "model", ())


def paper_table(paper: Table) -> ResultsTable:
    """The paper's own rows."""
    rows = [
        Row(name, tuple(f"{cells[column]:.2f}" for column in paper.columns))
        for name, cells in paper.rows.items()
    ]
    return ResultsTable(tuple(rows), _headings(list(paper.columns)), "model", ())


def length_table(reports: Reports) -> ResultsTable:
    """A row for each model and set."""
    columns = (
        "correlation\nwith tokens",
        "longer one,\nby reward",
        "longer one,\nby people",
        "accuracy where\nthe shorter is better",
        "\nof",
    )
    rows = []
    for name, found in reports.items():
        rows.append(Row(name, ("",) * len(columns), "bold"))
        for of, one in found.items():
            correlation = "–" if one.correlation is None else f"{one.correlation:+.2f}"
            shares = (one.longer_by_reward, one.longer_by_people, one.shorter_accuracy)
            cells = (correlation, *map(_percent, shares), f"{one.shorter}/{one.n}")
            rows.append(Row(f"  {of}", cells))
    return ResultsTable(tuple(rows), columns, "set", ())


def _headings(names: Sequence[str]) -> tuple[str, ...]:
    return tuple("\n".join(name.split("_", 1)) if "_" in name else f"\n{name}" for name in names)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f}"
