"""The run directory: every file and key of it, and its readers (the writer: run_writer.py).

    run.json       what was asked of which model with which data and versions (RunInfo)
    prompts.json   the few-shot prefixes by hash; a sample's prompt is prefix + text
    samples.jsonl  one SampleRecord per line, appended as samples finish; while several processes
                   work on a run, each one's are in a samples.NAME.jsonl
    metrics.json   the scores with intervals and counts
    DONE           written last: the run is complete, and these are the SHA-256 of its files

Knows nothing of models or of how a score comes about.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, encodable, file_hash, read_jsonl, text_hash
from qwen_eval.sandbox.layers import NONE
from qwen_eval.types import RUN_PROGRAMS, UNSCORED, Item, Response, Score

if TYPE_CHECKING:
    import pandas

SCHEMA = 1
FILES = ("run.json", "prompts.json", "samples.jsonl", "metrics.json")
_TOLD = ("data_source", "shots", "protocol", "chat", "max_prompt_tokens", "decoding", "macro")
_MEASURED = ("samples", "tokens", "seconds", "peak_memory")
MOST = 1e60  # the largest score: with a larger one there is no arithmetic

Kind = TypeVar("Kind")
CLOSED = {"extra": "forbid", "allow_inf_nan": False}
"""For pydantic: a class with it as `__pydantic_config__` takes no other keys, and no NaN."""


def as_written(kind: type[Kind], value: Any) -> Kind:
    """What a JSON file holds as the type that its schema names, down to the last field. Raises
    ValueError naming the first key at fault."""
    from pydantic import ValidationError

    try:
        found: Kind = _adapter(kind).validate_python(value)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(kind)


@dataclass(frozen=True)
class TaskInfo:
    """One task of a run. `data_kind` is mirror, package, hub, sample, own or given; `data_digest`
    hashes all rows of the split, `prompts_digest` all that was asked of the selected ones.
    What begins with `shots` is told of the recipe, not compared: `protocol` is its source; `macro`,
    that the score others quote is the mean over groups."""

    __pydantic_config__: ClassVar = CLOSED

    recipe: str
    version: int
    recipe_version: int
    spec_digest: str
    solver: str
    metric: str
    scorer: str
    data_kind: str
    data_source: str
    data_digest: str
    prompts_digest: str
    available: int
    selected: int
    shots: int | None = None
    protocol: str = ""
    chat: bool = False
    max_prompt_tokens: int | None = None
    decoding: str = "greedy"
    macro: bool = False

    @property
    def runs_programs(self) -> bool:
        """Whether its scores depend on what held the programs that a model wrote."""
        return self.solver in RUN_PROGRAMS


@dataclass(frozen=True)
class RunInfo:
    """run.json. `identity` holds what must be equal for a run to be resumed; `environment` is what
    merely was so (versions, machine); `invocations` lists each start with its time and speed."""

    __pydantic_config__: ClassVar = CLOSED

    model: dict[str, Any]
    tasks: dict[str, TaskInfo]
    settings: dict[str, Any]
    isolation: str
    environment: dict[str, Any]
    invocations: list[dict[str, Any]] = field(default_factory=list)
    schema: int = SCHEMA

    @property
    def containment(self) -> str:
        """What a verdict on a program depends on of `isolation`: that something held the program,
        on whichever rung, or that nothing did."""
        return NONE if self.isolation == NONE else "contained"

    def identity(self) -> dict[str, Any]:
        """Everything that a result depends on, as a flat mapping."""
        flat: dict[str, Any] = {"schema": self.schema, "isolation": self.containment}
        flat |= {f"model.{k}": self.model.get(k) for k in ("name", "fingerprint", "dtype")}
        flat |= {f"settings.{k}": v for k, v in self.settings.items()}
        for name, task in self.tasks.items():
            flat |= {f"tasks.{name}.{k}": v for k, v in asdict(task).items() if k not in _TOLD}
        return flat


@dataclass(frozen=True)
class SampleRecord:
    """One line of samples.jsonl. `prefix` is a key of prompts.json; `text` is what was asked behind
    it, for a conversation its turns as `role: content`; `responses` hold every reply in order, so a
    scorer can be applied again without a model."""

    __pydantic_config__: ClassVar = CLOSED

    id: str
    task: str
    group: str
    target: str
    prefix: str
    text: str
    responses: list[dict[str, Any]]
    values: dict[str, float]
    answer: str | None
    status: str
    detail: dict[str, Any]
    error: str | None = None

    @property
    def counted(self) -> bool:
        """Whether it takes part in the estimate."""
        return self.status not in UNSCORED

    @property
    def prompt_truncated(self) -> bool:
        """Whether any prompt lost its beginning."""
        return any(r.get("prompt_truncated") for r in self.responses)

    @property
    def unread(self) -> Fraction:
        """How much of it held no answer: all or nothing, or a share of the replies drawn."""
        if self.status == "no_answer":
            return Fraction(1)
        drawn = self._drawn
        return Fraction(drawn.count(None), len(drawn)) if drawn else Fraction(0)

    @property
    def cut(self) -> Fraction:
        """How much of it ended at the token limit: all, if any turn of it did, or a share of the
        replies drawn."""
        if not self._drawn:
            return Fraction(self.output_truncated)
        ends = [r.get("finish_reason") for r in self.responses]
        return Fraction(ends.count("length"), len(self._drawn))

    @property
    def _drawn(self) -> list[Any]:
        """What was read of each of several replies to one question, None where nothing was."""
        drawn = self.detail.get("draws")
        return drawn if isinstance(drawn, list) else []

    @property
    def output_truncated(self) -> bool:
        """Whether any reply ended at the token limit."""
        return any(r.get("finish_reason") == "length" for r in self.responses)


def sample_record(
    item: Item, responses: Sequence[Response], score: Score, error: str | None
) -> SampleRecord:
    """The record of a finished sample."""
    return SampleRecord(
        id=item.sample.id,
        task=item.recipe,
        group=item.sample.group,
        target=item.target,
        prefix=text_hash(item.prompt.prefix),
        text=item.prompt.full_text.removeprefix(item.prompt.prefix),
        responses=[_compact(response) for response in responses],
        values=dict(score.values),
        answer=score.answer,
        status=score.status,
        detail=dict(score.detail),
        error=error,
    )


def _compact(response: Response) -> dict[str, Any]:
    empty = Response()
    return {
        key: list(value) if isinstance(value, tuple) else value
        for key in Response.__dataclass_fields__
        if (value := getattr(response, key)) != getattr(empty, key) or key == "finish_reason"
    }


def response_from(record: Mapping[str, Any]) -> Response:
    """The Response that a SampleRecord holds."""
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
    return Response(**fields)


def read_info(folder: Path) -> RunInfo:
    """run.json of a run directory. Raises UserError if there is none or it is damaged."""
    raw = read_json(folder / "run.json")
    if (there := raw.get("schema", SCHEMA)) != SCHEMA:
        raise UserError(f"{folder / 'run.json'}: of schema {there!r}, this version reads {SCHEMA}")
    try:
        info = as_written(RunInfo, raw)
        for key, start in ((key, start) for start in info.invocations for key in _MEASURED):
            if not isinstance(start.get(key, 0), int | float):
                raise ValueError(f"invocations: {key} is no number")
        if not isinstance(info.model.get("detail", {}), dict):
            raise ValueError("model.detail: not an object")
    except ValueError as error:
        raise UserError(f"{folder / 'run.json'}: not a run of this version ({error})") from error
    return info


def read_metrics(folder: Path) -> dict[str, Any]:
    """metrics.json of a finished run."""
    return read_json(folder / "metrics.json")


@dataclass(frozen=True)
class Run:
    """A run directory as it was read; `prefixes` are the few-shot texts by their hashes."""

    folder: Path
    info: RunInfo
    samples: Sequence[SampleRecord]
    finished: bool
    prefixes: Mapping[str, str] = field(default_factory=dict)

    def of(self, task: str) -> dict[str, SampleRecord]:
        """One task's samples by id."""
        return {record.id: record for record in self.samples if record.task == task}


