"""The table of context lengths as plain text: figures, what they prove, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from qwen_eval.context_table import Block, Cell, ContextTable, Row, is_proven
from qwen_eval.crossover import Crossover
from qwen_eval.metrics import Estimate
from qwen_eval.paired import Paired
from qwen_eval.paper import Table

from . import figures
from .plain import one_line

BETTER, WORSE = ("▼", "▲"), ("▲", "▼")  # of perplexity less is better, of right answers more
FEWEST = 6  # of fewer, not even all on one side are a proof at 0.05: 2 * 0.5**5 is more
HOLLOW = {"▼": "▽", "▲": "△"}


def context_text(table: ContextTable, published: Sequence[Table] = ()) -> str:
    """All blocks one below the other, and below them the published tables, if any are given."""
    name = one_line(f"{table.model.get('name')} ({table.model.get('dtype')})", 120)
    lines = [f"{name}, trained on {table.trained_length:,} tokens of context"]
    for block in table.blocks:
        lines += ["", *_block(block, table)]
    for reference in published:
        lines += ["", *_published(reference)]
    return "\n".join(lines) + "\n"


def _block(block: Block, table: ContextTable) -> Iterator[str]:
    what = "perplexity" if block.reads else "right answers in percent"
    yield f"{block.label}: {what}, {_count(block)}, by tokens of context"
    cells = {
        row.label: {
            length: _figure(cell) + _marks(cell, block.reads, at)
            for length, cell in block.cells[row.name].items()
        }
        for at, row in enumerate(table.rows)
    }
    yield from grid(cells, table.lengths, blank="-  ")
    yield from _left_out(block, table.lengths[-1])
    if block.texts and table.rows[1:]:
        better, worse = BETTER if block.reads else WORSE
        yield (
            f"{better} better than base, {worse} worse; {HOLLOW[better]} {HOLLOW[worse]} than the "
            f"row above: paired over the same {_things(block)}, the 95% interval"
        )
        yield "excludes 0 and the exact test agrees (flipped signs, or McNemar's; p <= 0.05)"
    if 0 < block.texts < FEWEST and table.rows[1:]:
        yield f"fewer than {FEWEST} {_things(block)} prove nothing, so nothing is marked"
    if any(row.yarn for row in table.rows):
        yield "yarn: base stretched by YaRN alone, without what is in the rows above"
    yield from _differences(block, table)
    yield from _crossovers(block, table)
    yield from _disagreements(block, table)
    for row in table.rows:
        if block.depths.get(row.name):
            yield from _depths(row, block.depths[row.name], table.lengths)


def grid(
    rows: Mapping[str, Mapping[int, str]], lengths: Sequence[int], blank: str = "-"
) -> Iterator[str]:
    """Names on the left, a column per length, figures to the right."""
    first = max(map(len, rows)) + 1
    width = max(8, *(len(cell) for cells in rows.values() for cell in cells.values()), 0) + 1
    # What follows a figure, its marks, stands behind the column.
    after = len(blank) - 1
    yield (
        " " * first + "".join(f"{length:>{width - after}}{'':{after}}" for length in lengths)
    ).rstrip()
    for name, cells in rows.items():
        yield (
            f"{name:{first}}" + "".join(f"{cells.get(n, blank):>{width}}" for n in lengths)
        ).rstrip()


def _count(block: Block) -> str:
    one = "text" if block.reads else "question"
    return f"{block.texts:,} {one if block.texts == 1 else _things(block)}"


def _things(block: Block) -> str:
    return "texts" if block.reads else "questions"


def _figure(cell: Cell) -> str:
    if cell.perplexity:
        return figures.shown(cell.perplexity.estimate, "perplexity")
    return figures.shown(100 * cell.value.estimate)


def _marks(cell: Cell, reads: bool, at: int) -> str:
    """Two places: against base, and against the row above where that is another one."""

    def mark(paired: Paired | None) -> str:
        if paired is None or not is_proven(paired):
            return " "
        return "▼" if paired.delta < 0 else "▲"

    above = mark(cell.to_above) if at > 1 else " "
    return mark(cell.to_base) + HOLLOW.get(above, " ")


def _left_out(block: Block, longest: int) -> Iterator[str]:
    if block.short:
        yield (
            f"{block.short} of {block.asked} documents are shorter than {longest:,} tokens and "
            "left out"
        )
    if block.failed:
        yield f"{block.failed} of {block.asked} failed in some cell and are left out"


def _differences(block: Block, table: ContextTable) -> Iterator[str]:
    longest = table.lengths[-1]
    found = []
    for at, row in enumerate(table.rows):
        cell = block.cells[row.name].get(longest)
        if cell is None or cell.to_base is None:
            continue
        line = f"to base {_change(cell.to_base, block.reads)}"
        if at > 1 and cell.to_above is not None:
            line += f"; to the row above {_change(cell.to_above, block.reads)}"
        found.append((row.label, line))
    if found:
        unit = "nats per token, below 0 is better" if block.reads else "points"
        yield ""
        yield f"difference at {longest:,} tokens ({unit}; 95% interval)"
        yield from _named(found, table.rows)


def _change(paired: Paired, reads: bool) -> str:
    digits, scale = (4, 1) if reads else (1, 100)
    delta, low, high = (
        f"{scale * x + 0.0:+.{digits}f}".replace("-", "−")
        for x in (paired.delta, paired.low, paired.high)
    )
    return f"{delta} ({low} … {high})" if paired.n > 1 else delta


def _crossovers(block: Block, table: ContextTable) -> Iterator[str]:
    found = [
        (row.label, _position(block.crossovers[row.name]))
        for row in table.rows
        if row.name in block.crossovers
    ]
    if found:
        yield ""
        yield f"better than base for good from this position on, of {table.lengths[-1]:,}"
        yield "(what it saves from there to the end is largest; 95% interval by resampling texts)"
        yield from _named(found, table.rows)


def _position(found: Crossover) -> str:
    def said(place: int | None) -> str:
        return "none" if place is None else f"{place:,}"

    if found.never is None:
        return said(found.position)
    return f"{said(found.position)} ({said(found.low)} … {said(found.high)})"


def _named(lines: Sequence[tuple[str, str]], rows: Sequence[Row]) -> Iterator[str]:
    width = max(len(row.label) for row in rows)
    for label, line in lines:
        yield f"  {label:{width}}  {line}"


def _disagreements(block: Block, table: ContextTable) -> Iterator[str]:
    labels = {row.name: row.label for row in table.rows}
    if block.disagreements:
        yield ""
    for one in block.disagreements:
        sure = "" if is_proven(one.by) else ", not proven"
        yield (
            f"unlike the paper, at {one.length:,} tokens {labels[one.row]} is worse than "
            f"{labels[one.above]}: {_change(one.by, True)} nats per token{sure}"
        )


def _depths(
    row: Row, depths: Mapping[int, Mapping[str, Estimate]], lengths: Sequence[int]
) -> Iterator[str]:
    names = list(dict.fromkeys(name for groups in depths.values() for name in groups))
    cells = {
        f"  {one_line(name, 20)}": {
            length: figures.shown(100 * groups[name].estimate)
            for length, groups in depths.items()
            if name in groups
        }
        for name in names
    }
    yield ""
    yield f"{row.label}: right answers in percent, by depth"
    yield from grid(cells, lengths)


def _published(table: Table) -> Iterator[str]:
    yield f"for reference, {table.title[0].lower()}{table.title[1:]} ({table.source})"
    of = {name: int(name.rpartition("_")[2]) for name in table.columns}
    cells = {
        model: {of[name]: f"{figure:.2f}" for name, figure in found.items()}
        for model, found in table.rows.items()
    }
    yield from grid(cells, list(of.values()))
    yield "other texts, another model and vocabulary: to compare the shape, not the figures"
