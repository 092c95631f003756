"""Votes as the analysis wants them: rows with systems and sides, controls apart."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from sqlalchemy import select

from ..analysis.votes import Vote, sign
from ..findings.findings import ControlOutcome
from .assigning import answer_of
from .store import Store
from .tables import ADJUDICATION, ANNOTATOR, ASSIGNMENT, EVENT, VOTE

IDLE = 600.0  # nobody reads for longer: what is beyond was a pause


def votes_of(store: Store) -> list[Vote]:
    """All votes on regular pairs, the earliest first."""
    return [_vote(store, row) for row in _rows(store) if row.kind == "regular"]


def comments_of(store: Store) -> list[dict[str, Any]]:
    """What was written beside votes, with the pair it was written of."""
    return [
        {"annotator": row.annotator, "item": store.pairs[row.pair].item, "pair": row.pair}
        | {"comment": row.comment}
        for row in _rows(store)
        if row.comment
    ]


def controls_of(store: Store) -> list[ControlOutcome]:
    """All controls that were voted on. A repetition passes where the same answer wins, or a tie is
    a tie again."""
    rows = _rows(store)
    first = {(row.annotator, row.pair): _outcome(row) for row in rows if row.kind == "regular"}
    found: list[ControlOutcome] = []
    for row in rows:
        if row.kind == "gold":
            # The second of the pair is damaged.
            found.append(ControlOutcome(row.annotator, "gold", _outcome(row) < 0))
        elif row.kind == "repeat" and (row.annotator, row.pair) in first:
            same = first[row.annotator, row.pair] == _outcome(row)
            found.append(ControlOutcome(row.annotator, "repeat", same))
    return found


def assignments_of(store: Store) -> list[dict[str, Any]]:
    """What everybody was given, in their order. `first`, `second`: of the pair; `swapped`: the
    second stood on the left. `number`: of a regular pair, how many on its two systems the annotator
    was given before; the side is drawn from it (study/sides.py)."""
    order = ASSIGNMENT.c.annotator, ASSIGNMENT.c.position
    with store.reading() as connection:
        rows = connection.execute(select(ASSIGNMENT).order_by(*order)).fetchall()
    given: Counter[tuple[str, str, str]] = Counter()
    found = []
    for row in rows:
        pair = store.pairs[row.pair]
        number = None
        if row.kind == "regular":
            number = given[row.annotator, pair.first, pair.second]
            given[row.annotator, pair.first, pair.second] += 1
        found.append(
            {
                "annotator": row.annotator,
                "pair": row.pair,
                "item": pair.item,
                "first": pair.first,
                "second": pair.second,
                "kind": row.kind,
                "position": row.position,
                "number": number,
                "swapped": row.swapped,
                "state": row.state,
            }
        )
    return found


def people(store: Store) -> dict[str, str]:
    """Names by id, of all who were ever invited."""
    with store.reading() as connection:
        found = connection.execute(select(ANNOTATOR.c.id, ANNOTATOR.c.name))
        return {row.id: row.name for row in found}


def events_of(store: Store) -> Iterator[dict[str, Any]]:
    """Everything that happened, in its order."""
    with store.reading() as connection:
        for row in connection.execute(select(EVENT).order_by(EVENT.c.id)):
            yield {"at": row.at, "who": row.who, "kind": row.kind} | json.loads(row.detail)


def adjudications_of(store: Store) -> dict[str, int]:
    """By pair what the owner decided: from -2, its first answer is much better, to 2."""
    with store.reading() as connection:
        found = connection.execute(select(ADJUDICATION))
        return {row.pair: row.choice for row in found}


def _rows(store: Store) -> list[Any]:
    with store.reading() as connection:
        return list(
            connection.execute(
                select(ASSIGNMENT, VOTE).join(VOTE).order_by(VOTE.c.created, ASSIGNMENT.c.position)
            )
        )


def in_pair_order(row: Any) -> int:
    """The choice of a vote as its pair is named: below zero where its first answer is better."""
    return -int(row.choice) if row.swapped else int(row.choice)


def _outcome(row: Any) -> int:
    """1 where the second of the pair won, -1 where the first did."""
    return sign(in_pair_order(row))


def _vote(store: Store, row: Any) -> Vote:
    pair = store.pairs[row.pair]
    both = pair.first, pair.second
    left, right = reversed(both) if row.swapped else both
    first, second = (answer_of(store, pair, system) for system in (left, right))
    return Vote(
        item=pair.item,
        category=store.study.items[pair.item].category,
        annotator=row.annotator,
        left=left,
        right=right,
        choice=row.choice,
        both_bad=row.both_bad,
        tags=tuple(json.loads(row.tags)),
        masked=bool(first.masked or second.masked),
        left_length=first.length,
        right_length=second.length,
        left_markdown=first.markdown,
        right_markdown=second.markdown,
        seconds=min(row.seconds - row.hidden, IDLE),
    )
