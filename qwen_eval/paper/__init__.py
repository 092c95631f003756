"""The published figures of the Qwen Technical Report, as data: one file per table.

A figure is known by its table, because the same model has other figures for the same benchmark in
other tables. Says what was published and under which protocol; knows nothing of runs, and does not
say whether a figure of ours may be held against one of these.
"""

from __future__ import annotations

import sys
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
    task's categories; None for the whole. `metric`: of human judgements, `win`, `tie` or `loss`.

    The protocol, None where it was not published: `shots`, exemplars before the question; `chat`,
    whether it was asked as a conversation; `decoding`; `recipe`, the released script or the harness
    that asked; `scorer`, by the name of ours that reads as it did, or in words; `context`, the
    tokens that longer prompts were cut to; `macro`, whether it is the mean over groups instead of
    that over questions.
    """

    task: str | None = None
    category: str | None = None
    metric: str
    shots: int | None = None
    chat: bool | None = None
    decoding: str | None = None
    recipe: str | None = None
    scorer: str | None = None
    context: int | None = None
    macro: bool | None = None
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
    """One published figure; the fields are those of its table and column. A base model is asked no
    conversation, so that `chat` is known of it."""

    table: str
    model: str
    kind: Kind
    value: float
    unit: Unit
    column: str
    metric: str
    shots: int | None
    chat: bool | None
    decoding: str | None
    recipe: str | None
    scorer: str | None
    context: int | None
    macro: bool | None
    note: str


def tables() -> list[Table]:
    """Every table: the paper's by their numbers, then the others by name. They are shared: do not
    change what is in them."""
    return list(_read())


def published(task: str, category: str | None = None) -> list[Figure]:
    """What was published for a task (`mmlu`, without a recipe) as a whole, or for one of its
    categories; nothing where nothing was."""
    return [
        _figure(table, model, name)
        for table in tables()
        for model, cells in table.rows.items()
        for name, column in table.columns.items()
        if (column.task, column.category) == (task, category) and name in cells
    ]


def _figure(table: Table, model: str, name: str) -> Figure:
    column, kind = table.columns[name], table.kinds.get(model, table.kind)
    return Figure(
        table=table.table,
        model=model,
        kind=kind,
        value=table.rows[model][name],
        unit=table.unit,
        column=name,
        chat=False if kind == "base" else column.chat,
        **column.model_dump(exclude={"task", "category", "chat"}),
    )


# libyaml's where it is there: every run reads these, and it takes a fifth of the time. It cannot be
# had for what users write, since a text nested deep enough ends the process.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@cache
def _read() -> tuple[Table, ...]:
    paths = sorted(Path(__file__).parent.glob("*.yaml"), key=lambda path: _place(path.stem))
    return tuple(
        Table.model_validate(yaml.load(path.read_text(encoding="utf-8"), _LOADER)) for path in paths
    )


def _place(name: str) -> tuple[int, str]:
    number = name.removeprefix("table")
    return (int(number) if number.isdecimal() else sys.maxsize, name)
