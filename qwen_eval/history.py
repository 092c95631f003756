"""The results of many run directories at once, through an index that reads each run only once.

The index is a SQLite file and disposable: missing, damaged or of another schema, it is made anew
from the run directories, which alone are the truth; where it cannot be written, it lives in memory.
A run is read again when the bytes of its DONE changed. Knows nothing of what is drawn of results.
"""

from __future__ import annotations

import json
import math
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qwen_eval.compare import FIELDS
from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash, text_hash
from qwen_eval.measures import measure_of, value_of, weights_of
from qwen_eval.results import Run, SampleRecord, read_metrics, read_run

INDEX = ".history.sqlite"
SCHEMA = 2
BUSY_SECONDS = 2.0
Track = Callable[[list[Path]], Iterable[Path]]
# In the header of the file, so that no other database is ever taken for an index and replaced.
_APPLICATION = 0x71656869
# What a damaged index comes to; runs are read with errors of their own.
_DAMAGE = (sqlite3.Error, zlib.error, OSError, ValueError, TypeError, KeyError)
_CREATE = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS runs (root BLOB, folder BLOB, done TEXT, results BLOB,
                                 PRIMARY KEY (root, folder));
CREATE TABLE IF NOT EXISTS items (digest TEXT PRIMARY KEY, items BLOB);
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {SCHEMA};
COMMIT;
"""


@dataclass(frozen=True)
class Point:
    """A run's score of one task. `started`: ISO 8601, UTC. `score`, `low` and `high` are in the
    metric's own unit (a share is a fraction), over n items; None where nothing was scored.
    `invalid`: the limits passed, as in metrics.json.
    """

    run: str
    started: str
    model: str
    fingerprint: str
    dtype: str
    n: int
    score: float | None
    low: float | None
    high: float | None
    method: str
    invalid: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """A point with its items. Results of a task are comparable where their `key` is equal;
    `scores`, `groups` and `weights` (None where all weigh alike) are then of the same items in the
    same order. A score is None where the item failed for reasons outside the model."""

    task: str
    key: dict[str, str]
    point: Point
    groups: tuple[str, ...]
    scores: tuple[float | None, ...]
    weights: tuple[float, ...] | None = None


@dataclass
class History:
    """What is under the folders. `read`: how many runs were read, not taken from the index.
    `damaged`: a line for each run that cannot be read. `kept`: whether the index was written."""

    results: list[Result] = field(default_factory=list)
    read: int = 0
    unfinished: int = 0
    damaged: list[str] = field(default_factory=list)
    kept: bool = True


def read_history(
    folders: Sequence[Path], index: Path | None = None, *, track: Track = iter
) -> History:
    """All finished runs under the folders, each of them once. `index`: one file for all folders;
    without it each has its own. `track` is handed the runs that must be read and gives them back
    one by one. Raises UserError for what is no folder, and for an `index` that is some other file.
    """
    if index and not _is_index(index):
        raise UserError(
            f"--index {index}: is another file, not an index; name one that may be made"
        )
    whole = History()
    seen = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder; name one that holds run directories")
        runs = list(_runs_under(folder))
        # A folder without runs needs no index; one that is itself a run is not ours to write in.
        own = folder / INDEX if runs and folder not in runs else None
        found = _read_folder(folder, runs, index or own, track)
        for result in found.results:
            place = (result.task, Path(result.point.run).resolve())
            if place not in seen:
                seen.add(place)
                whole.results.append(result)
        whole.read += found.read
        whole.unfinished += found.unfinished
        whole.damaged += found.damaged
        whole.kept &= found.kept
    return whole


def _read_folder(folder: Path, runs: Sequence[Path], file: Path | None, track: Track) -> History:
    if file is None:
        with closing(_opened(":memory:")) as database:
            return _brought_up_to_date(database, "", folder, runs, track)
    root = os.path.relpath(folder.resolve(), file.parent.resolve())
    for anew in (False, True):
        try:
            if anew or not _is_index(file):
                for name in (file.name, f"{file.name}-journal"):
                    file.with_name(name).unlink(missing_ok=True)
            with closing(_opened(file)) as database:
                return _brought_up_to_date(database, root, folder, runs, track)
        except _DAMAGE as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                break  # another process has it, and nothing is wrong with it
    return replace(_read_folder(folder, runs, None, track), kept=False)


def _is_index(file: Path) -> bool:
    """Whether a file is an index, perhaps a damaged one, or can become one."""
    try:
        with file.open("rb") as opened:
            header = opened.read(72)
    except OSError:
        return not file.exists()
    ours = header[:16] == b"SQLite format 3\0" and header[68:] == _APPLICATION.to_bytes(4, "big")
    return ours or not header


def _opened(place: Path | str) -> sqlite3.Connection:
    database = sqlite3.connect(place, timeout=BUSY_SECONDS)
    try:
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (schema,) = database.execute("PRAGMA user_version").fetchone()
        if application != _APPLICATION:
            database.executescript(_CREATE)
        elif schema != SCHEMA:
            raise sqlite3.DatabaseError(f"an index of schema {schema}")
    except BaseException:
        database.close()
        raise
    return database


def _brought_up_to_date(
    database: sqlite3.Connection, place: str, folder: Path, runs: Sequence[Path], track: Track
) -> History:
    history, root = History(), os.fsencode(place)
    known = dict(database.execute("SELECT folder, done FROM runs WHERE root = ?", (root,)))
    present, changed = set(), []
    for path in runs:
        if not (path / "DONE").exists():
            history.unfinished += 1
        elif known.get(name := os.fsencode(path.relative_to(folder))) == _done(path):
            present.add(name)
        else:
            changed.append(path)
    for path in track(changed):
        name = os.fsencode(path.relative_to(folder))
        done = _done(path)  # first: should the run change meanwhile, it is read again next time
        try:
            run = read_run(path)
            if not run.finished:
                history.unfinished += 1
                continue
            results, items = _results_of(run)
            row = (root, name, done, _packed(results))
            with database:
                database.execute("INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?)", row)
                for entry in items.items():
                    database.execute("INSERT OR IGNORE INTO items VALUES (?, ?)", entry)
        except UserError as error:
            history.damaged.append(str(error))
        except OSError as error:
            history.damaged.append(f"{path}: cannot be read ({error.strerror})")
        else:
            history.read += 1
            present.add(name)
    if gone := known.keys() - present:
        with database:
            for name in gone:
                database.execute("DELETE FROM runs WHERE root = ? AND folder = ?", (root, name))
    history.results = _stored(database, root, folder)
    return history


def _done(run: Path) -> str:
    """What DONE holds, hashed; nothing where it cannot be read."""
    try:
        return file_hash(run / "DONE")
    except OSError:
        return ""


def _runs_under(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        folders.sort()
        if "run.json" in files:
            yield Path(path)


def _results_of(run: Run) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """What the index holds of each task, and the lists of their items by digest: most runs share
    them. Raises UserError for a run directory whose files contradict each other."""
    results, lists = [], {}
    try:
        model = {key: str(run.info.model.get(key, "")) for key in ("name", "fingerprint", "dtype")}
        started = min(_moment(start["started"]) for start in run.info.invocations)
        metrics = read_metrics(run.folder)["tasks"]
        for task, info in run.info.tasks.items():
            if measure_of(info.metric).whole:
                continue  # no sample has a value that a later one could be held against
            records = sorted(run.of(task).values(), key=lambda record: record.id)
            items = [[record.id, record.group] for record in records]
            digest = text_hash(json.dumps(items))
            lists[digest] = _packed(items)
            key = {name: str(getattr(info, name)) for name in (*FIELDS, "prompts_digest")}
            if info.runs_programs:
                key["isolation"] = run.info.containment
            overall = metrics[task]["overall"] or {}
            point = {
                "started": started.isoformat(timespec="seconds"),
                "model": model["name"],
                "fingerprint": model["fingerprint"],
                "dtype": model["dtype"],
                "n": int(overall.get("n", 0)),
                "score": overall.get("estimate"),
                "low": overall.get("low"),
                "high": overall.get("high"),
                "method": str(overall.get("method", "")),
                "invalid": [str(limit) for limit in metrics[task]["invalid"]],
            }
            scores = [_score(record, info.metric) for record in records]
            scored = [record for record in records if record.counted]
            known = weights_of(info.metric, scored)
            # One that failed, or was excluded, has no score to be weighed.
            of = known and {r.id: w for r, w in zip(scored, known, strict=True)}
            weights = of and [of.get(record.id, 0.0) for record in records]
            result = {"task": task, "key": key | {"items": digest}, "point": point}
            results.append(result | {"scores": scores, "weights": weights})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{run.folder}: its files do not fit together ({error!r}); restore it or run anew"
        ) from error
    return results, lists


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _score(record: SampleRecord, metric: str) -> float | None:
    if not record.counted:
        return None
    value = float(value_of(metric, record))
    if not math.isfinite(value):
        raise ValueError(f"{record.id} scores {value}")
    return value


def _packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value).encode("ascii"))


def _unpacked(packed: bytes) -> Any:
    return json.loads(zlib.decompress(packed))


def _stored(database: sqlite3.Connection, root: bytes, folder: Path) -> list[Result]:
    groups = {
        digest: tuple(group for _, group in _unpacked(items))
        for digest, items in database.execute("SELECT digest, items FROM items")
    }
    found = []
    for name, packed in database.execute(
        "SELECT folder, results FROM runs WHERE root = ?", (root,)
    ):
        run = str(folder / os.fsdecode(name))
        for one in _unpacked(packed):
            point = Point(run=run, **one["point"] | {"invalid": tuple(one["point"]["invalid"])})
            own = groups[one["key"]["items"]]
            weights = one["weights"] and tuple(one["weights"])
            result = Result(one["task"], one["key"], point, own, tuple(one["scores"]), weights)
            found.append(result)
    return found
