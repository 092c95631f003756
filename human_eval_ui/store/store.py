"""Opens a study's database, and is the one way to write to it.

Writers go one after another, in this process by a lock and between processes by the study's row, so
that what a transaction has read is still so when it writes. SQLite: write-ahead log, every commit
on disk before it is confirmed. Knows nothing of what is written.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import URL, Connection, create_engine, event, insert, select, update
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from qwen_eval.errors import UserError

from ..study import sides
from ..study.pairs import Pairs, pairs_of
from ..study.spec import Study
from .tables import EVENT, METADATA, STUDY

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

DATABASE = "study.db"
BUSY_SECONDS = 5.0
# What SQLite says, and the way out.
WAYS_OUT = {
    "database is locked": "another program holds it, try again soon",
    "unable to open database file": "the study's folder must be there, and writable",
    "attempt to write a readonly database": "make study.db and its folder writable",
    "file is not a database": "put back the study.db that was there",
    "database or disk is full": "make room on the disk",
}
STATES = ("open", "paused", "closed", "unblinded")


class StoreError(UserError):
    """The database cannot be read or written now; nothing of the transaction was kept."""


class Store:
    """The database of one study. `clock`: seconds since 1970."""

    def __init__(
        self, study: Study, engine: Engine, place: str, clock: Callable[[], float] = time.time
    ) -> None:
        self.study = study
        self.pairs: Pairs = pairs_of(study)
        self.now = clock
        self._engine = engine
        self._place = place
        self._writer = threading.Lock()
        self._orders: dict[str, dict[str, int]] = {}

    def order(self, annotator: str) -> dict[str, int]:
        """The regular pairs by name, with numbers that put them into the annotator's own order."""
        if annotator not in self._orders:
            key = self.study.key
            self._orders[annotator] = {
                name: sides.draw(key, "order", annotator, name) for name in self.pairs.regular
            }
        return self._orders[annotator]

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with. Raises StoreError."""
        with self._plain_errors(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction, kept whole or not at all; nobody else writes meanwhile. Raises
        StoreError."""
        with self._plain_errors(), self._writer, self._engine.connect() as plain:
            connection = plain.execution_options(writes=True)
            with connection.begin():
                connection.execute(update(STUDY).values(writes=STUDY.c.writes + 1))
                yield connection

    def state(self) -> str:
        """One of STATES."""
        with self.reading() as connection:
            return state_of(connection)

    def log(self, connection: Connection, who: str, kind: str, **detail: Any) -> None:
        """Append what happened to the events."""
        text = json.dumps(detail, ensure_ascii=False)
        connection.execute(insert(EVENT).values(at=self.now(), who=who, kind=kind, detail=text))

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as error:
            raise StoreError(f"{self._place}: {_cause(error)}; nothing was changed") from error


def state_of(connection: Connection) -> str:
    """The study's state within a transaction."""
    return str(connection.execute(select(STUDY.c.state)).scalar_one())


def open_store(
    study: Study, url: str | None = None, *, clock: Callable[[], float] = time.time
) -> Store:
    """The study's database, made where there is none yet. `url`: an address of PostgreSQL; None for
    study.db in the folder.

    Raises UserError for an address that is none, a database that cannot be opened or written, and
    one that holds another study.
    """
    path = study.folder / DATABASE
    # A folder may be called a?b or a%20b, which within an address means something else.
    address = URL.create("sqlite", database=str(path)) if url is None else _with_driver(url)
    place = str(path) if url is None else "--database"
    try:
        engine = create_engine(address, pool_pre_ping=url is not None, pool_size=8)
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UserError(f"{place}: {' '.join(str(error).split())}") from error
    if engine.dialect.name == "sqlite":
        _prepare_sqlite(engine)
    store = Store(study, engine, place, clock)
    try:
        with engine.connect() as plain:
            connection = plain.execution_options(writes=True)
            with connection.begin():
                METADATA.create_all(connection)
                found = connection.execute(select(STUDY.c.digest)).scalar_one_or_none()
                if found is None:
                    values = {"digest": study.spec.digest, "state": "open", "writes": 0}
                    connection.execute(insert(STUDY).values(values))
                    store.log(connection, "", "begun", digest=study.spec.digest)
    except SQLAlchemyError as error:
        raise StoreError(f"{place}: cannot be opened ({_cause(error)})") from error
    if found not in (None, study.spec.digest):
        raise UserError(f"{place}: holds the votes of another study ({found})")
    return store


def _with_driver(url: str) -> str:
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in ("postgresql", "postgres", "postgresql+psycopg"):
        raise UserError("--database: give an address such as postgresql://user@host/name")
    return f"postgresql+psycopg://{rest}"


def _prepare_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def connected(raw: Any, _: object) -> None:
        # Transactions are begun below; the driver's own way begins them only at the first change.
        raw.isolation_level = None
        for pragma in (
            f"busy_timeout={int(BUSY_SECONDS * 1000)}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            raw.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begun(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _cause(error: SQLAlchemyError) -> str:
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    text = " ".join(text.split())
    return f"{text}: {WAYS_OUT[text]}" if text in WAYS_OUT else text
