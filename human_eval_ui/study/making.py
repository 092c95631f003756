"""From run directories, or from lines of one file, to a frozen study.

Answers are taken as they were generated, made alike in what tells systems apart without being read
(white space, the model's own name), and written down once. Knows nothing of votes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, encodable, read_jsonl, text_hash
from qwen_eval.results import CLOSED, Run, as_written, identity_digest, read_run

from ..answers.masking import mask
from ..answers.shape import length, markdown_elements, normalise
from ..instructions import load_instructions
from . import spec as files
from .spec import Answer, Study, StudyItem, StudySpec, System, plan_of

TASKS = {"human300": "zh", "human300_en": "en"}
SHOWN = 5  # ids that a message names
LONGEST = 100  # characters of a system's name


@dataclass(frozen=True)
class Line:
    """One line of a file of answers: an instruction with each system's answer by name."""

    __pydantic_config__: ClassVar = CLOSED

    id: str
    category: str
    text: str
    answers: Mapping[str, str]
    difficulty: str = ""
    points: tuple[str, ...] = ()
    answer: str | None = None
    run: str = ""


@dataclass(frozen=True)
class Rules:
    """What an owner may choose; the words are StudySpec's. `empty`: whether a system may have said
    nothing. Raises UserError naming the option that is out of range, in its own units."""

    name: str = "human300"
    overlap: int = 3
    quota: int | None = None
    control_every: int = 15
    gold: int = 10
    dwell: float = 1.5
    lease: float = 1800.0
    hidden: tuple[str, ...] = ()
    empty: bool = False

    def __post_init__(self) -> None:
        for flag, value, least in (
            ("--overlap", self.overlap, 1),
            ("--quota", self.quota if self.quota is not None else 1, 1),
            ("--control-every", self.control_every or 2, 2),
            ("--gold", self.gold, 0),
            ("--dwell", self.dwell, 0),
            ("--lease", self.lease / 60, 1),
        ):
            if not least <= value < 1e6:
                minutes = " of minutes" if flag == "--lease" else ""
                raise UserError(f"{flag} {value:g}: give a number{minutes} from {least} on")
        for flag, word in (("--name", self.name), *(("--hide", word) for word in self.hidden)):
            _check_name(word, flag)


@dataclass(frozen=True)
class Gathered:
    """Instructions with raw answers, before anything is hidden."""

    lines: Sequence[Line]
    systems: tuple[System, ...]
    cut: Mapping[str, int] = field(default_factory=dict)  # answers that ended at the token limit


def from_runs(runs: Sequence[Path], rules: Rules) -> Gathered:
    """The answers of finished runs of `human300`, each a system.

    Raises UserError for fewer than two runs, one that is named twice, is not finished or holds no
    answers to the instructions, two of one name, a name that cannot be shown, runs over different
    instructions, and instructions without an answer.
    """
    places = [path.resolve() for path in runs]
    for number, path in enumerate(runs):
        if places[number] in places[:number]:
            raise UserError(f"--systems {path}: named twice; give each run once")
    if len(runs) < 2:
        raise UserError("--systems: name two run directories at least")
    opened = {path: read_run(path) for path in runs}
    languages = {path: _language(run) for path, run in opened.items()}
    if len(set(languages.values())) > 1:
        told = ", ".join(f"{path}: {language}" for path, language in languages.items())
        raise UserError(f"--systems: answers to instructions in different languages ({told})")
    instructions = {each.id: each for each in load_instructions(next(iter(languages.values())))}
    names = _names(opened)
    answers: dict[str, dict[str, str]] = {}
    cut = {}
    for path, run in opened.items():
        found = _answers(path, run, rules)
        if unknown := sorted(found.keys() - instructions.keys()):
            raise UserError(f"--systems {path}: no such instruction here: {_some(unknown)}")
        answers[names[path]] = found
        cut[names[path]] = sum(record.output_truncated for record in run.samples)
    ids = _same_ids({str(path): answers[names[path]].keys() for path in opened})
    lines = [
        Line(
            each.id,
            each.category,
            each.text,
            {name: answers[name][each.id] for name in answers},
            each.difficulty,
            each.points,
            each.answer,
        )
        for each in instructions.values()
        if each.id in ids
    ]
    systems = tuple(
        System(names[path], encodable(path.name), identity_digest(run.info))
        for path, run in opened.items()
    )
    return Gathered(lines, systems, cut)


def from_lines(path: Path, rules: Rules) -> Gathered:
    """The answers of a file of JSON lines (Line). Raises UserError naming file and line."""
    lines: list[Line] = []
    seen = set()
    for number, row in enumerate(read_jsonl(path), 1):
        place = f"{path}, line {number}"
        try:
            line = as_written(Line, row)
        except ValueError as error:
            raise UserError(f"{place}: {error}") from error
        if line.id in seen:
            raise UserError(f"{place}: id: {line.id} was there before")
        if not all((line.id, line.category, line.text.strip())):
            raise UserError(f"{place}: id, category and text must not be empty")
        if not _encodable("".join(_kept(line))):
            raise UserError(f"{place}: holds half a character outside its answers; mend it")
        for name in line.answers:
            _check_name(name, f"{place}: answers")
        seen.add(line.id)
        first = lines[0] if lines else line
        if line.answers.keys() != first.answers.keys() or len(line.answers) < 2:
            raise UserError(
                f"{place}: answers: of {', '.join(sorted(line.answers)) or 'nobody'}; every line "
                f"has those of the same two systems or more ({', '.join(sorted(first.answers))})"
            )
        blank = sorted(name for name, text in line.answers.items() if not text.strip())
        if blank and not rules.empty:
            raise UserError(f"{place}: answers.{blank[0]}: empty (--allow-empty takes it as it is)")
        lines.append(line)
    if not lines:
        raise UserError(f"{path}: holds no instruction")
    systems = tuple(System(name, lines[0].run, "") for name in lines[0].answers)
    return Gathered(lines, systems)


