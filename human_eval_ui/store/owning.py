"""What the owner of a study does and sees: progress, pausing, closing, unblinding, adjudication.

Until the study is unblinded nothing here says which system an answer came from. Closing ends the
voting for good, and only what is closed is unblinded; both are written down.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from qwen_eval.errors import RefusedError, UserError

from ..analysis.votes import MOST, sign
from ..findings.findings import FAST, ControlOutcome
from .reading import adjudications_of, controls_of, in_pair_order
from .store import Store, state_of
from .tables import ADJUDICATION, ANNOTATOR, ASSIGNMENT, STUDY, VOTE

COMMAND_LINE = "command line"  # whoever can run commands on the study's folder owns it
_FROM = {
    "paused": ("open",),
    "open": ("paused",),
    "closed": ("open", "paused"),
    "unblinded": ("closed",),
}


@dataclass(frozen=True)
class Standing:
    """How far an annotator is. `fast`: votes given sooner than the answers can be read."""

    id: str
    name: str
    role: str
    active: bool
    votes: int
    skipped: int
    fast: int
    seconds: float  # the median of a vote
    gold: tuple[int, int]  # passed, of
    repeats: tuple[int, int]
    last: float | None


@dataclass(frozen=True)
class Progress:
    """How far a study is: votes on regular pairs, by category too, of those wanted."""

    state: str
    votes: int
    wanted: int
    pairs_done: int
    pairs: int
    categories: dict[str, tuple[int, int]]
    people: tuple[Standing, ...]


@dataclass(frozen=True)
class Dispute:
    """A pair on which annotators contradict each other: for some the one is better, for some the
    other. `choices`: below zero where the pair's first answer is; `decided`: the owner's."""

    pair: str
    item: str
    choices: tuple[int, ...]
    comments: tuple[str, ...]
    decided: int | None


def set_state(store: Store, state: str, who: str) -> None:
    """Pause, reopen, close or unblind. `who`: an owner, or COMMAND_LINE. Raises RefusedError where
    they may not, and where the study's state does not allow it: nothing comes back from closed but
    unblinding."""
    with store.writing() as connection:
        _must_own(connection, who)
        now = state_of(connection)
        if now not in _FROM[state]:
            way = "; close it first" if state == "unblinded" and now != "unblinded" else ""
            raise RefusedError(f"the study is {now} and cannot become {state}{way}")
        connection.execute(update(STUDY).values(state=state))
        store.log(connection, who, state)


def must_be_unblinded(store: Store, what: str) -> None:
    """Raises RefusedError unless names may be known: `what` would show them."""
    state = store.state()
    if state != "unblinded":
        raise RefusedError(
            f"{what}: the study is {state}, and names stay hidden until it is closed and unblinded"
        )


def progress(store: Store) -> Progress:
    """How far it all is."""
    spec = store.study.spec
    with store.reading() as connection:
        rows = connection.execute(
            select(ASSIGNMENT, VOTE.c.choice, VOTE.c.seconds, VOTE.c.hidden, VOTE.c.created)
            .outerjoin(VOTE)
        ).fetchall()  # fmt: skip
        everybody = connection.execute(select(ANNOTATOR).order_by(ANNOTATOR.c.created)).fetchall()
        state = state_of(connection)
    voted = [row for row in rows if (row.kind, row.state) == ("regular", "voted")]
    per_pair = Counter(row.pair for row in voted)
    items = store.study.items
    wanted = Counter(items[pair.item].category for pair in store.pairs.regular.values())
    got = Counter(items[store.pairs[row.pair].item].category for row in voted)
    controls = controls_of(store)
    return Progress(
        state=state,
        votes=len(voted),
        wanted=spec.overlap * len(store.pairs.regular),
        pairs_done=sum(count >= spec.overlap for count in per_pair.values()),
        pairs=len(store.pairs.regular),
        categories={name: (got[name], spec.overlap * count) for name, count in wanted.items()},
        people=tuple(_standing(store, person, rows, controls) for person in everybody),
    )


def disputes(store: Store) -> list[Dispute]:
    """The pairs on which votes contradict each other, those not decided first."""
    with store.reading() as connection:
        rows = connection.execute(
            select(ASSIGNMENT.c.pair, ASSIGNMENT.c.swapped, VOTE.c.choice, VOTE.c.comment)
            .join(VOTE)
            .where(ASSIGNMENT.c.kind == "regular")
            .order_by(VOTE.c.created)
        ).fetchall()
    decided = adjudications_of(store)
    by_pair: dict[str, list[Any]] = {}
    for row in rows:
        by_pair.setdefault(row.pair, []).append(row)
    found = []
    for pair, some in by_pair.items():
        choices = tuple(map(in_pair_order, some))
        if {-1, 1} <= set(map(sign, choices)):
            comments = tuple(row.comment for row in some if row.comment)
            item = store.pairs[pair].item
            found.append(Dispute(pair, item, choices, comments, decided.get(pair)))
    return sorted(found, key=lambda dispute: (dispute.decided is not None, dispute.pair))


def adjudicate(store: Store, pair: str, choice: int, by: str, comment: str = "") -> None:
    """Write down what the owner decides of a pair, in place of what they decided before: it stands
    beside the votes and is none of them. Raises UserError for a choice that is none, RefusedError
    where `by` may not."""
    if abs(choice) > MOST or pair not in store.pairs.regular:
        raise UserError(f"no such decision: {choice} on {pair}")
    with store.writing() as connection:
        _must_own(connection, by)
        values = {"choice": choice, "comment": comment, "by": by, "created": store.now()}
        changed = connection.execute(
            update(ADJUDICATION).where(ADJUDICATION.c.pair == pair).values(values)
        )
        if not changed.rowcount:
            connection.execute(insert(ADJUDICATION).values(pair=pair, **values))
        # Not the choice: a pair is named in the order of its systems' names.
        store.log(connection, by, "adjudicated", pair=pair)


def _must_own(connection: Connection, who: str) -> None:
    mine = (ANNOTATOR.c.id == who) & ANNOTATOR.c.active & (ANNOTATOR.c.role == "owner")
    found = connection.execute(select(ANNOTATOR.c.id).where(mine)).one_or_none()
    if who != COMMAND_LINE and found is None:
        raise RefusedError("only an owner of the study may do this")


def _standing(store: Store, person: Any, rows: Any, controls: list[ControlOutcome]) -> Standing:
    mine = [row for row in rows if row.annotator == person.id]
    voted = [row for row in mine if (row.kind, row.state) == ("regular", "voted")]
    seconds = sorted(row.seconds - row.hidden for row in voted)
    own = [control for control in controls if control.annotator == person.id]

    def met(kind: str) -> tuple[int, int]:
        some = [control.passed for control in own if control.kind == kind]
        return sum(some), len(some)

    return Standing(
        id=person.id,
        name=person.name,
        role=person.role,
        active=person.active,
        votes=len(voted),
        skipped=sum(row.state == "skipped" for row in mine),
        fast=sum(_is_fast(store, row) for row in voted),
        seconds=seconds[len(seconds) // 2] if seconds else 0.0,
        gold=met("gold"),
        repeats=met("repeat"),
        last=max((row.created for row in mine if row.created is not None), default=None),
    )


def _is_fast(store: Store, row: Any) -> bool:
    pair = store.pairs[row.pair]
    answers = store.study.items[pair.item].answers
    read = answers[pair.first].length + answers[pair.second].length
    return bool(read > FAST * (row.seconds - row.hidden))
