"""What leaves a study: before unblinding rows without systems, after it findings and runs.

    events.jsonl                            everything that happened, the undone votes too
    adjudications.jsonl, comments.jsonl     what the owner decided, what annotators wrote
    assignments.jsonl                       who was shown what where, to be checked by the key
    votes.jsonl, votes.csv, votes.parquet   every vote on a regular pair
    runs/SYSTEM/                            a run directory for each system against the baseline
    findings.json, figure.svg               what the votes say, in the shape of the paper's too

Knows nothing of pages or commands.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import write_atomic
from qwen_eval.results import read_run

from .analysis.votes import Vote
from .findings.export import write_votes
from .findings.figure import figure4
from .findings.findings import Findings, findings
from .findings.runs import write_runs
from .judging import judge_rows, votes_of
from .store import owning, reading
from .store.store import Store

JUDGES = "judges"  # a folder of the study, with a run for each judge
_NAMED = ("left", "right", "left_length", "right_length", "left_markdown", "right_markdown")


def findings_of(store: Store) -> Findings:
    """What the votes say. Raises RefusedError before unblinding, UserError without votes and for a
    judge that cannot be read."""
    owning.must_be_unblinded(store, "findings")
    return _findings(store, reading.votes_of(store), judges_of(store))


def judges_of(store: Store) -> dict[str, list[Vote]]:
    """The votes of every judge that was asked, by name. Raises UserError for a run that cannot be
    read, or that judged something else."""
    found, broken = _judges(store)
    if broken:
        raise UserError(broken[0])
    return found


def _findings(
    store: Store, votes: Sequence[Vote], judges: Mapping[str, Sequence[Vote]]
) -> Findings:
    spec = store.study.spec
    return findings(
        votes,
        spec.baseline,
        systems=[system.name for system in spec.systems],
        judges=judges,
        controls=reading.controls_of(store),
        alpha=spec.plan.alpha,
        seed=spec.plan.seed,
    )


def _judges(store: Store) -> tuple[dict[str, list[Vote]], list[str]]:
    """The judges' votes, and a line for each run that holds none that can be read."""
    rows = judge_rows(store.study.items, store.pairs.regular.values())
    found, broken = {}, []
    for folder in sorted(path.parent for path in (store.study.folder / JUDGES).glob("*/run.json")):
        try:
            found[folder.name] = votes_of(read_run(folder).samples, rows, folder.name)
        except UserError as error:
            broken.append(
                f"{folder}: no judge of this study that can be read ({error}); finish it with the "
                "`annotate judge` that began it, or remove the folder"
            )
    return found, broken


def blind_rows(store: Store) -> list[dict[str, Any]]:
    """Every vote without what could tell the systems apart: which stood where, and the lengths of
    what they wrote."""
    rows = [asdict(vote) for vote in reading.votes_of(store)]
    return [{key: value for key, value in row.items() if key not in _NAMED} for row in rows]


def events(store: Store) -> list[dict[str, Any]]:
    """The log, the one thing that a study never loses. Before unblinding without the decisions that
    logs of earlier versions hold: they are in the order of the systems' names."""
    found = reading.events_of(store)
    if store.state() == "unblinded":
        return list(found)
    return [
        {k: v for k, v in row.items() if (row["kind"], k) != ("adjudicated", "choice")}
        for row in found
    ]


def export(store: Store, out: Path, *, names: bool = False) -> list[Path]:
    """Write all that may leave by now into a folder; `names`: annotators by their names instead of
    a1, a2, but in the log and the assignments, whose sides are drawn from a1, a2. Before unblinding
    no system is named.

    Raises UserError where it cannot be written and, when all else is, without votes and for a judge
    that cannot be read."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        written = [write_lines(out / "events.jsonl", events(store))]
        if store.state() != "unblinded":
            blind = _named(store, blind_rows(store), names)
            return [*written, write_lines(out / "votes-blind.jsonl", blind)]
        votes = reading.votes_of(store)
        written += _export_votes(store, votes, out, names)
        return written + _export_findings(store, votes, out)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror or error})") from error


def _export_votes(store: Store, votes: Sequence[Vote], out: Path, names: bool) -> list[Path]:
    decided = [
        {"pair": pair, "item": (known := store.pairs[pair]).item, "first": known.first}
        | {"second": known.second, "choice": choice}
        for pair, choice in reading.adjudications_of(store).items()
    ]
    if names:
        called = reading.people(store)
        votes = [replace(vote, annotator=called[vote.annotator]) for vote in votes]
    return [
        write_lines(out / "comments.jsonl", _named(store, reading.comments_of(store), names)),
        write_lines(out / "adjudications.jsonl", decided),
        write_lines(out / "assignments.jsonl", reading.assignments_of(store)),
        *write_votes(votes, out),
    ]


def _export_findings(store: Store, votes: Sequence[Vote], out: Path) -> list[Path]:
    spec = store.study.spec
    judges, troubles = _judges(store)
    written = []
    try:
        found = _findings(store, votes, judges)
    except UserError as error:
        troubles.append(str(error))
    else:
        if spec.baseline is not None:
            study = {"name": spec.name, "digest": spec.digest}
            # By a1, a2 always: the same votes are the same runs, whatever annotators are called.
            written += write_runs(votes, spec.baseline, out / "runs", study)
            written.append(_write(out / "figure.svg", figure4(found)))
        text = json.dumps(found.to_json(), indent=1, ensure_ascii=False) + "\n"
        written.append(_write(out / "findings.json", text))
    if troubles:
        raise UserError(f"{'; '.join(troubles)}; all else is in {out}")
    return written


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """As JSON lines."""
    return _write(path, as_lines(rows))


def as_lines(rows: Iterable[Mapping[str, Any]]) -> str:
    """The bytes of such a file."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _write(path: Path, text: str) -> Path:
    write_atomic(path, text)
    return path


def _named(store: Store, rows: list[dict[str, Any]], names: bool) -> list[dict[str, Any]]:
    called = reading.people(store) if names else {}
    return [row | {"annotator": called.get(row["annotator"], row["annotator"])} for row in rows]
