"""The table of context lengths as a picture: one self-contained SVG, two panels for each task.

Left the figures by length, each with its interval; right, of texts, the mean loss by position in
the longest context, or of answers the share that is right by depth and length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_eval.context_table import Block, Cell, ContextTable, Profile, Row

from . import charts, figures
from .plain import one_line
from .render import Language, drawing, speaker

WIDTH, HEIGHT = 236.0, 220.0  # of a panel
GAP = 14.0  # pixels between labels
DODGE = 3.0  # pixels between two rows at one length, so that their intervals do not overlap

Place = tuple[float, float]
Measured = tuple[float, float, float | None, float | None]
"""Where on the axis, the figure, and the ends of its interval, if it has one."""


@dataclass(frozen=True)
class Bar:
    """An interval: where across, and from where to where."""

    x: float
    top: float
    bottom: float


@dataclass(frozen=True)
class Line:
    """A row's line: its points as SVG takes them, marks where figures are, and its label's
    height. `kind`: its place in the table, which is its colour."""

    label: str
    kind: int
    path: str
    end: Place
    label_y: float
    marks: tuple[Place, ...] = ()
    bars: tuple[Bar, ...] = ()


@dataclass(frozen=True)
class Panel:
    """Lines over two axes with their ticks; `trained` is where the trained length lies, and
    `told` how high its label stands, in the emptier end of the panel."""

    title: str
    under: str
    lines: tuple[Line, ...]
    across: tuple[tuple[str, float], ...]
    up: tuple[tuple[str, float], ...]
    trained: float | None
    told: float = 5.0


@dataclass(frozen=True)
class Heat:
    """A row's right answers: a cell per depth and length, with the step of its colour."""

    label: str
    kind: int
    lengths: tuple[str, ...]
    depths: tuple[tuple[str, tuple[tuple[str, int] | None, ...]], ...]


@dataclass(frozen=True)
class Drawn:
    """What one task's part of the picture shows."""

    title: str
    left: Panel
    right: Panel | None
    heats: tuple[Heat, ...]


def context_picture(table: ContextTable, *, language: Language = "en") -> str:
    """The SVG. The same table gives the same bytes."""
    say = speaker(language)
    trained, heading = f"{table.trained_length:,}", say("Context beyond the trained length")
    known = {
        "title": f"{heading}: " + one_line(str(table.model.get("name")), 60),
        "trained": say("trained on %(tokens)s", tokens=trained),
        "blocks": [_drawn(block, table, say) for block in table.blocks if block.texts],
        "width": WIDTH,
        "height": HEIGHT,
    }
    return drawing(language, "context.svg", known)


def short(row: Row) -> str:
    """A label that fits beside a line."""
    return row.label.replace("dynamic_ntk", "ntk")


def _drawn(block: Block, table: ContextTable, say: Callable[..., str]) -> Drawn:
    count = f"{block.texts:,}"
    if block.reads:
        read = say("1 text") if block.texts == 1 else say("%(count)s texts", count=count)
    else:
        read = say("1 question") if block.texts == 1 else say("%(count)s questions", count=count)
    profiles = _by_position(block, table, say) if block.profiles else None
    heats = tuple(
        _heat(row, kind, block, table.lengths)
        for kind, row in enumerate(table.rows)
        if block.depths.get(row.name)
    )
    return Drawn(f"{block.label} · {read}", _by_length(block, table, say), profiles, heats)


def _by_length(block: Block, table: ContextTable, say: Callable[..., str]) -> Panel:
    lines = [
        [(float(n), *_figures(cell)) for n, cell in sorted(block.cells[row.name].items())]
        for row in table.rows
    ]
    shown = [x for line in lines for point in line for x in point[1:] if x is not None]
    across = charts.log_axis(map(float, table.lengths), width=WIDTH)
    up = (
        charts.log_axis(shown, width=HEIGHT)
        if block.reads
        else charts.Axis(0.0, 100.0, (0.0, 25.0, 50.0, 75.0, 100.0), HEIGHT)
    )
    return Panel(
        title=say("Perplexity") if block.reads else say("Right answers, percent"),
        under=say("tokens of context"),
        lines=_lines(lines, table.rows, across, up, marked=True),
        across=tuple((f"{n:,}", across.x(n)) for n in table.lengths),
        up=_up(up),
        trained=_within(table.trained_length, across),
        told=5.0 if block.reads else HEIGHT - 8,
    )