def read_run(folder: Path) -> Run:
    """A run directory. Raises UserError if it is none, or damaged, or from another version; files
    of a finished run must be the bytes that were written."""
    try:
        finished = (folder / "DONE").exists()
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror})") from error
    digests = read_json(folder / "DONE") if finished else {}
    for path in (folder / name for name in FILES if finished):
        if not path.is_file() or file_hash(path) != digests.get(path.name):
            raise UserError(f"{path}: damaged since the run ended; restore it or run anew")
    info, samples = read_info(folder), read_samples(folder)
    if unknown := {record.task for record in samples} - info.tasks.keys():
        raise UserError(f"{folder}: samples of {min(unknown)}, which run.json does not name")
    prompts = folder / "prompts.json"
    try:
        prefixes = as_written(dict[str, str], read_json(prompts))
    except ValueError as error:
        raise UserError(f"{prompts}: damaged ({error})") from error
    return Run(folder, info, samples, finished, prefixes)


def read_samples(folder: Path) -> list[SampleRecord]:
    """The samples so far; a torn last line is left out. A later record of an id replaces an
    earlier one. Raises UserError if there is no journal, or one is damaged."""
    if not (folder / "samples.jsonl").exists() and not part_journals(folder):
        raise UserError(f"{folder / 'samples.jsonl'}: missing; is {folder} a run directory?")
    return list(all_samples(folder).values())


