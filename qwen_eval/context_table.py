"""Table 3 of the paper for any model: how far each way of stretching the context carries.

Rows are ways to read the same texts, each a run of its own; columns are lengths of the context,
each a recipe of the task (`longppl_en@4096`). Only texts that have a score in every row and column
enter, so that all cells are of the same texts. Pure: finished runs in, figures out; knows nothing
of how they are drawn.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from qwen_eval.crossover import Crossover, crossover
from qwen_eval.errors import UserError
from qwen_eval.measures import NATS_PER_TOKEN, measure_of, value_of, weights_of
from qwen_eval.metrics import Estimate, estimate, estimate_of, group_order
from qwen_eval.paired import Paired, difference
from qwen_eval.results import Run, SampleRecord

ALPHA = 0.05


@dataclass(frozen=True)
class Row:
    """A way of reading. `name`: also its run directory's. `ntk`, `logn`, `window`: the switches,
    each said explicitly. `yarn`: by the factor that the longest context takes."""

    name: str
    label: str
    ntk: bool = False
    logn: bool = False
    window: bool = False
    yarn: bool = False

    @property
    def published(self) -> bool:
        """Whether the paper has it, and so an order of it and the others."""
        return not self.yarn


ROWS = (
    Row("base", "base"),
    Row("ntk", "+ dynamic_ntk", ntk=True),
    Row("ntk-logn", "+ dynamic_ntk + logn", ntk=True, logn=True),
    Row("all", "+ dynamic_ntk + logn + window", ntk=True, logn=True, window=True),
    Row("yarn", "+ yarn", yarn=True),
)


@dataclass(frozen=True)
class Perplexity:
    """exp(nats per token) and that of the ends of its interval; a single text has none."""

    estimate: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Cell:
    """One row at one length. `value`: in the metric's own unit, and as a perplexity where texts
    are read. `to_base`, `to_above`: it minus the first row, and minus the row above,
    over the same texts (of nats per token, below 0 is better)."""

    value: Estimate
    perplexity: Perplexity | None = None
    to_base: Paired | None = None
    to_above: Paired | None = None


@dataclass(frozen=True)
class Profile:
    """The loss by position in the longest context, summed over all texts: `starts[i]` is the first
    position of a stretch that ends where the next one begins, or at `end`; `nats` and `tokens`
    are what was read there."""

    starts: tuple[int, ...]
    end: int
    nats: tuple[float, ...]
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Disagreement:
    """A cell beyond the trained length that is worse than the one above it, which is never so in
    the paper; `by` how much, in nats per token."""

    length: int
    row: str
    above: str
    by: Paired


@dataclass(frozen=True)
class Block:
    """One task's part of the table. `cells`: row → length → Cell, absent where nothing is known.
    `short`: texts that do not fill the longest context, `failed`: those that failed in some cell;
    both are left out of `texts`. `depths`: row → length → group, where samples have groups."""

    task: str
    metric: str
    data_kind: str
    texts: int
    short: int
    failed: int
    cells: dict[str, dict[int, Cell]]
    profiles: dict[str, Profile]
    crossovers: dict[str, Crossover]
    disagreements: tuple[Disagreement, ...]
    depths: dict[str, dict[int, dict[str, Estimate]]]

    @property
    def label(self) -> str:
        """The task, with SAMPLE behind it where its rows are not the benchmark's."""
        return self.task + (" SAMPLE" if self.data_kind == "sample" else "")

    @property
    def reads(self) -> bool:
        """Whether texts are read, so that figures are perplexities; else answers are counted."""
        return measure_of(self.metric) is NATS_PER_TOKEN

    @property
    def asked(self) -> int:
        """All texts, those left out as well."""
        return self.texts + self.short + self.failed


