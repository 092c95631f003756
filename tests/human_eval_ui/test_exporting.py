"""What leaves a study, and when."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.human_eval_ui import exporting
from qwen_eval.human_eval_ui.store import owning, reading, voting
from qwen_eval.human_eval_ui.store.store import Store
from qwen_eval.human_eval_ui.store.voting import Ballot
from qwen_eval.human_eval_ui.study import sides
from qwen_eval.results import read_run
from qwen_eval.run_writer import RunWriter
from tests.harness import toys
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


def unblinded(store: Store) -> Store:
    owning.set_state(store, "closed", owning.COMMAND_LINE)
    owning.set_state(store, "unblinded", owning.COMMAND_LINE)
    return store


def test_a_study_without_votes_says_so_when_all_else_is_written(tmp_path: Path) -> None:
    store = unblinded(made_store(tmp_path)[0])
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"^no votes yet[^\n]*; all else is in .*out$"):
        exporting.export(store, out)
    assert [row["kind"] for row in read_lines(out / "events.jsonl")][-2:] == ["closed", "unblinded"]
    assert read_lines(out / "votes.jsonl") == read_lines(out / "assignments.jsonl") == []
    assert len(pd.read_parquet(out / "votes.parquet")) == 0
    assert not (out / "findings.json").exists()


def test_systems_without_votes_are_in_the_findings(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path, systems=SYSTEMS, baseline="north")
    one = given(store, people[0])
    voting.cast(store, people[0], one.id, Ballot(1))
    found = exporting.findings_of(unblinded(store))
    assert set(found.systems) == set(SYSTEMS)
    assert len(found.unvoted) == 1


def judge_run(store: Store, name: str, pair: str | None = None) -> Path:
    """A run under judges/, which judges the study's pairs or another."""
    folder = store.study.folder / exporting.JUDGES / name
    pairs = [pair] if pair else store.pairs.regular
    targets = [f"{each}/{side}" for each in pairs for side in (1, 2)]
    writer = RunWriter(folder, toys.run_info(), [""])
    for number, target in enumerate(targets):
        writer.add(toys.record(number, target=target, detail={"choice": 1}))
    writer.close()
    return folder


def test_a_broken_judge_is_named_and_keeps_nothing_else_from_being_written(
    tmp_path: Path,
) -> None:
    store = unblinded(voted(tmp_path, "north"))
    judge_run(store, "sound")
    assert list(exporting.judges_of(store)) == ["sound"]
    foreign = judge_run(store, "foreign", "0" * 16)
    torn = judge_run(store, "torn")
    (torn / "samples.jsonl").unlink()
    for folder in (foreign, torn):
        out = tmp_path / f"without {folder.name}"
        told = (
            rf"{folder}: no judge of this study[^\n]*; finish it with [^\n]* or remove the folder"
        )
        with pytest.raises(UserError, match=told):
            exporting.export(store, out)
        names = {path.name for path in out.iterdir()}
        assert names >= {"events.jsonl", "votes.csv", "runs", "figure.svg", "findings.json"}
        found = json.loads((out / "findings.json").read_text("utf-8"))
        assert list(found["judges"]) == ["sound"]
        with pytest.raises(UserError, match=told):
            exporting.findings_of(store)
        shutil.rmtree(folder)
    exporting.export(store, tmp_path / "out")


def test_an_export_by_names_goes_over_one_without(tmp_path: Path) -> None:
    store, out = unblinded(voted(tmp_path, "north")), tmp_path / "out"
    exporting.export(store, out)
    before = {path: path.read_bytes() for path in (out / "runs").rglob("*") if path.is_file()}
    exporting.export(store, out, names=True)
    assert {path: path.read_bytes() for path in before} == before
    rows = read_lines(out / "votes.jsonl")
    assert {row["annotator"] for row in rows} == {f"person {n}" for n in range(3)}
    # Sides are drawn from ids, so these stay.
    ids = {row["annotator"] for row in read_lines(out / "assignments.jsonl")}
    assert ids == {"a1", "a2", "a3"}
    assert len(before) > 2