def all_samples(folder: Path, but: str | None = None) -> dict[tuple[str, str], SampleRecord]:
    """By task and id, out of all journals but those of one launch."""
    while True:
        records: dict[tuple[str, str], SampleRecord] = {}
        paths = [folder / "samples.jsonl", *part_journals(folder)]
        try:
            for path in paths:
                if path.exists() and not (but and path.name.startswith(f"samples.{but}-")):
                    records |= _samples_of(path)
        except UserError:
            # Another process may have finished the run meanwhile and put all in one.
            if all(path.exists() for path in paths[1:]):
                raise
        else:
            return records


def _samples_of(path: Path) -> dict[tuple[str, str], SampleRecord]:
    records: dict[tuple[str, str], SampleRecord] = {}
    for number, raw in enumerate(read_jsonl(path, torn_end=True), 1):
        if raw.keys() == {"invocation"}:
            continue
        try:
            record = as_written(SampleRecord, raw)
            as_written(list[Response], record.responses)
            if not isinstance(record.detail.get("margin", 0.0), int | float):
                raise ValueError("detail.margin: not a number")
            if any(abs(value) > MOST for value in record.values.values()):
                raise ValueError(f"values: beyond {MOST:g}")
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not a sample record ({error})") from error
        records[record.task, record.id] = record
    return records


def part_journals(folder: Path) -> list[Path]:
    """The journals of the several processes that work on a run."""
    return sorted(folder.glob("samples.*-*.jsonl"))


def invocations_of(journal: Path) -> list[dict[str, Any]]:
    """What a process's own journal says of its starts."""
    if not journal.exists():
        return []
    found = [raw["invocation"] for raw in read_jsonl(journal, torn_end=True) if "invocation" in raw]
    return [each for each in found if isinstance(each, dict)]


def read_json(path: Path) -> dict[str, Any]:
    """A file of a run directory. Raises UserError if it is missing or no JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="surrogatepass"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; is {path.parent} a run directory?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def to_frame(folders: Iterable[Path]) -> pandas.DataFrame:
    """All samples of the runs as one table, a row each, with one column per metric."""
    import pandas as pd

    rows = []
    for folder in folders:
        model = read_info(folder).model.get("name", "")
        for record in read_samples(folder):
            row = {
                "run": str(folder),
                "model": model,
                "task": record.task,
                "id": record.id,
                "group": record.group,
                "status": record.status,
                "answer": record.answer,
                "target": record.target,
                "prompt_truncated": record.prompt_truncated,
                "output_truncated": record.output_truncated,
                **record.values,
            }
            rows.append({k: encodable(v) if isinstance(v, str) else v for k, v in row.items()})
    return pd.DataFrame(rows)


def is_named(task: str, names: Collection[str]) -> bool:
    """Whether a task is among the names, which may leave its recipe out and then mean any."""
    return task in names or task.partition("@")[0] in names


def identity_digest(info: RunInfo) -> str:
    """Short name of what a run is, for a default folder."""
    return text_hash(canonical_json(info.identity()), 8)
