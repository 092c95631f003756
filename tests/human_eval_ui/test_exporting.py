"""What leaves a study, and when."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.human_eval_ui import exporting
from qwen_eval.human_eval_ui.store import owning, reading, voting
from qwen_eval.human_eval_ui.store.store import Store
from qwen_eval.human_eval_ui.store.voting import Ballot
from qwen_eval.results import read_run
from tests.human_eval_ui.made_study import made_store
from tests.human_eval_ui.test_assigning import given, vote_through

SYSTEMS = ("north", "south", "east")


def voted(folder: Path, baseline: str | None) -> Store:
    store, _, people = made_store(folder, systems=SYSTEMS, baseline=baseline, control_every=5)
    one = given(store, people[0])
    voting.cast(store, people[0], one.id, Ballot(-2, comment="=1+1"))
    for annotator in people:
        vote_through(store, annotator)
    return store


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_before_unblinding_nothing_tells_systems_apart(tmp_path: Path) -> None:
    store = voted(tmp_path, "north")
    for state in ("open", "closed"):
        if state == "closed":
            owning.set_state(store, "closed", owning.COMMAND_LINE)
        with pytest.raises(RefusedError, match="names stay hidden"):
            exporting.findings_of(store)
        written = exporting.export(store, tmp_path / state, names=True)
        assert {path.name for path in written} == {"votes-blind.jsonl", "events.jsonl"}
        text = "".join(path.read_text("utf-8") for path in written)
        assert not any(name in text for name in SYSTEMS)
        rows = read_lines(tmp_path / state / "votes-blind.jsonl")
        assert len(rows) == len(reading.votes_of(store))
        assert {"left", "right", "left_length", "right_markdown"}.isdisjoint(rows[0])
        assert {row["annotator"] for row in rows} == {f"person {n}" for n in range(3)}


def test_after_it_all_forms_hold_the_same_votes(tmp_path: Path) -> None:
    store = voted(tmp_path, "north")
    dispute = owning.disputes(store)
    owning.set_state(store, "closed", owning.COMMAND_LINE)
    owning.set_state(store, "unblinded", owning.COMMAND_LINE)
    out = tmp_path / "out"
    exporting.export(store, out)
    votes = reading.votes_of(store)
    lines, table = read_lines(out / "votes.jsonl"), pd.read_parquet(out / "votes.parquet")
    sheet = pd.read_csv(out / "votes.csv")
    assert len(votes) == len(lines) == len(table) == len(sheet) == 72
    assert [row["choice"] for row in lines] == [vote.choice for vote in votes]
    assert list(table["left"]) == list(sheet["left"]) == [vote.left for vote in votes]
    assert read_lines(out / "comments.jsonl")[0]["comment"] == "=1+1"
    assert len(read_lines(out / "adjudications.jsonl")) == 0 <= len(dispute)
    found = json.loads((out / "findings.json").read_text("utf-8"))
    runs = {path.name: read_run(path) for path in (out / "runs").iterdir()}
    assert runs.keys() == {"south", "east"}
    for verdict in found["verdicts"]:
        samples = runs[verdict["system"]].samples
        values = [sample.values for sample in samples]
        total = sum(value["votes"] for value in values)
        net = sum(value["net_preference"] * value["votes"] for value in values) / total
        assert net == pytest.approx(verdict["net"]["value"])


def test_a_study_without_a_baseline_has_strengths_and_no_figure(tmp_path: Path) -> None:
    store = voted(tmp_path, None)
    owning.set_state(store, "closed", owning.COMMAND_LINE)
    owning.set_state(store, "unblinded", owning.COMMAND_LINE)
    names = {path.name for path in exporting.export(store, tmp_path / "out")}
    assert "votes.csv" in names
    assert "figure.svg" not in names
    found = json.loads((tmp_path / "out" / "findings.json").read_text("utf-8"))
    assert sorted(found["systems"]) == sorted(SYSTEMS)
    assert found["shares"] == []


def test_a_study_without_votes_says_so(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path)
    owning.set_state(store, "closed", owning.COMMAND_LINE)
    owning.set_state(store, "unblinded", owning.COMMAND_LINE)
    with pytest.raises(UserError, match="no votes yet"):
        exporting.export(store, tmp_path / "out")


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--out .*file: cannot be written"):
        exporting.export(store, tmp_path / "file")
