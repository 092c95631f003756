"""Votes as runs: the same figures as the findings, and through the commands that read runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_eval.compare import compare_runs
from qwen_eval.errors import UserError
from qwen_eval.gate import judge
from qwen_eval.human_eval_ui.analysis.shares import shares
from qwen_eval.human_eval_ui.analysis.votes import Vote, between
from qwen_eval.human_eval_ui.findings.runs import safe, task_of, write_runs
from qwen_eval.measures import measure_of
from qwen_eval.metrics import stored
from qwen_eval.paired import difference
from qwen_eval.results import read_run
from qwen_eval.rules import read_rules
from tests.human_eval_ui.studies import styled

BASE = "gpt 3.5/turbo"
TASK = task_of(BASE)
CHANCES = {"worse": (0.55, 0.2, 0.25), "better": (0.2, 0.2, 0.6)}
# Some votes on one system are missing, so that items weigh differently.
STUDY = [
    vote
    for i, vote in enumerate(styled(np.random.default_rng(1), 40, 3, CHANCES, BASE))
    if not (vote.annotator == "a2" and i % 5 < 2 and "better" in (vote.left, vote.right))
]
ABOUT = {"name": "demo", "hash": "abc123"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    better, worse = write_runs(STUDY, BASE, tmp_path_factory.mktemp("runs"), ABOUT)
    return {"better": better, "worse": worse}


def command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    from qwen_eval.cli.main import app

    try:
        app([str(word) for word in words], standalone_mode=True)
    except SystemExit as ended:
        code = int(ended.code or 0)
    return code, capsys.readouterr().out


def test_a_runs_score_is_the_findings_net(runs: dict[str, Path]) -> None:
    for system, folder in runs.items():
        run = read_run(folder)  # which checks the hashes in DONE
        assert run.finished
        assert run.info.model["name"] == system
        assert run.info.settings == {"baseline": BASE, "study": ABOUT}
        metrics = stored(run)[TASK]
        expected = {one.category: one for one in shares(STUDY, BASE) if one.system == system}
        assert metrics.overall is not None
        assert metrics.overall.estimate == pytest.approx(expected[None].net.delta)
        assert metrics.overall.n == expected[None].items
        for category, one in metrics.categories.items():
            assert one.estimate == pytest.approx(expected[category].net.delta)
        assert not metrics.invalid
        values = [record.values for record in run.samples]
        assert sum(v["votes"] for v in values) == expected[None].votes
        wins = sum(v["win"] * v["votes"] for v in values) / expected[None].votes
        assert wins == pytest.approx(expected[None].win.value)


def test_a_sample_is_counted_by_hand(tmp_path: Path) -> None:
    said = [2, 1, 0, -1]
    votes = [Vote("i", "coding", f"a{k}", "x", "y", c) for k, c in enumerate(said)]
    (folder,) = write_runs(votes, "x", tmp_path, {})
    (record,) = read_run(folder).samples
    assert record.values == {
        "net_preference": 0.25,
        "win": 0.5,
        "tie": 0.25,
        "loss": 0.25,
        "votes": 4.0,
    }
    assert (record.id, record.group, record.answer) == ("i", "coding", "2 win, 1 tie, 1 loss")


def test_two_systems_are_compared_by_item(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Items are the units, though they have categories, and weigh what both have on the mean."""
    (one,) = compare_runs(read_run(runs["worse"]), read_run(runs["better"]))
    by_item: dict[str, list[list[int]]] = {}
    for place, system in enumerate(("worse", "better")):
        for vote in between(STUDY, system, BASE):
            by_item.setdefault(vote.item, [[], []])[place].append(vote.outcome_for(system))
    both = [pair for _, pair in sorted(by_item.items()) if all(pair)]
    before, after = ([float(np.mean(pair[i])) for pair in both] for i in (0, 1))
    weights = [(len(a) + len(b)) / 2 for a, b in both]
    expected = difference(before, after, weights=weights)
    assert len(set(weights)) > 1
    assert one.paired == expected
    assert one.paired.clusters is None
    code, said = command(capsys, "compare", runs["worse"], runs["better"])
    assert code == 0
    assert f"{100 * expected.delta:+.1f}" in said


