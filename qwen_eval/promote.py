"""Promoted baselines: a run made the one to hold against, with the noise of its A/A runs and with
who did it and why.

    run.json, prompts.json, samples.jsonl, metrics.json, DONE    the run, byte by byte
    noise.json       what its A/A runs say of run-to-run noise (noise.Noise)
    promoted.json    when, who, from, aa, reason, fingerprint, noise_digest, history

The folder is a run directory like any other. A baseline is replaced as a whole: the next one is
written beside it as `.NAME.promoting`, the old one is moved to `.NAME.replaced`, the next one into
its place, and then the old one is deleted. A kill leaves the old or the next one; between the two
moves it leaves none, and the next promotion puts the old one back before it begins.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from qwen_eval.compare import differing_fields
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.fileio import file_hash, text_hash, write_atomic
from qwen_eval.noise import LEAST_RUNS, Noise, measure, noise_from
from qwen_eval.results import FILES, Run, read_json, read_run

SCHEMA = 1


def promote(
    run: Run, repeats: Sequence[Run], to: Path, *, reason: str, who: str, when: str
) -> Noise:
    """Make `to` the baseline of `run`, with the noise between it and its A/A `repeats`.

    `when`: UTC, ISO 8601. Raises UserError for too few runs or one named twice; RefusedError for
    runs that are not finished, not comparable or not of one model, and where `to` is something
    else than a promoted baseline.
    """
    if 1 + len(repeats) < LEAST_RUNS:
        raise UserError(
            f"--aa: name at least {LEAST_RUNS - 1} further runs of the same model over the same "
            f"items, there is {len(repeats) or 'none'}"
        )
    folders = [one.folder.resolve() for one in (run, *repeats)]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise UserError(f"--aa {twice[0]}: named twice; a run has no noise against itself")
    for repeat in repeats:
        _refuse_unequal(run, repeat)
    noise = measure([run, *repeats])
    text = _json_text(noise.to_json())
    record = {
        "schema": SCHEMA,
        "when": when,
        "who": who,
        "from": str(run.folder),
        "aa": [str(one.folder) for one in repeats],
        "reason": reason,
        "fingerprint": run.info.model.get("fingerprint"),
        "noise_digest": text_hash(text, 64),
    }
    to = to.resolve()  # a link stays, and what it leads to is replaced
    try:
        _restore(to)
        record["history"] = _history(to)
        _clear(to)
        staging = _beside(to, "promoting")
        staging.mkdir(parents=True)
        for name in (*FILES, "DONE"):
            _copy(run.folder / name, staging / name)
        write_atomic(staging / "noise.json", text)
        write_atomic(staging / "promoted.json", _json_text(record))
        read_run(staging)  # the copies are the bytes of a whole run
        _swap(to)
    except OSError as error:
        raise UserError(f"--to {to}: cannot be written ({error.strerror})") from error
    return noise


def read_promoted(folder: Path) -> dict[str, Any] | None:
    """promoted.json; None where the folder is no promoted baseline. Raises UserError if it is
    damaged or of another version."""
    path = folder / "promoted.json"
    if not path.exists():
        return None
    record = read_json(path)
    if (there := record.get("schema")) != SCHEMA:
        raise UserError(f"{path}: of schema {there!r}, this version reads {SCHEMA}")
    if not isinstance(record.get("history"), list):
        raise UserError(f"{path}: damaged; restore it or promote again elsewhere")
    return record


def read_noise(folder: Path) -> Noise | None:
    """The noise of a promoted baseline; None for any other run. Raises UserError where it is not
    what was written."""
    path, record = folder / "noise.json", read_promoted(folder)
    if record is None:
        if path.exists():
            raise UserError(f"{path}: {folder} has no promoted.json; restore it or promote again")
        return None
    if not path.is_file() or file_hash(path) != record.get("noise_digest"):
        raise UserError(f"{path}: damaged since the promotion; restore it or promote again")
    try:
        return noise_from(read_json(path))
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _refuse_unequal(run: Run, repeat: Run) -> None:
    if missing := [task for task in run.info.tasks if task not in repeat.info.tasks]:
        raise RefusedError(f"--aa {repeat.folder}: has no task {missing[0]}, {run.folder} has")
    for one in (run, repeat):
        if not one.finished:
            raise RefusedError(f"{one.folder}: the run is not finished; let it end")
    for task in run.info.tasks:
        for field, there, here in differing_fields(task, run, repeat):
            raise RefusedError(
                f"--aa {repeat.folder}: {task}: not comparable: {field} is {there} in "
                f"{run.folder}, {here} here"
            )
    model, other = dict(_model_of(run)), dict(_model_of(repeat))
    for key in model | other:
        if model.get(key) != other.get(key):
            raise RefusedError(
                f"--aa {repeat.folder}: not the same model: {key} is {model.get(key)} in "
                f"{run.folder}, {other.get(key)} here"
            )


def _model_of(run: Run) -> Iterator[tuple[str, Any]]:
    """What makes a model the same one: its name may change, and so may the seed."""
    for key, value in run.info.identity().items():
        if key.startswith(("model.", "settings.")) and key not in ("model.name", "settings.seed"):
            yield key, value


def _history(to: Path) -> list[dict[str, Any]]:
    """The promotions before this one, the latest first."""
    if not to.exists():
        return []
    before = read_promoted(to)
    if before is None:
        raise RefusedError(f"--to {to}: there, and no promoted baseline; name another folder")
    earlier: list[dict[str, Any]] = before.pop("history")
    return [before, *earlier]


def _swap(to: Path) -> None:
    if to.exists():
        to.rename(_beside(to, "replaced"))
    _beside(to, "promoting").rename(to)
    _clear(to)


def _restore(to: Path) -> None:
    """Undo a promotion that was killed between its two moves."""
    if not to.exists() and (replaced := _beside(to, "replaced")).exists():
        replaced.rename(to)


def _clear(to: Path) -> None:
    """Delete what a promotion has left beside a baseline, whether it ended or was killed."""
    for what in ("promoting", "replaced"):
        if (folder := _beside(to, what)).exists():
            shutil.rmtree(folder)


def _beside(to: Path, what: str) -> Path:
    return to.with_name(f".{to.name}.{what}")


def _copy(source: Path, target: Path) -> None:
    with source.open("rb") as read, target.open("wb") as written:
        shutil.copyfileobj(read, written)
        written.flush()
        os.fsync(written.fileno())


def _json_text(value: Any) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"
