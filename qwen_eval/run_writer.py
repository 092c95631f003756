"""Writes one run directory: new or resumed, by one process or by several.

Knows nothing of how a sample came about. What the files hold: results.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import Journal, file_hash, is_temporary, text_hash, write_atomic
from qwen_eval.results import (
    FILES,
    RunInfo,
    SampleRecord,
    all_samples,
    invocations_of,
    part_journals,
    read_info,
)


def refuse_another(folder: Path, there: RunInfo, here: RunInfo) -> None:
    """Raises UserError where a folder's run is not the one that is to be made."""
    old, new = there.identity(), here.identity()
    different = [k for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if different:
        key = different[0]
        more = f" (and {len(different) - 1} more)" if different[1:] else ""
        raise UserError(
            f"--out {folder}: holds another run: {key} is {old.get(key)!r} there, "
            f"{new.get(key)!r} here{more}; choose another folder"
        )


class RunWriter:
    """Writes one run directory, new or resumed.

    `journal`: the name of this process's own journal where it is one of several, `launch-rank`.
    `done`: every finished sample; `done_before`: those finished before this launch, about which
    all its processes agree. Raises UserError if the folder holds another run, or something that
    is no run at all.
    """

    def __init__(
        self, folder: Path, info: RunInfo, prefixes: Iterable[str], journal: str | None = None
    ) -> None:
        self.folder = folder
        self._shared = journal is not None
        self._invocation: dict[str, Any] | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--out {folder}: {error.strerror}") from error
        self.info = info
        invocations = self._check_same_run()
        self.info.invocations[:0] = invocations
        own = folder / ("samples.jsonl" if journal is None else f"samples.{journal}.jsonl")
        launch = None if journal is None else journal.partition("-")[0]
        # Infrastructure failures say nothing of the model: they are tried again.
        records = {key: r for key, r in all_samples(folder).items() if r.status != "error"}
        self.done: dict[tuple[str, str], SampleRecord] = records
        others = records if launch is None else all_samples(folder, but=launch)
        before = {key for key in others if key in records}
        self.done_before: Set[tuple[str, str]] = before
        self.resumed = len(self.done)
        self._open_again()
        # run.json comes first: a folder with anything else and without it is nobody's run.
        self._write_info()
        self._write("prompts.json", {text_hash(p): p for p in sorted(set(prefixes))})
        self._journal = Journal(own)

    def add(self, record: SampleRecord) -> None:
        """Append a finished sample."""
        self._journal.append(vars(record))  # asdict would copy what is about to be written
        self.done[record.task, record.id] = record

    def gather(self) -> None:
        """Take in what the other processes of this launch have finished, failures included."""
        self.close()
        self.done |= all_samples(self.folder)

    def finish(self, order: Sequence[tuple[str, str]], metrics: Mapping[str, Any]) -> None:
        """Put the samples into `order` (task, id), write metrics.json, and DONE last."""
        self._journal.close()
        lines = [json.dumps(vars(self.done[key]), ensure_ascii=False) for key in order]
        parts = part_journals(self.folder)
        for part in parts:
            self.info.invocations.extend(invocations_of(part))
        write_atomic(self.folder / "samples.jsonl", "".join(line + "\n" for line in lines))
        self._write("metrics.json", metrics)
        self._write_info()
        self._write("DONE", {name: file_hash(self.folder / name) for name in FILES})
        for part in parts:
            part.unlink(missing_ok=True)

    def close(self) -> None:
        """Keep what is there; the same command goes on from here. May be called twice."""
        if not self._shared:
            self._write_info()
        elif self._invocation:
            # run.json is everybody's, so what one process says of itself goes into its journal.
            self._journal.append({"invocation": self._invocation})
            self._invocation = None
        self._journal.close()

    def begin(self, invocation: dict[str, Any]) -> None:
        """Keep an account of this start; it may go on changing until close()."""
        self._invocation = invocation
        if not self._shared:
            self.info.invocations.append(invocation)

    def _open_again(self) -> None:
        try:
            (self.folder / "DONE").unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"--out {self.folder}: cannot be written ({error.strerror})") from error

    def _check_same_run(self) -> list[dict[str, Any]]:
        path = self.folder / "run.json"
        if not path.exists():
            if any(not is_temporary(entry) for entry in self.folder.iterdir()):
                raise UserError(f"--out {self.folder}: not empty and not a run; choose another")
            return []
        there = read_info(self.folder)
        refuse_another(self.folder, there, self.info)
        return there.invocations

    def _write_info(self) -> None:
        self._write("run.json", asdict(self.info))

    def _write(self, name: str, value: Any) -> None:
        write_atomic(self.folder / name, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
