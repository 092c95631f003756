"""Our filters as steps of a datatrove pipeline, for its executors (local, Slurm, Ray).

Needs the package datatrove, which is no dependency of this project but of its tests. A step drops
with "filter: reason", which datatrove counts and hands to an exclusion writer:

    languages = FilterStep("language", partial(language_filter, recipe.languages))
    rules = FilterStep("rules", partial(rule_filter, recipe.rules, recipe.sources))
    pipeline = [JsonlReader(...), CleanStep(), languages, rules, JsonlWriter(...)]

Repeats take three pipelines in a row: any number of tasks sign what they read, one task compares,
and as many tasks as before read the same again and drop. The folder between them must be one that
all tasks see:

    [JsonlReader(texts), SignRepeats(folder, Near(settings))]  # tasks=n
    [FindRepeats(folder, Near(settings))]  # tasks=1
    [JsonlReader(texts), DropRepeats(folder, Near(settings)), JsonlWriter(out)]  # tasks=n

Which of two alike documents is kept depends on the order of their files' names, never on the number
of tasks. A document's source and language are read from and kept in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path
from typing import Any

from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters.base_filter import BaseFilter
from datatrove.pipeline.formatters.base import BaseFormatter

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, write_atomic

from ..documents import Document, identity
from .clean import clean
from .dedup import Method
from .shards import load_array, save_array
from .steps import Filter


def as_ours(doc: Any) -> Document:
    """A document of datatrove as one of ours, with the same metadata object."""
    source, lang = (str(doc.metadata.get(key, "")) for key in ("source", "lang"))
    return Document(identity(doc.id), doc.text, source, lang, doc.metadata)


class CleanStep(BaseFormatter):  # type: ignore[misc]
    """NFC, repaired encoding, no control characters."""

    name = "clean text"

    def format(self, text: str) -> str:
        """One text, cleaned."""
        return clean(text)


class FilterStep(BaseFilter):  # type: ignore[misc]
    """One filter of ours. `make` builds it in the process that runs it, so it must be picklable."""

    def __init__(self, name: str, make: Callable[[], Filter], exclusion_writer: Any = None) -> None:
        super().__init__(exclusion_writer)
        self.name = name
        self.make = make
        self._check: Filter | None = None

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        """True keeps a document of datatrove; else False and why."""
        if self._check is None:
            self._check = self.make()
        ours = as_ours(doc)
        verdict = self._check(ours)
        doc.metadata["lang"] = ours.lang
        return True if verdict is None else (False, ": ".join(verdict))


class SignRepeats(PipelineStep):  # type: ignore[misc]
    """First step to repeats, at the end of a pipeline: every task signs what it reads.

    A task writes a part for every file that it reads (as `file_path` in the metadata says), and at
    its end a list of the parts. A task holds the signatures of one file.
    """

    type = "repeats"
    name = "sign"

    def __init__(self, folder: str | Path, method: Method) -> None:
        super().__init__()
        self.folder, self.method = Path(folder), method

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Sign all documents of a task; hands none on."""
        self.folder.mkdir(parents=True, exist_ok=True)
        seen = Seen()
        parts: list[tuple[str, int]] = []
        for path, group in groupby(data or (), lambda doc: doc.metadata.get("file_path", "")):
            stem, before = _part(self.folder, rank, len(parts)), seen.count
            self.method.sign(stem, map(as_ours, map(seen.add, group)))
            parts.append((path, seen.count - before))
            self.stat_update("documents", value=seen.count - before, unit="file")
        content = {"tasks": world_size, "parts": parts, "seen": seen.digest()}
        write_atomic(_list(self.folder, rank), canonical_json(content))
        yield from ()


class FindRepeats(PipelineStep):  # type: ignore[misc]
    """Second step to repeats, alone and as one task: compares all that was signed.

    memory: bytes that may be used for sorting. Raises UserError if a task has not signed.
    """

    type = "repeats"
    name = "find"

    def __init__(self, folder: str | Path, method: Method, memory: int = 1 << 29) -> None:
        super().__init__()
        self.folder, self.method, self.memory = Path(folder), method, memory

    def run(self, data: Any = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Write for every task which of its documents, by their places, are to be dropped."""
        import numpy as np

        if world_size != 1:
            raise UserError(f"repeats are found by one task, not by {world_size}; give tasks=1")
        tasks = _read_list(self.folder, 0)["tasks"]
        parts: list[tuple[str, int, int, int]] = []
        for task in range(tasks):
            start = 0
            for number, (path, count) in enumerate(_read_list(self.folder, task, tasks)["parts"]):
                parts.append((path, task, number, start))
                start += count
        parts.sort()
        drops = self.method.find([_part(self.folder, *at[1:3]) for at in parts], self.memory)
        owner, first = (np.array([at[i] for at in parts], np.uint64) for i in (1, 3))
        for task in range(tasks):
            mine = drops[owner[drops["shard"]] == task]
            table = np.stack([first[mine["shard"]] + mine["row"], mine["kept"]], 1)
            save_array(_drops(self.folder, task), table)
            self.stat_update("repeats", value=len(mine), unit="task")
        yield from ()


class DropRepeats(BaseFilter):  # type: ignore[misc]
    """Third step to repeats: drops what was found, with the id of what is kept as `repeat_of`.

    Raises UserError if a task does not read what the task of its number has signed.
    """

    def __init__(self, folder: str | Path, method: Method, exclusion_writer: Any = None) -> None:
        super().__init__(exclusion_writer)
        self.name = f"drop {method.name}"
        self.folder, self.method = Path(folder), method

    def run(self, data: Any, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """The documents of a task that stay."""
        signed = _read_list(self.folder, rank, world_size)
        table = load_array(_drops(self.folder, rank))
        self._kept, self._seen = dict(table.tolist()), Seen()
        yield from super().run(data, rank, world_size)
        if self._seen.digest() != signed["seen"]:
            raise UserError(
                f"task {rank} did not read what it had signed; read the same files in both, and "
                "remove what was written"
            )

    def filter(self, doc: Any) -> bool | tuple[bool, str]:
        """True keeps a document; else False and why."""
        kept = self._kept.get(self._seen.count)
        self._seen.add(doc)
        if kept is None:
            return True
        doc.metadata["repeat_of"] = f"{kept:016x}"
        return False, f"{self.method.name}: {self.method.reason}"


class Seen:
    """How many documents were seen, and a hash of their ids in order."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = sha256()

    def add(self, doc: Any) -> Any:
        """One more, which is handed back."""
        self.count += 1
        self._hash.update(bytes.fromhex(identity(doc.id)))
        return doc

    def digest(self) -> str:
        """Hex."""
        return self._hash.hexdigest()


def _part(folder: Path, rank: int, number: int) -> Path:
    return folder / f"{rank:06}-{number:06}"


def _drops(folder: Path, rank: int) -> Path:
    return folder / f"{rank:06}.drops.npy"


def _list(folder: Path, rank: int) -> Path:
    return folder / f"{rank:06}.json"


def _read_list(folder: Path, rank: int, tasks: int | None = None) -> dict[str, Any]:
    path = _list(folder, rank)
    if not path.exists():
        raise UserError(f"{path}: missing; task {rank} has not signed its documents")
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if tasks not in (None, content["tasks"]):
        raise UserError(f"{path}: signed by {content['tasks']} tasks, not {tasks}; take as many")
    return content