def make_study(folder: Path, gathered: Gathered, baseline: str | None, rules: Rules) -> Study:
    """Freeze a study in a folder of its own. Raises UserError where there is something already, for
    fewer than two systems, nothing to compare them on, and a baseline that is no system."""
    names = [system.name for system in gathered.systems]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UserError(f"a study needs two systems of different names, not: {', '.join(names)}")
    if not gathered.lines:
        raise UserError("a study needs one instruction at least, and the systems answer none")
    if baseline is not None and baseline not in names:
        raise UserError(f"--baseline {baseline}: not among the systems: {', '.join(names)}")
    # A plain word such as base stands in answers for what it means, but where they say who speaks;
    # --hide hides it all the same.
    words = [name for name in names if name.isalpha()]
    hidden = (*rules.hidden, *(name for name in names if name not in words))
    items = [_item(line, hidden, words) for line in gathered.lines]
    key = files.new_key()
    asked = [(line.id, line.category, line.text) for line in gathered.lines]
    spec = StudySpec(
        name=rules.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        systems=gathered.systems,
        baseline=baseline,
        items=len(items),
        items_digest=text_hash(files.items_text(items), 64),
        key_digest=files.key_digest(key),
        instructions_digest=text_hash(canonical_json(asked)),
        overlap=rules.overlap,
        quota=rules.quota,
        control_every=rules.control_every,
        gold=rules.gold,
        dwell=rules.dwell,
        lease=rules.lease,
        hidden=rules.hidden,
        plan=plan_of(baseline),
    )
    files.write_study(folder, spec, items, key)
    return files.read_study(folder)


def _item(line: Line, hidden: Sequence[str], words: Sequence[str]) -> StudyItem:
    def answer(text: str) -> Answer:
        masked = mask(normalise(text), hidden, words=words, asked=line.text)
        shown = masked.text
        return Answer(shown, masked.count, length(shown), markdown_elements(shown))

    return StudyItem(
        id=line.id,
        category=line.category,
        text=line.text,
        answers={name: answer(text) for name, text in line.answers.items()},
        difficulty=line.difficulty,
        points=line.points,
        answer=line.answer,
    )


def _language(run: Run) -> str:
    found = {TASKS[name] for task in run.info.tasks if (name := task.partition("@")[0]) in TASKS}
    if not run.finished:
        raise UserError(f"--systems {run.folder}: not finished; the command that began it goes on")
    if len(found) != 1 or len(run.info.tasks) != 1:
        raise UserError(
            f"--systems {run.folder}: a run of human300 alone is needed, not of "
            f"{', '.join(run.info.tasks)}; make one with `qwen-eval run --tasks human300`"
        )
    return found.pop()


def _answers(path: Path, run: Run, rules: Rules) -> dict[str, str]:
    """The replies by the id of their instruction, which a sample of human300 has as its target."""
    failed = sorted(record.target for record in run.samples if record.status == "error")
    if failed:
        raise UserError(
            f"--systems {path}: no answer to {len(failed)} instructions ({_some(failed)}); the "
            "command that began the run asks them again"
        )
    found = {record.target: str(record.responses[-1].get("text", "")) for record in run.samples}
    blank = sorted(name for name, text in found.items() if not text.strip())
    if blank and not rules.empty:
        raise UserError(
            f"--systems {path}: {len(blank)} answers are empty ({_some(blank)}); --allow-empty "
            "shows them as they are"
        )
    return found


def _names(runs: Mapping[Path, Run]) -> dict[Path, str]:
    """Every system by the name of its model, or of its folder where two models have one name."""
    models = {path: str(run.info.model.get("name", "")) or path.name for path, run in runs.items()}
    taken = list(models.values())
    names = {path: path.name if taken.count(name) > 1 else name for path, name in models.items()}
    for path, name in names.items():
        _check_name(name, f"--systems {path}")
        if list(names.values()).count(name) > 1:
            raise UserError(f"--systems {path}: another run is called {name} too; rename a folder")
    return names


def _check_name(name: str, place: str) -> None:
    """Raises UserError for what cannot be shown, or kept in a file."""
    shown = repr(name[:20])
    if not name.strip():
        raise UserError(f"{place}: {shown}: a name must not be empty")
    if len(name) > LONGEST:
        raise UserError(f"{place}: {shown}…: a name of {len(name)} characters; {LONGEST} at most")
    if not _encodable(name):
        raise UserError(f"{place}: {shown}: the name holds half a character; rename it")


def _kept(line: Line) -> Iterator[str]:
    """What is written down as it is."""
    yield from (line.id, line.category, line.text, line.difficulty, *line.points)
    yield from (line.answer or "", line.run)


def _encodable(text: str) -> bool:
    return encodable(text) == text


def _same_ids(ids: Mapping[str, Set[str]]) -> set[str]:
    first = next(iter(ids))
    for path, some in ids.items():
        if different := sorted(some ^ ids[first]):
            raise UserError(
                f"--systems {path}: answers other instructions than {first}: {len(different)} are "
                f"in one of them only ({_some(different)})"
            )
    return set(ids[first])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