def _figures(cell: Cell) -> tuple[float, float | None, float | None]:
    if cell.perplexity:
        return cell.perplexity.estimate, cell.perplexity.low, cell.perplexity.high
    return 100 * cell.value.estimate, *figures.ends(cell.value, "percent")


def _by_position(block: Block, table: ContextTable, say: Callable[..., str]) -> Panel:
    rows = [row for row in table.rows if row.name in block.profiles]
    lines = [_pooled(block.profiles[row.name]) for row in rows]
    end = block.profiles[rows[0].name].end
    across = charts.log_axis([lines[0][0][0], float(end)], width=WIDTH)
    up = charts.axis((point[1] for line in lines for point in line), width=HEIGHT)
    ticks = [n for n in (end // 4**i for i in range(8)) if n >= across.low]
    return Panel(
        title=say("Nats per token at %(length)s", length=f"{table.lengths[-1]:,}"),
        under=say("position in the context"),
        lines=_lines(lines, rows, across, up, marked=False),
        across=tuple((f"{n:,}", across.x(n)) for n in reversed(ticks)),
        up=_up(up),
        trained=_within(table.trained_length, across),
    )


def _pooled(profile: Profile) -> list[Measured]:
    """The mean loss at the middle of stretches that are as wide as they look on the axis: four for
    each doubling of the position, as far as what was kept is as fine."""
    ends = [*profile.starts[1:], profile.end]
    found: list[Measured] = []
    first, nats, tokens = profile.starts[0], 0.0, 0
    for end, some, count in zip(ends, profile.nats, profile.tokens, strict=True):
        nats, tokens = nats + some, tokens + count
        if end >= 2**0.25 * first or end == profile.end:
            found.append(((first + end) / 2, nats / tokens, None, None))
            first, nats, tokens = end, 0.0, 0
    return found


def _lines(
    lines: Sequence[Sequence[Measured]],
    rows: Sequence[Row],
    across: charts.Axis,
    up: charts.Axis,
    *,
    marked: bool,
) -> tuple[Line, ...]:
    drawn = []
    for kind, (row, line) in enumerate(zip(rows, lines, strict=True)):
        aside = DODGE * (kind - (len(rows) - 1) / 2) if marked else 0.0
        places = [
            (round(across.x(x) + aside, 1), round(HEIGHT - up.x(y), 1)) for x, y, _, _ in line
        ]
        drawn += [(kind, row, places)] if places else []
    heights = charts.apart([places[-1][1] for _, _, places in drawn], GAP, 0.0, HEIGHT)
    return tuple(
        Line(
            label=short(row),
            kind=kind,
            path=" ".join(f"{x:g},{y:g}" for x, y in places),
            end=places[-1],
            label_y=height,
            marks=tuple(places) if marked else (),
            bars=_bars(lines[kind], places, up),
        )
        for (kind, row, places), height in zip(drawn, heights, strict=True)
    )


def _bars(line: Sequence[Measured], places: Sequence[Place], up: charts.Axis) -> tuple[Bar, ...]:
    return tuple(
        Bar(x, round(HEIGHT - up.x(high), 1), round(HEIGHT - up.x(low), 1))
        for (x, _), (_, _, low, high) in zip(places, line, strict=True)
        if low is not None and high is not None
    )


def _up(scale: charts.Axis) -> tuple[tuple[str, float], ...]:
    return tuple((f"{tick:,g}", round(HEIGHT - scale.x(tick), 1)) for tick in scale.ticks)


def _within(length: float, scale: charts.Axis) -> float | None:
    return scale.x(length) if scale.low < length < scale.high else None


def _heat(row: Row, kind: int, block: Block, lengths: Sequence[int]) -> Heat:
    groups = block.depths[row.name]
    names = list(dict.fromkeys(name for some in groups.values() for name in some))

    def cell(name: str, length: int) -> tuple[str, int] | None:
        value = groups.get(length, {}).get(name)
        if value is None:
            return None
        return f"{100 * value.estimate:.0f}", charts.heat(value.estimate, 0.0, 1.0)

    return Heat(
        short(row),
        kind,
        tuple(f"{n:,}" if n < 10_000 else f"{n // 1024}k" for n in lengths),
        tuple((one_line(name, 8), tuple(cell(name, n) for n in lengths)) for name in names),
    )
