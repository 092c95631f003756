"""The study folder: what is compared, under which rules, and the hashes that hold it.

    study.json    StudySpec: systems, rules, the analysis named in advance, hashes of the rest
    items.jsonl   one StudyItem per line, with every system's answer as it will be shown
    key           the secret that sides and order are drawn from; study.json holds its hash

All three are written once. Whoever has `key` and study.json can tell which answer is whose, so
neither is for annotators. Knows nothing of votes.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, file_hash, read_jsonl, text_hash, write_atomic
from qwen_eval.results import CLOSED, as_written, read_json

SCHEMA = 1
SPEC, ITEMS, KEY = "study.json", "items.jsonl", "key"


@dataclass(frozen=True)
class System:
    """One of those compared: the run that its answers come from. `identity` is the run's own."""

    __pydantic_config__: ClassVar = CLOSED

    name: str
    run: str
    identity: str


@dataclass(frozen=True)
class Plan:
    """What will be reported, written down before the first vote."""

    __pydantic_config__: ClassVar = CLOSED

    primary: str
    secondary: str
    excluded: str = (
        "controls; nothing else: annotators who fail them and fast votes are shown, not left out"
    )
    alpha: float = 0.05
    seed: int = 0


def plan_of(baseline: str | None) -> Plan:
    """The plan of a study of all systems against one, or of each against each: what
    findings.findings() gives of its votes, no more and no less."""
    again = (
        "the favour of a side; shares of votes that call both answers bad and of those on answers "
        "that named their maker; Krippendorff's alpha, nominal and ordinal; "
    )
    judges = "; and the agreement with annotators of every model that was asked to judge"
    styled = "with side, length and Markdown as covariates"
    if baseline is None:
        return Plan(
            primary="strengths of all systems relative to their mean and their ranks: "
            "Bradley-Terry with ties (Davidson), errors robust by instruction, ranks by Holm over "
            "all pairs of systems",
            secondary=f"strengths {styled}; {again}ordinal alpha without each annotator in turn; "
            "strengths bare of covariates and alphas without the votes on answers that named "
            f"their maker{judges}",
        )
    return Plan(
        primary="net preference against the baseline: wins minus losses over all votes, its "
        "interval by a bootstrap over instructions, its test by sign flips of whole instructions, "
        "Holm's correction over the systems",
        secondary="win, tie and lose with Wilson's intervals, overall and by category, Holm's "
        "correction over the categories, a sign test of the instructions' majorities; strengths "
        f"(Bradley-Terry with ties) relative to the baseline, bare and {styled}; {again}net "
        "preference and ordinal alpha without each annotator in turn; shares, net preference, "
        "strengths bare of covariates and alphas without the votes on answers that named their "
        f"maker{judges}",
    )


@dataclass(frozen=True)
class StudySpec:
    """The rules. `baseline` None: every system is compared with every other. `overlap`: votes per
    pair, by as many annotators; `quota`: pairs per annotator, None without limit. One assignment in
    `control_every` is a control, none where 0. `dwell`: seconds below which a press is no vote;
    `lease`: seconds that a pair is kept for who has it in view. `hidden`: further words that would
    name a system, masked in its answers."""

    __pydantic_config__: ClassVar = CLOSED

    name: str
    created: str
    systems: tuple[System, ...]
    baseline: str | None
    items: int
    items_digest: str
    key_digest: str
    instructions_digest: str
    plan: Plan
    overlap: int = 3
    quota: int | None = None
    control_every: int = 15
    gold: int = 10
    dwell: float = 1.5
    lease: float = 1800.0
    hidden: tuple[str, ...] = ()
    schema: int = SCHEMA

    @property
    def digest(self) -> str:
        """The study's name in databases and exports: a hash of all rules and, through theirs, of
        all answers."""
        return text_hash(canonical_json(asdict(self)))


@dataclass(frozen=True)
class Answer:
    """As it is shown. `masked`: how many words were hidden; `length` in characters, `markdown` in
    elements."""

    __pydantic_config__: ClassVar = CLOSED

    text: str
    masked: int = 0
    length: int = 0
    markdown: int = 0


@dataclass(frozen=True)
class StudyItem:
    """An instruction, what a good answer holds, and the systems' answers by name."""

    __pydantic_config__: ClassVar = CLOSED

    id: str
    category: str
    text: str
    answers: Mapping[str, Answer]
    difficulty: str = ""
    points: tuple[str, ...] = ()
    answer: str | None = None


@dataclass(frozen=True)
class Study:
    """A study folder as it was read."""

    folder: Path
    spec: StudySpec
    items: Mapping[str, StudyItem]
    key: bytes = field(repr=False)

    @cached_property
    def versus(self) -> tuple[tuple[str, str], ...]:
        """The pairs of systems that are compared, each in alphabetical order."""
        names = sorted(system.name for system in self.spec.systems)
        both = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
        return tuple(pair for pair in both if self.spec.baseline in (None, *pair))


def write_study(folder: Path, spec: StudySpec, items: Sequence[StudyItem], key: bytes) -> None:
    """A new study folder. Raises UserError where the folder holds anything already, or cannot be
    written; `spec` must hold the digests of `items` and `key`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"--out {folder}: not empty; a study begins in a folder of its own")
        place = os.open(folder / KEY, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(place, "w", encoding="ascii") as file:
            file.write(key.hex() + "\n")
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from error
    write_atomic(folder / ITEMS, items_text(items))
    write_atomic(folder / SPEC, json.dumps(asdict(spec), indent=1, ensure_ascii=False) + "\n")


def items_text(items: Sequence[StudyItem]) -> str:
    """The bytes of items.jsonl."""
    return "".join(json.dumps(asdict(item), ensure_ascii=False) + "\n" for item in items)


def new_key() -> bytes:
    """256 random bits."""
    return secrets.token_bytes(32)


def key_digest(key: bytes) -> str:
    """What study.json holds of the key, so that sides can be checked when the study is over."""
    return text_hash(key.hex())


def read_study(folder: Path) -> Study:
    """A study folder. Raises UserError where it is none, or a file is not what it was."""
    if not (folder / SPEC).is_file():
        raise UserError(f"{folder}: no study there; `qwen-eval annotate init` makes one")
    try:
        spec = as_written(StudySpec, read_json(folder / SPEC))
        if spec.schema != SCHEMA:
            raise ValueError(f"of schema {spec.schema}, this version reads {SCHEMA}")
    except ValueError as error:
        raise UserError(f"{folder / SPEC}: not a study of this version ({error})") from error
    try:
        key = bytes.fromhex((folder / KEY).read_text(encoding="ascii"))
        changed = file_hash(folder / ITEMS) != spec.items_digest
    except (OSError, ValueError) as error:
        raise UserError(f"{folder}: cannot be read whole ({error})") from error
    for name, wrong in ((ITEMS, changed), (KEY, key_digest(key) != spec.key_digest)):
        if wrong:
            raise UserError(f"{folder / name}: changed since the study was frozen; restore it")
    items = {}
    for number, row in enumerate(read_jsonl(folder / ITEMS), 1):
        try:
            item = as_written(StudyItem, row)
        except ValueError as error:
            raise UserError(f"{folder / ITEMS}, line {number}: {error}") from error
        items[item.id] = item
    return Study(folder, spec, items, key)
