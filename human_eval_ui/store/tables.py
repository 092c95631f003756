"""What is kept of a study while it runs. Times are seconds since 1970 by the server's clock."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

METADATA = MetaData()

STUDY = Table(
    "study",
    METADATA,
    Column("digest", String(16), primary_key=True),
    Column("state", String(10), nullable=False),  # open, paused, closed, unblinded
    # Every transaction that writes counts here first, and so waits for the one before it.
    Column("writes", Integer, nullable=False),
)

ANNOTATOR = Table(
    "annotator",
    METADATA,
    Column("id", String(16), primary_key=True),  # a1, a2, …: what exports call them
    Column("name", Text, nullable=False, unique=True),
    Column("role", String(10), nullable=False),  # annotator, viewer, owner
    Column("email", Text, unique=True),
    Column("active", Boolean, nullable=False),
    Column("created", Float, nullable=False),
)

INVITE = Table(
    "invite",
    METADATA,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token, which is kept nowhere
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("created", Float, nullable=False),
    Column("used", Float),
    Column("revoked", Float),
)

SESSION = Table(
    "session",
    METADATA,
    Column("digest", String(64), primary_key=True),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("expires", Float, nullable=False),
    Column("revoked", Float),
)

ASSIGNMENT = Table(
    "assignment",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("annotator", ForeignKey("annotator.id"), nullable=False),
    Column("pair", String(16), nullable=False),
    Column("kind", String(8), nullable=False),  # regular, gold, repeat
    Column("position", Integer, nullable=False),  # the annotator's first is 1
    Column("swapped", Boolean, nullable=False),
    Column("state", String(10), nullable=False),  # open, voted, skipped, returned
    Column("shown", Float, nullable=False),
    Column("leased", Float, nullable=False),
    Column("ended", Float),  # voted on, or skipped
    Column("reason", Text),  # of a skip
    UniqueConstraint("annotator", "pair", "kind"),
    UniqueConstraint("annotator", "position"),
)
# Holds all that tells how many votes a pair has or is about to get, which every vote asks.
Index("assignment_pair", *(ASSIGNMENT.c[name] for name in ("pair", "kind", "state", "leased")))

VOTE = Table(
    "vote",
    METADATA,
    Column("assignment", ForeignKey("assignment.id"), primary_key=True),
    Column("choice", Integer, nullable=False),  # -2, the left one is much better, to 2
    Column("both_bad", Boolean, nullable=False),
    Column("tags", Text, nullable=False),  # a JSON list
    Column("comment", Text, nullable=False),
    Column("seconds", Float, nullable=False),  # from sight to choice
    Column("hidden", Float, nullable=False),  # of these, while the page was out of sight
    Column("lost", Integer, nullable=False),  # how often it went out of sight
    Column("version", String(32), nullable=False),
    Column("created", Float, nullable=False),
)

ADJUDICATION = Table(
    "adjudication",
    METADATA,
    Column("pair", String(16), primary_key=True),
    Column("choice", Integer, nullable=False),  # of the pair as it is named: 2, the second
    Column("comment", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("created", Float, nullable=False),
)

EVENT = Table(
    "event",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("who", Text, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("detail", Text, nullable=False),  # a JSON object
)

# What happened is appended to, and never changed.
_KEPT = "BEGIN SELECT RAISE(ABORT, 'events are only appended'); END"
_SQLITE = (
    f"CREATE TRIGGER event_updated BEFORE UPDATE ON event {_KEPT}",
    f"CREATE TRIGGER event_deleted BEFORE DELETE ON event {_KEPT}",
    "CREATE TRIGGER event_replaced BEFORE INSERT ON event "
    f"WHEN EXISTS (SELECT 1 FROM event WHERE id = NEW.id) {_KEPT}",
)
_POSTGRESQL = (
    "CREATE FUNCTION event_kept() RETURNS trigger LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'events are only appended'; END $$",
    "CREATE TRIGGER event_kept BEFORE UPDATE OR DELETE OR TRUNCATE ON event "
    "FOR EACH STATEMENT EXECUTE FUNCTION event_kept()",
)
for _dialect, _statements in (("sqlite", _SQLITE), ("postgresql", _POSTGRESQL)):
    for _statement in _statements:
        event.listen(
            EVENT,
            "after_create",
            DDL(_statement).execute_if(dialect=_dialect),  # type: ignore[no-untyped-call]
        )
