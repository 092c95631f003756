"""The published figures of the Qwen Technical Report, as data: one file per table.

A figure is known by its table, because the same model has other figures for the same benchmark in
other tables. Says what was published and under which protocol; knows nothing of runs, and does not
say whether a figure of ours may be held against one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, model_validator

from qwen_eval.schema import Closed

Kind = Literal["base", "chat", "reward", "long-context", "human"]
Unit = Literal["percent", "perplexity"]


class Column(Closed):
    """What a column measures, in this project's words.

    `task`: the name without a recipe; None where no task of ours asks it. `category`: one of the
    task's categories; None for the whole. `shots`: exemplars before the question; None where the
    table does not say. `metric`: of human judgements, `win`, `tie` or `loss`.
    """

    task: str | None = None
    category: str | None = None
    shots: int | None = None
    metric: str
    note: str = ""


class Table(Closed):
    """One table. All its figures are in `unit`: percent from 0 to 100, or perplexity per token.

    `rows`: model → column → figure; a cell that the table leaves empty is absent. `kinds`: models
    of another kind than the table's.
    """

    table: str
    title: str
    source: str
    kind: Kind
    unit: Unit
    notes: tuple[str, ...] = ()
    columns: dict[str, Column]
    kinds: dict[str, Kind] = Field(default_factory=dict)
    rows: dict[str, dict[str, float]]

    @model_validator(mode="after")
    def _consistent(self) -> Table:
        for model, cells in self.rows.items():
            if unknown := cells.keys() - self.columns.keys():
                raise ValueError(f"rows.{model}: {sorted(unknown)} not among columns")
        if unknown := self.kinds.keys() - self.rows.keys():
            raise ValueError(f"kinds: {sorted(unknown)} not among rows")
        return self


@dataclass(frozen=True)
class Figure:
    """One published figure; the fields are those of its table and column."""

    table: str
    model: str
    kind: Kind
    value: float
    unit: Unit
    shots: int | None
    column: str
    metric: str
    note: str


def tables() -> list[Table]:
    """Every table, by name. They are shared: do not change what is in them."""
    return list(_read())


def published(task: str, category: str | None = None) -> list[Figure]:
    """What was published for a task (`mmlu`, without a recipe) as a whole, or for one of its
    categories; nothing where nothing was."""
    return [
        Figure(
            table=table.table,
            model=model,
            kind=table.kinds.get(model, table.kind),
            value=cells[name],
            unit=table.unit,
            shots=column.shots,
            column=name,
            metric=column.metric,
            note=column.note,
        )
        for table in tables()
        for model, cells in table.rows.items()
        for name, column in table.columns.items()
        if (column.task, column.category) == (task, category) and name in cells
    ]


@cache
def _read() -> tuple[Table, ...]:
    paths = sorted(Path(__file__).parent.glob("*.yaml"))
    return tuple(
        Table.model_validate(yaml.safe_load(path.read_text(encoding="utf-8"))) for path in paths
    )