@pytest.mark.parametrize(("minimum", "code"), [(0.0, 0), (0.99, 1)])
def test_a_gate_holds_a_system_to_a_floor(
    runs: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    minimum: float,
    code: int,
) -> None:
    rules = tmp_path / "gate.yaml"
    rules.write_text(f'rules: [{{task: "{TASK}", type: floor, minimum: {minimum}}}]')
    ended, said = command(capsys, "gate", "--rules", rules, "--baseline", runs["better"],
                          "--candidate", runs["better"])  # fmt: skip
    assert ended == code, said
    assert ("≥ 0" if code == 0 else "< 99") in said


def test_a_gate_finds_a_worse_system(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rules = tmp_path / "gate.yaml"
    rules.write_text(f'rules: [{{task: "{TASK}", type: non_inferiority, margin: 0.05}}]')
    ended, said = command(capsys, "gate", "--rules", rules, "--baseline", runs["better"],
                          "--candidate", runs["worse"])  # fmt: skip
    assert ended == 1, said


def test_no_item_is_right_or_wrong(runs: dict[str, Path], tmp_path: Path) -> None:
    rules, run = tmp_path / "gate.yaml", read_run(runs["better"])
    rules.write_text(f'rules: [{{task: "{TASK}", type: must_pass, items: [i000]}}]')
    with pytest.raises(UserError, match="use a floor"):
        judge(read_rules(rules), run, run, today=date(2026, 1, 1))


def test_history_draws_the_systems_together(
    runs: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = command(capsys, "history", runs["better"].parent, "--json")
    assert code == 0
    (series,) = json.loads(said.splitlines()[-1])["series"]
    assert {point["model"] for point in series["points"]} == set(runs)


def test_a_report_draws_what_is_below_zero(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    code, _ = command(capsys, "report", runs["better"], runs["worse"], "-o", page)
    assert code == 0
    html = page.read_text(encoding="utf-8")
    net = {system: stored(read_run(folder))[TASK].overall for system, folder in runs.items()}
    for one in net.values():
        assert one is not None
        for value in (one.estimate, one.low, one.high):
            assert f"{100 * value:+.1f}".replace("-", "−") in html
    assert net["worse"] is not None
    assert net["worse"].estimate < 0
    assert "net preference in points, wins minus losses" in html
    assert "less is better" not in html
    assert "Win, tie, loss" in html
    win = next(s.win.value for s in shares(STUDY, BASE) if s.system == "better")
    assert f'<td class="num">{100 * win:.1f}</td>' in html


def test_the_interval_of_a_net_preference_crosses_zero() -> None:
    from qwen_eval.metrics import Estimate
    from qwen_eval.reports.figures import ends, shown, unit_of

    assert unit_of("net_preference") == "points"
    around = Estimate(30, 0.02, -0.13, 0.17, "ratio, student-t")
    assert ends(around, "points") == pytest.approx((-13, 17))
    assert ends(Estimate(1, 1.0, -1.8e308, 1.8e308, ""), "points") == (-100, 100)
    assert shown(-13.04, "points") == "−13.0"
    assert measure_of("net_preference").weight == "votes"


def test_the_same_votes_again_change_nothing_and_others_are_refused(tmp_path: Path) -> None:
    def written(votes: Sequence[Vote]) -> dict[str, bytes]:
        (folder,) = write_runs(votes, BASE, tmp_path, ABOUT)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    votes = [v for v in STUDY if "better" in (v.left, v.right)]
    first = written(votes)
    assert "DONE" in first
    assert written(votes[::-1]) == first
    with pytest.raises(UserError, match="holds another run"):
        written(votes[1:])


def test_names_are_safe_folders_and_stay_apart(tmp_path: Path) -> None:
    names = ["../up", "a/b", "a b", "通义", "千问", "..", "x" * 300, "con:nul", "plain-1.0"]
    made = [safe(name) for name in names]
    assert len(set(made)) == len(names)
    assert made[-1] == "plain-1.0"
    for name in made:
        assert name.strip(".-") == name
        assert len(name) < 80
        assert name.isascii()
        assert not set(name) & set("/\\: ")
    votes = [
        replace(STUDY[0], item=f"i{i}", left="base", right=name) for i, name in enumerate(names)
    ]
    paths = write_runs(votes, "base", tmp_path / "runs", {})
    assert {path.parent for path in paths} == {tmp_path / "runs"}
    found: dict[str, Any] = {str(read_run(p).info.model["name"]): p for p in paths}
    assert set(found) == set(names)


def test_a_baseline_without_votes_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="baseline nobody"):
        write_runs(STUDY, "nobody", tmp_path, {})
