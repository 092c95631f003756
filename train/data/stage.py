"""A stage's folder: shards that stay, shards that were dropped, counts, and DONE at the end.

Work is cut into units (a file, a shard); a unit's counts are written after its shards, so a unit
with counts is finished and is not done again. The folder carries the key of what made it: other
inputs or settings make it anew. Nothing in it says when or where it was made, so a resumed stage
ends in the same bytes. Knows nothing of what is filtered.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, is_temporary, write_atomic

from ..documents import Document
from .pace import Tick, count_in, new_counter, shown
from .shards import ENDING, ShardWriter, shard_writer

# Characters of a shard that stays; a worker holds the numbers of one shard in memory, never more.
SHARD_CHARACTERS = 1 << 24
# A function's arguments, of which the first is the path of the file that it goes through.
Unit = tuple[Any, ...]


@dataclass(frozen=True)
class Folder:
    """Where a stage writes."""

    path: Path

    @property
    def name(self) -> str:
        """Such as `3-fuzzy`."""
        return self.path.name

    def open(self, key: str, parts: Sequence[str] = ("kept", "dropped", "counts")) -> bool:
        """Make the folder ready for work under a key. True if the stage is already done.

        What other settings left is removed. Raises UserError for a folder that is not a stage's.
        """
        marker = self.path / "key"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for stale in self.path.rglob(".*.tmp"):
                if is_temporary(stale):
                    stale.unlink(missing_ok=True)
            before = marker.read_text(encoding="utf-8") if marker.exists() else None
            others = [path for path in self.path.iterdir() if path != marker]
            if before is None and others:
                raise UserError(f"{self.path}: in the way, and not made by this command; move it")
            # DONE goes first and the old key last, so that a break in between is seen and mended.
            if before != key:
                (self.path / "DONE").unlink(missing_ok=True)
                for path in others:
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                write_atomic(marker, key)
            for part in parts:
                (self.path / part).mkdir(exist_ok=True)
        except OSError as error:
            raise UserError(f"{self.path}: {error.strerror}; give another --out") from error
        return (self.path / "DONE").exists()

    def finish(self) -> None:
        """Add the counts up and say that all is there."""
        total = Counts()
        for path in sorted((self.path / "counts").glob("*.json")):
            total.add(read_counts(path))
        write_atomic(self.path / "DONE", canonical_json(total.record()) + "\n")

    def counts(self) -> Counts:
        """What a finished stage kept and dropped."""
        return read_counts(self.path / "DONE")

    def kept(self) -> list[Path]:
        """Shards that stayed, in order."""
        return sorted((self.path / "kept").glob(f"*{ENDING}"))

    def dropped(self) -> list[Path]:
        """Shards of what was dropped, in order."""
        return sorted((self.path / "dropped").glob(f"*{ENDING}"))


class Counts:
    """Documents and characters that stayed, by source; documents dropped, by filter, reason and
    source."""

    def __init__(self) -> None:
        self.kept: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.dropped: Counter[tuple[str, str, str]] = Counter()

    def add(self, other: Counts) -> None:
        """Add another's numbers."""
        self.kept += other.kept
        self.characters += other.characters
        self.dropped += other.dropped

    def record(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "kept": dict(self.kept),
            "characters": dict(self.characters),
            "dropped": [[*key, count] for key, count in sorted(self.dropped.items())],
        }


def read_counts(path: Path) -> Counts:
    """Counts from their file. Raises UserError for a file that is none."""
    counts = Counts()
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        counts.kept.update(record["kept"])
        counts.characters.update(record["characters"])
        for filter_, reason, source, count in record["dropped"]:
            counts.dropped[filter_, reason, source] = count
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: no counts ({error}); remove the folder {path.parent}") from error
    return counts


class Sorter:
    """Takes the documents of one unit, each as kept or dropped, and writes and counts them."""

    def __init__(self, folder: Folder, unit: str) -> None:
        self._folder, self._unit = folder, unit
        self.counts = Counts()
        self._shards = 0
        self._characters = 0
        self._kept: ShardWriter | None = None
        self._open_kept: Any = None
        self._open_dropped = shard_writer(folder.path / "dropped" / f"{unit}{ENDING}")

    def __enter__(self) -> Sorter:
        self._dropped = self._open_dropped.__enter__()
        self._start()
        return self

    def __exit__(self, *error: Any) -> None:
        try:
            self._open_kept.__exit__(*error)
        finally:
            self._open_dropped.__exit__(*error)
        if error[0] is None:
            path = self._folder.path / "counts" / f"{self._unit}.json"
            write_atomic(path, canonical_json(self.counts.record()) + "\n")

    def keep(self, document: Document) -> None:
        """This one stays."""
        if self._characters >= SHARD_CHARACTERS:
            self._open_kept.__exit__(None, None, None)
            self._start()
        assert self._kept is not None
        self._kept.add(document.record())
        self._characters += len(document.text)
        self.counts.kept[document.source] += 1
        self.counts.characters[document.source] += len(document.text)

    def drop(self, document: Document, filter_: str, reason: str, detail: str = "") -> None:
        """This one goes: by which filter, for which reason (counted), and what else is known."""
        record = document.record() | {"filter": filter_, "reason": reason, "detail": detail}
        self._dropped.add(record)
        self.counts.dropped[filter_, reason, document.source] += 1

    def _start(self) -> None:
        name = f"{self._unit}.{self._shards:05}{ENDING}"
        self._open_kept = shard_writer(self._folder.path / "kept" / name)
        self._kept = self._open_kept.__enter__()
        self._shards += 1
        self._characters = 0


@contextmanager
def processes(workers: int) -> Iterator[Executor | None]:
    """Worker processes for all stages of a run; None, for work in this process, if one is asked.

    All count in one place how far they are.
    """
    counter = new_counter()
    count_in(counter)
    pool = None
    if workers > 1:
        start = (os.getpid(), counter)
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin_worker, start)
    try:
        yield pool
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)
        count_in(None)


def run_units(
    work: Callable[..., None],
    units: Mapping[str, Unit],
    finished: Callable[[str], bool],
    *,
    phase: str,
    pool: Executor | None,
    tick: Tick,
) -> None:
    """Call work(*unit) for every unit that is not finished."""
    sizes = {name: unit[0].stat().st_size for name, unit in units.items()}
    left = [name for name in units if not finished(name)]
    total = sum(sizes.values())
    with shown(phase, total, tick, before=total - sum(sizes[name] for name in left)):
        if pool is None:
            for name in left:
                work(*units[name])
            return
        for future in as_completed([pool.submit(work, *units[name]) for name in left]):
            future.result()


def _begin_worker(parent: int, counter: Any) -> None:
    """Count with the others, and leave with the parent: a worker whose parent was killed would
    wait for work forever."""
    count_in(counter)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Refuse a second run in the same folder. Raises UserError."""
    import fcntl

    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    except OSError as error:
        raise UserError(f"--out {folder}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(f"--out {folder}: another run is at work there; wait for it") from error
        yield


def unit_names(paths: Sequence[Path]) -> list[str]:
    """A unit for each shard, named like it."""
    return [path.name.removesuffix(ENDING) for path in paths]
