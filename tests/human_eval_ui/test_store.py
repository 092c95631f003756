"""The database keeps what it confirmed, whatever happens to the process or beside it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.store import access, assigning, reading, voting
from qwen_eval.human_eval_ui.store.store import Store, StoreError, open_store
from qwen_eval.human_eval_ui.store.voting import Ballot
from qwen_eval.human_eval_ui.study.spec import read_study
from tests.human_eval_ui.made_study import made_store, made_study
from tests.human_eval_ui.test_assigning import given, vote_through

# Votes for ever, and says so after each is confirmed.
VOTER = """
import sys
from pathlib import Path
from qwen_eval.human_eval_ui.store import assigning, voting
from qwen_eval.human_eval_ui.store.store import open_store
from qwen_eval.human_eval_ui.study.spec import read_study
store = open_store(read_study(Path(sys.argv[1])))
while True:
    one = assigning.next_assignment(store, sys.argv[2])
    assert voting.cast(store, sys.argv[2], one.id, voting.Ballot(1)) == "kept"
    print(one.id, flush=True)
"""


def test_a_killed_process_loses_no_confirmed_vote(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path, items=300)
    folder = store.study.folder
    store.close()
    confirmed: list[str] = []
    for _ in range(3):
        process = subprocess.Popen(
            [sys.executable, "-c", VOTER, str(folder), annotator],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        for _ in range(20):
            confirmed.append(process.stdout.readline().strip())
        process.send_signal(signal.SIGKILL)
        confirmed += process.stdout.read().split()
        process.wait()
    store = open_store(read_study(folder))
    with store.reading() as connection:
        kept = set(connection.execute(text("SELECT assignment FROM vote")).scalars())
    assert len(confirmed) >= 60
    assert set(confirmed) <= kept
    # One that was on its way may be kept without having been confirmed: one for each kill.
    assert len(kept) <= len(confirmed) + 3


def _vote_beside_each_other(store: Store, people: list[str]) -> None:
    threads = [threading.Thread(target=vote_through, args=(store, one)) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_many_at_once_neither_lose_nor_double_a_vote(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path, items=15, people=8, overlap=3)
    _vote_beside_each_other(store, people)
    votes = reading.votes_of(store)
    assert Counter(Counter(vote.item for vote in votes).values()) == {3: 15}


def test_events_are_only_appended(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path)
    replaced = "INSERT OR REPLACE INTO event VALUES (1, 0, 'x', 'begun', '{}')"
    for change in ("UPDATE event SET who = 'x'", "DELETE FROM event", replaced):
        with pytest.raises(StoreError, match="only appended"), store.writing() as connection:
            connection.execute(text(change))
    assert any(event["kind"] == "begun" for event in reading.events_of(store))


def test_a_locked_database_is_said_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qwen_eval.human_eval_ui.store.store.BUSY_SECONDS", 0.1)
    store, _, (annotator, *_) = made_store(tmp_path)
    one = given(store, annotator)
    with sqlite3.connect(store.study.folder / "study.db", isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        told = r"study\.db: database is locked: another program holds it.*; nothing was changed"
        with pytest.raises(StoreError, match=told):
            voting.cast(store, annotator, one.id, Ballot(1))
        other.execute("ROLLBACK")
    assert voting.cast(store, annotator, one.id, Ballot(1)) == "kept"


def test_a_read_only_database_is_said(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    open_store(study).close()
    # By its address, since root may write whatever the file's mode says.
    database = study.folder / "study.db"
    with sqlite3.connect(database) as plain:
        plain.execute("PRAGMA journal_mode=DELETE")
    store = Store(study, _read_only_engine(database), str(database))
    with pytest.raises(StoreError, match=r"readonly database: make study\.db and its folder"):
        access.invite(store, "x")


def _read_only_engine(path: Path) -> Engine:
    return create_engine(f"sqlite:///file:{path}?mode=ro&uri=true")


def test_a_database_of_another_study_is_refused(tmp_path: Path) -> None:
    one, other = made_study(tmp_path / "one"), made_study(tmp_path / "other")
    open_store(one).close()
    shutil.copy(one.folder / "study.db", other.folder / "study.db")
    with pytest.raises(UserError, match="another study"):
        open_store(other)


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    (study.folder / "study.db").write_text("These are no votes at all. " * 100, "utf-8")
    with pytest.raises(UserError, match=r"study\.db: cannot be opened \(file is not a database"):
        open_store(study)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("mysql://host/name", "give an address such as postgresql"),
        ("votes", "give an address such as postgresql"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be opened"),
    ],
)
def test_an_address_that_leads_nowhere_is_said(tmp_path: Path, url: str, told: str) -> None:
    with pytest.raises(UserError, match=rf"--database: .*{told}"):
        open_store(made_study(tmp_path), url)


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL made for the tests, where its programs are at hand."""
    programs = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        Path(shutil.which("initdb") or "").parent,
    ]
    found = next((p for p in programs if (p / "initdb").exists()), None)
    if found is None:
        pytest.skip("no PostgreSQL here: its initdb is needed")
    folder = Path(tempfile.mkdtemp(prefix="postgres"))  # pytest's own is closed to other users
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    # It refuses to run as root.
    prefix: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
        prefix = ["runuser", "-u", "postgres", "--"]

    def run(*words: object) -> None:
        subprocess.run([*prefix, *map(str, words)], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, cwd=folder)  # fmt: skip

    data = folder / "data"
    run(found / "initdb", "--no-sync", "-A", "trust", "-U", "owner", "-D", data)
    options = f"-c port={port} -c listen_addresses=127.0.0.1 -k {folder}"
    run(found / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
    try:
        yield f"postgresql://owner@127.0.0.1:{port}"
    finally:
        run(found / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_team_uses_postgresql(tmp_path: Path, postgres: str) -> None:
    url = f"{postgres}/postgres"
    store, _, people = made_store(tmp_path, url, items=10, people=6, overlap=3, control_every=4)
    # A second server of the same study, with connections of its own.
    second = open_store(store.study, url, clock=store.now)
    threads = [
        threading.Thread(target=_vote_beside_each_other, args=(one, some))
        for one, some in ((store, people[:3]), (second, people[3:]))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    votes = reading.votes_of(second)
    assert Counter(Counter(vote.item for vote in votes).values()) == {3: 10}
    assert voting.undo(store, people[0], None) is not None
    assert isinstance(assigning.next_assignment(second, people[0]), assigning.Assignment)
    for change in ("DELETE FROM event", "UPDATE event SET who = 'x'", "TRUNCATE event"):
        with pytest.raises(StoreError, match="only appended"), store.writing() as connection:
            connection.execute(text(change))
    with pytest.raises(UserError, match="another study"):
        open_store(made_study(tmp_path / "other"), url)