@pytest.mark.parametrize("baseline", ["north", None])
def test_all_sides_follow_from_the_exported_files_and_the_key(
    tmp_path: Path, baseline: str | None
) -> None:
    store = voted(tmp_path, baseline)
    folder, out = store.study.folder, tmp_path / "out"
    exporting.export(unblinded(store), out)
    store.close()
    spec = json.loads((folder / "study.json").read_text("utf-8"))
    text = (folder / "key").read_text("ascii").strip()
    assert hashlib.sha256(text.encode()).hexdigest().startswith(spec["key_digest"])
    key, rows = bytes.fromhex(text), read_lines(out / "assignments.jsonl")
    systems = {system["name"] for system in spec["systems"]}
    left_of: dict[tuple[str, str, str, str], bool] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    assert {row["kind"] for row in rows} == {"regular", "gold", "repeat"}
    for at, row in enumerate(sorted(rows, key=lambda row: (row["annotator"], row["position"]))):
        who, both = row["annotator"], (row["first"], row["second"])
        assert row == rows[at]
        if row["kind"] == "gold":
            assert row["pair"] == sides.name(key, "gold", row["item"])
            assert row["swapped"] == sides.draw(key, "side", who, row["pair"]) % 2
            assert row["number"] is None
            continue
        assert set(both) <= systems
        assert row["pair"] == sides.name(key, row["item"], *both)
        if row["kind"] == "repeat":
            assert row["swapped"] is not left_of[who, row["item"], *both]
            continue
        assert row["number"] == seen[who, *both]
        seen[who, *both] += 1
        assert row["swapped"] is sides.swapped(key, who, both, row["number"])
        left_of[who, row["item"], *both] = row["swapped"]
    # And these are the sides of the votes.
    votes = read_lines(out / "votes.jsonl")
    assert len(votes) == len(left_of)
    for vote in votes:
        first, second = sorted((vote["left"], vote["right"]))
        assert left_of[vote["annotator"], vote["item"], first, second] is (vote["left"] == second)


def test_the_check_in_the_docs_holds_and_finds_what_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "human_eval.md").read_text("utf-8")
    (check,) = (part.partition("```")[0] for part in text.split("```python\n")[1:])
    store, out = unblinded(voted(tmp_path, "north")), tmp_path / "out"
    exporting.export(store, out)
    for name in ("study.json", "key"):
        shutil.copy(store.study.folder / name, out)
    monkeypatch.chdir(out)
    exec(check, {})
    path = out / "assignments.jsonl"
    rows = read_lines(path)
    one = next(row for row in rows if row["kind"] == "regular")
    one["swapped"] = not one["swapped"]
    exporting.write_lines(path, rows)
    with pytest.raises(AssertionError):
        exec(check, {})


def test_a_decision_unblinds_nothing_before_its_time(tmp_path: Path) -> None:
    store = voted(tmp_path, "north")
    pair = next(iter(store.pairs.regular))
    owning.adjudicate(store, pair, 2, owning.COMMAND_LINE)
    # As logs of earlier versions have it.
    with store.writing() as connection:
        store.log(connection, "", "adjudicated", pair=pair, choice=-2)

    def decided(name: str) -> list[dict]:
        exporting.export(store, tmp_path / name)
        rows = read_lines(tmp_path / name / "events.jsonl")
        return [row for row in rows if row["kind"] == "adjudicated"]

    for row in decided("blind"):
        assert row.keys() == {"at", "who", "kind", "pair"}
    assert len(decided("again")) == 2
    unblinded(store)
    assert decided("out")[1]["choice"] == -2
    assert read_lines(tmp_path / "out" / "adjudications.jsonl")[0]["choice"] == 2


def test_where_nothing_can_be_written_is_said(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"--out .*file: cannot be written"):
        exporting.export(store, tmp_path / "file")
