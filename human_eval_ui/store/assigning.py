"""Which pair an annotator compares next.

First what they left open; else a control where one is due; else, of the pairs that still need votes
and that they have not had, one on an item that is new to them, with the fewest votes, in an order
of their own. A pair is leased while
somebody has it in view, so that it gets as many votes as wanted and no more; a lease that ran out
gives the pair to whoever comes next. Knows nothing of pages.
"""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, insert, or_, select, update

from ..study import sides
from ..study.pairs import Pair
from ..study.spec import Answer
from .store import Store, state_of
from .tables import ANNOTATOR, ASSIGNMENT

Kind = Literal["regular", "gold", "repeat"]
APART = 10  # assignments between a pair and its repetition


@dataclass(frozen=True)
class Assignment:
    """A pair in an annotator's hands. `swapped`: the second of its answers stands on the left."""

    id: str
    annotator: str
    pair: str
    kind: Kind
    position: int
    swapped: bool
    state: str
    shown: float


@dataclass(frozen=True)
class Task:
    """What the annotator sees of an assignment, in the order of the page. Without names."""

    assignment: str
    position: int
    category: str
    text: str
    points: tuple[str, ...]
    answer: str | None
    left: Answer
    right: Answer


Idle = Literal["paused", "closed", "finished", "gone"]


def next_assignment(store: Store, annotator: str) -> Assignment | Idle:
    """What they compare now; the same one until they voted or skipped. Its lease begins anew.

    `finished`: they have had all there is for them; `gone`: they were sent away. Raises StoreError.
    """
    with store.writing() as connection:
        if not is_active(connection, annotator):
            return "gone"
        state = state_of(connection)
        if state != "open":
            return "paused" if state == "paused" else "closed"
        found = _left_open(store, connection, annotator) or _given(store, connection, annotator)
        if found is None:
            return "finished"
        connection.execute(
            update(ASSIGNMENT)
            .where(ASSIGNMENT.c.id == found.id)
            .values(leased=store.now() + store.study.spec.lease)
        )
        return found


def task_of(store: Store, assignment: Assignment) -> Task:
    """What an assignment looks like."""
    pair = store.pairs[assignment.pair]
    item = store.study.items[pair.item]
    answers = [answer_of(store, pair, pair.first), answer_of(store, pair, pair.second)]
    left, right = reversed(answers) if assignment.swapped else answers
    return Task(
        assignment.id,
        assignment.position,
        item.category,
        item.text,
        item.points,
        item.answer,
        left,
        right,
    )


def answer_of(store: Store, pair: Pair, system: str) -> Answer:
    """One of a pair's two answers."""
    if pair.gold and system == pair.second:
        return store.pairs.damaged[pair.id]
    return store.study.items[pair.item].answers[system]


def own_progress(store: Store, annotator: str) -> tuple[int, int]:
    """How many pairs an annotator has done, and how many there will be for them at most. Controls
    are counted like any other: who saw the figure stand still would know one."""
    with store.reading() as connection:
        columns = ASSIGNMENT.c
        mine = connection.execute(
            select(columns.pair, columns.kind, columns.state).where(columns.annotator == annotator)
        ).fetchall()
        taken = _occupied(store, connection)
    spec = store.study.spec
    had = {row.pair for row in mine if row.kind == "regular"}
    ended = sum(row.kind == "regular" and row.state == "voted" for row in mine)
    left = sum(taken[name] < spec.overlap for name in store.pairs.regular if name not in had)
    left += sum(row.kind == "regular" and row.state == "open" for row in mine)
    if spec.quota is not None:
        left = min(left, max(spec.quota - ended, 0))
    controls = [row.state for row in mine if row.kind != "regular"]
    done = ended + controls.count("voted")
    ahead = left // (spec.control_every - 1) if spec.control_every else 0
    return done, done + left + max(ahead, controls.count("open"))


def assignment_from(row: Any) -> Assignment:
    """Of a row of the table."""
    return Assignment(
        row.id,
        row.annotator,
        row.pair,
        row.kind,
        row.position,
        row.swapped,
        row.state,
        row.shown,
    )


def _left_open(store: Store, connection: Connection, annotator: str) -> Assignment | None:
    mine = (ASSIGNMENT.c.annotator == annotator) & (ASSIGNMENT.c.state == "open")
    for row in connection.execute(select(ASSIGNMENT).where(mine).order_by(ASSIGNMENT.c.position)):
        if not give_back_if_late(store, connection, row):
            return assignment_from(row)
    return None


