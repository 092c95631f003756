"""The findings for a terminal: sentences first, then tables for rich to print. English.

Shares are in percent, net preferences in points as the system named sees them, strengths in
log-odds. Names are made harmless, and never read as markup.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from qwen_eval.paired import Paired

from ..analysis.resampling import Estimate
from ..analysis.strength import Coefficient, Strength
from .findings import FAST, Findings, Passed, Told, Verdict
from .words import p_value, percent, plain, points

if TYPE_CHECKING:
    from rich.table import Table

MANY_FAST = 0.1  # the share of an annotator's votes from which haste is told


def sentences(found: Findings) -> list[str]:
    """The verdicts, one line each, then what a reader must know beside them."""
    verdicts = map(_verdict, found.verdicts) if found.baseline else _ranks(found)
    absent = (f"{plain(system)}: no votes." for system in found.unvoted)
    counts = f"{found.votes:,} votes on {found.items:,} items by {found.annotators:,} annotators"
    level = f"intervals at {1 - found.alpha:.0%} over items"
    doubts = (*_without_masked(found), *_doubts(found))
    return [*verdicts, *absent, *doubts, f"{counts}; {level}."]


def tables(found: Findings) -> list[Table]:
    """Shares by category for each system, strengths, agreement and biases, annotators: those that
    have rows. `few`: too few items, or too wide an interval, for a conclusion."""
    made = [_shares(found, verdict) for verdict in found.verdicts]
    made += [_strengths(found), _agreement(found), _annotators(found)]
    return [table for table in made if table.row_count]


def _verdict(one: Verdict) -> str:
    system, baseline = plain(one.system), plain(one.baseline)
    net = f"net {points(one.net.value)} points {_range(one.net)}, p {p_value(one.p)}"
    if one.winner is None:
        said = f"{system} and {baseline} are not told apart: {net}"
        if one.detectable <= 1:
            said += f", where {percent(one.detectable)} points would show"
    elif one.winner == one.system:
        said = f"{system} is preferred to {baseline}: {net}"
    else:
        said = f"{baseline} is preferred to {system}: {net}"
    few = "; TOO FEW for a conclusion" if one.few else ""
    return f"{said} ({one.items:,} items, {one.votes:,} votes){few}."


def _ranks(found: Findings) -> Iterator[str]:
    fit = found.strengths.fit
    if fit is None:
        return
    for one in fit.strengths:
        strength = " ".join(_signed(one))
        yield (
            f"{plain(one.system)}: rank {_ranks_of(one.best, one.worst)} of {len(fit.strengths)}, "
            f"{strength} log-odds against the mean of all."
        )


def _without_masked(found: Findings) -> Iterator[str]:
    """The findings again without what may have been known: the net preferences or, of all pairs,
    the ranks; whatever else only where it ends otherwise."""
    if not found.masked:
        return
    rest = found.unmasked
    without = f"Without the {found.masked:.1%} of votes on answers that named their maker"
    if found.baseline:
        left = {one.system: one for one in rest.verdicts}
        nets = (_net_again(one, left.get(one.system)) for one in found.verdicts)
        yield f"{without}, net: {'; '.join(nets)}."
    before, after = (_places(told) for told in (found, rest))
    if after != before:
        yield f"{without}, ranks by strength: {after or 'nothing left'}."
    elif after and not found.baseline:
        yield f"{without}, every rank is the same."
    for level in ("nominal", "ordinal"):
        whole, part = (getattr(told, level) for told in (found, rest))
        if _beyond(whole) != _beyond(part):
            now = f"is {_alpha(part.value)} {_range(part, _alpha)}" if part else "has nothing left"
            said = "agreement" if _beyond(part) else "no agreement"
            yield f"{without}, {level} alpha {now}: {said} beyond chance."


def _net_again(whole: Verdict, part: Verdict | None) -> str:
    if part is None:
        return f"{plain(whole.system)} nothing left"
    net = f"{plain(part.system)} {points(part.net.value)} {_range(part.net)}"
    if part.winner == whole.winner:
        return net
    return f"{net}, {plain(part.winner)} preferred" if part.winner else f"{net}, not told apart"


def _places(told: Told) -> str:
    fit = told.strengths.fit
    found = sorted(fit.strengths, key=lambda one: one.system) if fit else ()
    return ", ".join(f"{plain(one.system)} {_ranks_of(one.best, one.worst)}" for one in found)


def _beyond(alpha: Estimate | None) -> bool:
    """Whether annotators surely agree more than chance."""
    return alpha is not None and alpha.low > 0


def _doubts(found: Findings) -> Iterator[str]:
    if found.position and _is_sure(found.position.left):
        side = "left" if found.position.left.value > 0 else "right"
        yield f"The {side} side was favoured, by {percent(abs(found.position.left.value))} points."
    hasty = [one.name for one in found.reliability if one.fast > MANY_FAST * one.timed]
    if hasty:
        yield (
            f"More than {MANY_FAST:.0%} of their votes came at over {FAST:g} characters a second "
            f"(all are counted): {', '.join(plain(name, 24) for name in hasty)}."
        )
    for why in dict.fromkeys((found.strengths.why_not, found.styled.why_not)):
        if why:
            yield f"No strengths: {plain(why, 300)}."
    held = [*(fit.separated if (fit := found.strengths.fit) else ())]
    held += [*(fit.separated if (fit := found.styled.fit) else ())]
    if held:
        names = ", ".join(map(plain, dict.fromkeys(held)))
        yield f"Only a prior keeps the strengths of {names} finite: such votes all went one way."


def _shares(found: Findings, verdict: Verdict) -> Table:
    table = _table(
        f"{plain(verdict.system, 30)} against {plain(verdict.baseline, 30)}, percent of votes",
        ("category",),
        ("items", "votes", "win", "tie", "lose", "net", _level(found), "p\n(Holm)", ""),
    )
    for one in (one for one in found.shares if one.system == verdict.system):
        parts = (percent(part.value) for part in (one.win, one.tie, one.lose))
        figures = (one.items, one.votes, *parts, points(one.net.delta), _range(one.net))
        p = verdict.p if one.category is None else one.p_adjusted
        category = "all" if one.category is None else one.category
        _add(table, category, *figures, p_value(p).removeprefix("= "), "few" if one.few else "")
    return table


def _strengths(found: Findings) -> Table:
    base = f"{plain(found.baseline, 24)} is 0" if found.baseline else "the mean of all is 0"
    columns = ("rank", "strength", _level(found), "style held equal", _level(found))
    table = _table(f"Strengths in log-odds, {base}", ("",), columns)
    bare, styled = found.strengths.fit, found.styled.fit
    beside = {one.system: one for one in styled.strengths} if styled else {}
    for one in bare.strengths if bare else ():
        other = beside.get(one.system)
        _add(
            table,
            one.system,
            _ranks_of(one.best, one.worst),
            *_signed(one),
            *(_signed(other) if other else ("–", "–")),
        )
    words = {
        "side": "being on the left",
        "length": "a standard deviation longer",
        "markdown": "a standard deviation more markdown",
    }
    for name, effect in styled.effects.items() if styled else ():
        _add(table, words[name], "", "", "", *_signed(effect))
    return table


def _agreement(found: Findings) -> Table:
    table = _table("Agreement and bias", ("",), ("figure", _level(found)))
    for level, alpha in (("nominal", found.nominal), ("ordinal", found.ordinal)):
        shown = (_alpha(alpha.value), _range(alpha, _alpha)) if alpha else ("–", "")
        _add(table, f"Krippendorff's alpha, {level}", *shown)
    if found.position:
        left = found.position.left
        _add(table, "left side favoured, points", points(left.value), _range(left))
    _add(table, "both bad, percent of votes", percent(found.both_bad), "")
    _add(table, "named its maker, percent of votes", percent(found.masked), "")
    for name, judge in found.judges.items():
        label = f"judge {plain(name, 30)}"
        if judge is None:
            _add(table, f"{label}: no vote on the same", "–", "")
            continue
        same = judge.same
        units = f"{label}: as most annotators, percent of {judge.units:,}"
        _add(table, units, percent(same.value), _range(same, percent))
        if (kappa := judge.kappa) is not None:
            _add(table, f"{label}: kappa", _alpha(kappa.value), _range(kappa, _alpha))
        if (beside := judge.beside) is not None:
            ahead = f"{label}: beside an annotator, points"
            _add(table, ahead, points(beside.delta), _range(beside))
    return table


def _annotators(found: Findings) -> Table:
    systems = [one.system for one in found.verdicts]
    nets = [f"{plain(name, 16)}\nwithout" for name in systems]
    columns = ("votes", "agrees", "alpha\nwithout", *nets, "seconds", "hasty", "gold", "repeats")
    table = _table("Annotators", ("",), columns)
    for one in found.reliability:
        own = one.votes
        agrees = "–" if own is None or own.agreement is None else percent(own.agreement)
        alpha = "–" if own is None or own.without is None else f"{own.without:.3f}"
        _add(
            table,
            one.name,
            own.votes if own else 0,
            agrees,
            alpha,
            *(points(one.without[s]) if s in one.without else "–" for s in systems),
            f"{own.seconds:.1f}" if own else "–",
            _of(one.fast, one.timed),
            _gold(one.gold),
            _of(one.repeats.passed, one.repeats.of) if one.repeats else "–",
        )
    return table


def _of(some: int, of: int) -> str:
    return f"{some} of {of}" if of else "–"


def _gold(one: Passed | None) -> str:
    return f"{_of(one.passed, one.of)} {_range(one.share, '{:.0%}'.format)}" if one else "–"


def _ranks_of(best: int, worst: int) -> str:
    return f"{best}" if best == worst else f"{best} to {worst}"


def _is_sure(one: Estimate) -> bool:
    return one.low * one.high > 0


def _range(one: Estimate | Paired, shown: Callable[[float], str] = points) -> str:
    return f"[{shown(one.low)}, {shown(one.high)}]"


def _signed(one: Strength | Coefficient) -> tuple[str, str]:
    return f"{one.value:+.2f}", f"[{one.low:+.2f}, {one.high:+.2f}]"


def _alpha(value: float) -> str:
    return f"{value:.3f}"


def _level(found: Findings) -> str:
    return f"{1 - found.alpha:.0%} interval"


def _table(title: str, words: Sequence[str], figures: Sequence[str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold",
        title=Text(title, style="bold"), title_justify="left",
    )  # fmt: skip
    for name in words:
        table.add_column(Text(name), overflow="fold")
    for name in figures:
        table.add_column(Text(name), justify="right", overflow="fold")
    return table


def _add(table: Table, *cells: object) -> None:
    from rich.text import Text

    table.add_row(*(Text(plain(str(cell), 80)) for cell in cells))
