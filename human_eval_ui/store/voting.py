"""A vote, a skip, and taking the last one back.

Each names the assignment that it was meant for, so a second press of a key, a second tab or an old
page can never vote on what comes next. Knows nothing of pages.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import Connection, delete, insert, select, update

from qwen_eval import __version__
from qwen_eval.errors import UserError

from ..analysis.votes import MOST
from .assigning import give_back_if_late, is_active, is_full
from .store import Store, state_of
from .tables import ASSIGNMENT, VOTE

Tag = Literal["factual", "instructions", "language", "unsafe", "format"]
TAGS: tuple[Tag, ...] = get_args(Tag)
Outcome = Literal["kept", "already", "early", "not yours", "paused", "closed"]
LONGEST = 4000  # characters of a comment that are kept


@dataclass(frozen=True)
class Ballot:
    """What an annotator says of an assignment. `choice` from -2, the left answer is much better, to
    2; `hidden`: seconds that the page was out of sight, `lost` times."""

    choice: int
    both_bad: bool = False
    tags: tuple[str, ...] = ()
    comment: str = ""
    hidden: float = 0.0
    lost: int = 0

    def __post_init__(self) -> None:
        if abs(self.choice) > MOST or set(self.tags) - set(TAGS):
            raise UserError(f"no such vote: {self.choice} with tags {', '.join(self.tags)}")


@dataclass(frozen=True)
class Undone:
    """What was taken back; `ballot` is None of a skip."""

    assignment: str
    ballot: Ballot | None


def cast(store: Store, annotator: str, assignment: str, ballot: Ballot) -> Outcome:
    """Keep a vote; `kept` is said when it is on disk. Any other outcome changes nothing: it was
    voted or skipped `already`, too `early` to have been read, somebody else's or given to others
    after its lease, or the study does not run. Raises StoreError.
    """
    with store.writing() as connection:
        row, refused = _open(store, connection, annotator, assignment)
        if refused:
            return refused
        if give_back_if_late(store, connection, row):
            return "not yours"
        seconds = store.now() - row.shown
        if 0 <= seconds < store.study.spec.dwell:  # a clock that was set back knows nothing
            return "early"
        seconds = max(seconds, 0.0)
        connection.execute(
            insert(VOTE).values(
                assignment=assignment,
                choice=ballot.choice,
                both_bad=ballot.both_bad,
                tags=json.dumps([tag for tag in TAGS if tag in ballot.tags]),
                comment=_storable(ballot.comment)[:LONGEST],
                seconds=seconds,
                hidden=min(max(ballot.hidden, 0.0), seconds),
                lost=max(ballot.lost, 0),
                version=__version__,
                created=store.now(),
            )
        )
        _set(connection, assignment, state="voted", ended=store.now())
        return "kept"


def skip(store: Store, annotator: str, assignment: str, reason: str) -> Outcome:
    """Give an assignment back for good, with the reason; others may still vote on its pair. Raises
    StoreError, and UserError without a reason."""
    if not reason.strip():
        raise UserError("a skip needs a reason")
    with store.writing() as connection:
        _, refused = _open(store, connection, annotator, assignment)
        if refused:
            return refused
        reason = _storable(reason)[:LONGEST]
        _set(connection, assignment, state="skipped", ended=store.now(), reason=reason)
        store.log(connection, annotator, "skipped", assignment=assignment, reason=reason)
        return "kept"


def undo(store: Store, annotator: str, shown: str | None) -> Undone | None:
    """Take the annotator's last vote or skip back: it is what they compare next. The vote is kept
    among the events. `shown`: the assignment on the page, None where there was none; a page that
    is no longer true takes nothing back, so that a key pressed twice does so once.

    None where there is nothing to take back: no vote, a skip on what others have filled meanwhile,
    a study that does not run. Raises StoreError.
    """
    with store.writing() as connection:
        if state_of(connection) != "open" or not is_active(connection, annotator):
            return None
        mine = connection.execute(
            select(ASSIGNMENT)
            .where(ASSIGNMENT.c.annotator == annotator)
            .order_by(ASSIGNMENT.c.position)
        ).fetchall()
        current = next((row.id for row in mine if row.state == "open"), None)
        ended = [row for row in mine if row.state in ("voted", "skipped")]
        if current != shown or not ended:
            return None
        last = max(ended, key=lambda row: (row.ended, row.position))
        skipped = last.state == "skipped" and last.kind == "regular"
        if skipped and is_full(store, connection, last.pair):
            return None
        old = connection.execute(
            select(VOTE).where(VOTE.c.assignment == last.id)
        ).mappings().one_or_none()  # fmt: skip
        store.log(connection, annotator, "undone", assignment=last.id, vote=dict(old or {}))
        connection.execute(delete(VOTE).where(VOTE.c.assignment == last.id))
        lease = store.now() + store.study.spec.lease
        _set(connection, last.id, state="open", ended=None, reason=None, leased=lease)
        return Undone(last.id, _ballot(old) if old else None)


def _ballot(vote: Any) -> Ballot:
    tags = tuple(json.loads(vote["tags"]))
    said = vote["choice"], vote["both_bad"], tags, vote["comment"]
    return Ballot(*said, vote["hidden"], vote["lost"])


def _open(
    store: Store, connection: Connection, annotator: str, assignment: str
) -> tuple[Any, Outcome | None]:
    state = state_of(connection)
    if state != "open":
        return None, "paused" if state == "paused" else "closed"
    row = connection.execute(select(ASSIGNMENT).where(ASSIGNMENT.c.id == assignment)).one_or_none()
    if row is None or row.annotator != annotator or not is_active(connection, annotator):
        return None, "not yours"
    return (row, None) if row.state == "open" else (None, "already")


def _set(connection: Connection, assignment: str, **values: Any) -> None:
    connection.execute(update(ASSIGNMENT).where(ASSIGNMENT.c.id == assignment).values(values))


def _storable(text: str) -> str:
    """Without what a database cannot hold: NUL, and half characters."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
