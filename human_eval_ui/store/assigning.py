"""Which pair an annotator compares next.

First what they left open; else a control where one is due; else, of the pairs that still need votes
and that they have not had, one with the fewest, in an order of their own. A pair is leased while
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
from .tables import ASSIGNMENT

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


Idle = Literal["paused", "closed", "finished"]


def next_assignment(store: Store, annotator: str) -> Assignment | Idle:
    """What they compare now; the same one until they voted or skipped. Its lease begins anew.

    `finished`: they have had all there is for them. Raises StoreError.
    """
    with store.writing() as connection:
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
    """How many regular pairs an annotator has done, and how many there are for them at most."""
    with store.reading() as connection:
        mine = _regular(connection, annotator)
        taken = _occupied(store, connection)
    done = sum(state == "voted" for state in mine.values())
    wanted = store.study.spec.overlap
    free = sum(taken[name] < wanted for name in store.pairs.regular if name not in mine)
    held = sum(state == "open" for state in mine.values())
    total = done + held + free
    quota = store.study.spec.quota
    return done, total if quota is None else min(total, max(quota, done))


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
        if row.kind != "regular" or row.leased > store.now():
            return assignment_from(row)
        if _occupied(store, connection)[row.pair] < store.study.spec.overlap:
            return assignment_from(row)
        # Others have voted meanwhile: this one is no longer needed.
        connection.execute(
            update(ASSIGNMENT).where(ASSIGNMENT.c.id == row.id).values(state="returned")
        )
        store.log(connection, annotator, "returned", assignment=row.id)
    return None


def _given(store: Store, connection: Connection, annotator: str) -> Assignment | None:
    mine = connection.execute(
        select(ASSIGNMENT).where(ASSIGNMENT.c.annotator == annotator)
    ).fetchall()
    regular = _next_regular(store, connection, annotator, mine)
    if regular is None:
        return None
    every = store.study.spec.control_every
    kept = sum(row.state != "returned" for row in mine)
    kind: Kind = "regular"
    pair, swapped = regular
    if every and (kept + 1) % every == 0:
        turn = (kept + 1) // every % 2  # gold and repetition by turns
        control = _gold(store, annotator, mine) if turn else _repeat(store, annotator, mine)
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
    order = store.order(annotator)
    chosen = min(free, key=lambda name: (taken[name], order[name]))
    pair = pairs[chosen]
    both = pair.first, pair.second
    number = sum((pairs[name].first, pairs[name].second) == both for name in had)
    return chosen, sides.swapped(study.key, annotator, both, number)


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


def _regular(connection: Connection, annotator: str) -> dict[str, str]:
    columns = ASSIGNMENT.c
    found = connection.execute(
        select(columns.pair, columns.state).where(
            columns.annotator == annotator, columns.kind == "regular", columns.state != "returned"
        )
    )
    return dict(found.tuples().all())


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