def give_back_if_late(store: Store, connection: Connection, row: Any) -> bool:
    """An open assignment whose lease is over, and whose pair others have filled meanwhile, is no
    longer needed: it is given back. Says whether it was."""
    late = row.kind == "regular" and row.leased <= store.now()
    if not (late and is_full(store, connection, row.pair)):
        return False
    connection.execute(update(ASSIGNMENT).where(ASSIGNMENT.c.id == row.id).values(state="returned"))
    store.log(connection, row.annotator, "returned", assignment=row.id)
    return True


def _given(store: Store, connection: Connection, annotator: str) -> Assignment | None:
    mine = connection.execute(
        select(ASSIGNMENT).where(ASSIGNMENT.c.annotator == annotator)
    ).fetchall()
    regular = _next_regular(store, connection, annotator, mine)
    if regular is None:
        return None
    kind: Kind = "regular"
    pair, swapped = regular
    control = _control(store, annotator, mine)
    if control is not None:
        kind, pair, swapped = control
    found = Assignment(
        secrets.token_hex(16),
        annotator,
        pair,
        kind,
        max((row.position for row in mine), default=0) + 1,
        swapped,
        "open",
        store.now(),
    )
    connection.execute(insert(ASSIGNMENT).values(**vars(found), leased=0.0))
    return found


def _next_regular(
    store: Store, connection: Connection, annotator: str, mine: Any
) -> tuple[str, bool] | None:
    study, pairs = store.study, store.pairs.regular
    had = {row.pair for row in mine if row.kind == "regular"}
    quota = study.spec.quota
    if quota is not None:
        voted = sum(row.kind == "regular" and row.state == "voted" for row in mine)
        if voted >= quota:
            return None
    taken = _occupied(store, connection)
    free = [name for name in pairs if name not in had and taken[name] < study.spec.overlap]
    if not free:
        return None
    # Items they have not had come first: an answer that stands beside several is the baseline's.
    items = Counter(pairs[name].item for name in had)
    order = store.order(annotator)
    chosen = min(free, key=lambda name: (items[pairs[name].item], taken[name], order[name]))
    pair = pairs[chosen]
    both = pair.first, pair.second
    number = sum((pairs[name].first, pairs[name].second) == both for name in had)
    return chosen, sides.swapped(study.key, annotator, both, number)


def _control(store: Store, annotator: str, mine: Any) -> tuple[Kind, str, bool] | None:
    """The control that is due: one in every block, at a place that cannot be foreseen; gold and
    repetition by turns."""
    every, key = store.study.spec.control_every, store.study.key
    if not every:
        return None
    block, place = divmod(sum(row.state != "returned" for row in mine), every)
    if place != sides.draw(key, "control", annotator, block) % every:
        return None
    return _repeat(store, annotator, mine) if block % 2 else _gold(store, annotator, mine)


def _gold(store: Store, annotator: str, mine: Any) -> tuple[Kind, str, bool] | None:
    had = {row.pair for row in mine}
    left = [name for name in store.pairs.gold if name not in had]
    if not left:
        return None
    key = store.study.key
    chosen = min(left, key=lambda name: sides.draw(key, "order", annotator, name))
    return "gold", chosen, bool(sides.draw(key, "side", annotator, chosen) % 2)


def _repeat(store: Store, annotator: str, mine: Any) -> tuple[Kind, str, bool] | None:
    """A pair they voted on a while ago, with its sides exchanged."""
    repeated = {row.pair for row in mine if row.kind == "repeat"}
    last = max((row.position for row in mine), default=0)
    old = [
        row
        for row in mine
        if (row.kind, row.state) == ("regular", "voted")
        if row.position <= last - APART
        if row.pair not in repeated
    ]
    if not old:
        return None
    key = store.study.key
    chosen = min(old, key=lambda row: sides.draw(key, "repeat", annotator, row.pair))
    return "repeat", chosen.pair, not chosen.swapped


def is_active(connection: Connection, annotator: str) -> bool:
    """Whether somebody was invited and not sent away."""
    found = select(ANNOTATOR.c.active).where(ANNOTATOR.c.id == annotator)
    return bool(connection.execute(found).scalar_one_or_none())


def is_full(store: Store, connection: Connection, pair: str) -> bool:
    """Whether a regular pair has all its votes, or is about to get them."""
    return _occupied(store, connection)[pair] >= store.study.spec.overlap


def _occupied(store: Store, connection: Connection) -> Counter[str]:
    """How many votes each regular pair has or is about to get."""
    columns = ASSIGNMENT.c
    about_to = (columns.state == "open") & (columns.leased > store.now())
    found = connection.execute(
        select(columns.pair, func.count().label("votes"))
        .where(columns.kind == "regular", or_(columns.state == "voted", about_to))
        .group_by(columns.pair)
    )
    return Counter(dict(found.tuples().all()))