@dataclass(frozen=True)
class ContextTable:
    """The whole table of one model. `trained_length`: tokens of context it was trained on."""

    model: dict[str, Any]
    trained_length: int
    lengths: tuple[int, ...]
    rows: tuple[Row, ...]
    blocks: tuple[Block, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data; every number as it is, none rounded."""
        return {"schema": 1} | asdict(self)


def is_proven(paired: Paired | None, alpha: float = ALPHA) -> bool:
    """Whether the interval of a difference excludes 0 and its exact test agrees: of few texts an
    interval alone is too sure."""
    return paired is not None and not paired.low <= 0 <= paired.high and paired.p <= alpha


def build(
    runs: Mapping[str, Run],
    rows: Sequence[Row],
    tasks: Sequence[str],
    lengths: Sequence[int],
    trained_length: int,
) -> ContextTable:
    """`runs`: finished ones by row. `tasks`: names without recipes. Raises UserError for runs over
    other texts than one another's, or of several models."""
    first = runs[rows[0].name]
    for row in rows:
        for key in ("name", "fingerprint", "dtype"):
            if (there := runs[row.name].info.model.get(key)) != first.info.model.get(key):
                raise UserError(f"{runs[row.name].folder}: of another model, its {key} is {there}")
    blocks = tuple(_block(task, runs, rows, lengths, trained_length) for task in tasks)
    model = {key: first.info.model.get(key) for key in ("name", "fingerprint", "dtype")}
    return ContextTable(model, trained_length, tuple(lengths), tuple(rows), blocks)


Records = dict[str, dict[int, list[SampleRecord]]]


def _block(
    task: str,
    runs: Mapping[str, Run],
    rows: Sequence[Row],
    lengths: Sequence[int],
    trained_length: int,
) -> Block:
    info = runs[rows[0].name].info.tasks[f"{task}@{lengths[-1]}"]
    records, short, failed = _common(task, runs, rows, lengths)
    cells = _cells(info.metric, records, rows, lengths)
    longest = {row.name: records[row.name][lengths[-1]] for row in rows}
    profiles = {name: _profile(some) for name, some in longest.items() if _have_curves(some)}
    return Block(
        task=task,
        metric=info.metric,
        data_kind=info.data_kind,
        texts=len(longest[rows[0].name]),
        short=short,
        failed=failed,
        cells=cells,
        profiles=profiles,
        crossovers={
            row.name: _crossover(longest[rows[0].name], longest[row.name])
            for row in rows[1:]
            if profiles
        },
        disagreements=tuple(_disagreements(info.metric, cells, rows, trained_length)),
        depths={
            row.name: {
                length: _groups(info.metric, records[row.name][length]) for length in lengths
            }
            for row in rows
            if any(record.group for record in longest[row.name])
        },
    )


def _common(
    task: str, runs: Mapping[str, Run], rows: Sequence[Row], lengths: Sequence[int]
) -> tuple[Records, int, int]:
    """The samples that every cell has, in one order; how many are too short, and how many failed
    or are missing in some cell."""
    found = {
        row.name: {length: runs[row.name].of(f"{task}@{length}") for length in lengths}
        for row in rows
    }
    cells = [cell for by_length in found.values() for cell in by_length.values()]
    ids = list(dict.fromkeys(key for cell in cells for key in cell))
    short = {key for cell in cells for key, r in cell.items() if r.status == "excluded"}
    kept = [key for key in ids if all(key in cell and cell[key].counted for cell in cells)]
    records = {
        row: {length: [cell[key] for key in kept] for length, cell in by_length.items()}
        for row, by_length in found.items()
    }
    return records, len(short), len(ids) - len(short) - len(kept)


def _cells(
    metric: str, records: Records, rows: Sequence[Row], lengths: Sequence[int]
) -> dict[str, dict[int, Cell]]:
    cells: dict[str, dict[int, Cell]] = {row.name: {} for row in rows}
    reads = measure_of(metric) is NATS_PER_TOKEN
    for length in lengths:
        for at, row in enumerate(rows):
            some = records[row.name][length]
            value = estimate_of(metric, some)
            if value is None:
                continue
            cell = Cell(value, _perplexity(value) if reads else None)
            if at:
                base, above = (records[rows[i].name][length] for i in (0, at - 1))
                to_base, to_above = (_difference(metric, other, some) for other in (base, above))
                cell = replace(cell, to_base=to_base, to_above=to_above)
            cells[row.name][length] = cell
    return cells


def _perplexity(value: Estimate) -> Perplexity:
    low, middle, high = (math.exp(min(x, 700.0)) for x in (value.low, value.estimate, value.high))
    return Perplexity(middle, low, high) if value.n > 1 else Perplexity(middle)


def _difference(metric: str, base: Sequence[SampleRecord], row: Sequence[SampleRecord]) -> Paired:
    weights = weights_of(metric, base)
    if weights != weights_of(metric, row):
        raise UserError(f"{base[0].task}: the texts do not weigh the same in all rows; run it anew")
    before, after = ([value_of(metric, record) for record in some] for some in (base, row))
    return difference(before, after, weights=weights, alpha=ALPHA)


def _disagreements(
    metric: str, cells: Mapping[str, Mapping[int, Cell]], rows: Sequence[Row], trained_length: int
) -> list[Disagreement]:
    if measure_of(metric) is not NATS_PER_TOKEN:
        return []
    order = [row for row in rows if row.published]
    return [
        Disagreement(length, row.name, above.name, cell.to_above)
        for above, row in itertools.pairwise(order)
        for length, cell in cells[row.name].items()
        if length > trained_length and cell.to_above and round(cell.to_above.delta, 4) > 0
    ]


def _groups(metric: str, records: Sequence[SampleRecord]) -> dict[str, Estimate]:
    groups: dict[str, list[float]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(value_of(metric, record))
    return {
        name: found for name in sorted(groups, key=group_order) if (found := estimate(groups[name]))
    }


def _have_curves(records: Sequence[SampleRecord]) -> bool:
    return bool(records) and all("curve" in record.detail for record in records)


def _profile(records: Sequence[SampleRecord]) -> Profile:
    width = int(records[0].detail["curve"]["width"])
    nats, counts = (_sums(records, key) for key in ("nats", "counts"))
    read = [i for i, count in enumerate(counts) if count]
    return Profile(
        starts=tuple(width * i for i in read),
        end=width * len(counts),
        nats=tuple(nats[i] for i in read),
        tokens=tuple(int(counts[i]) for i in read),
    )


def _sums(records: Sequence[SampleRecord], key: str) -> list[float]:
    lines = [record.detail["curve"][key] for record in records]
    return [sum(column) for column in zip(*lines, strict=True)]


def _crossover(base: Sequence[SampleRecord], row: Sequence[SampleRecord]) -> Crossover:
    width = int(base[0].detail["curve"]["width"])
    savings = [
        [x - y for x, y in zip(*(r.detail["curve"]["nats"] for r in pair), strict=True)]
        for pair in zip(base, row, strict=True)
    ]
    return crossover([width * i for i in range(len(savings[0]))], savings)
