"""`compare` and `gate` as a user and a CI system run them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.cli.command import qwen_eval, refused

TASKS = "mmlu,gsm8k"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The right answers, and answers at random by two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for name, model, more in (
        ("right", "mock:oracle", ()),
        ("chance", "mock:random", ()),
        ("few", "mock:random", ("--limit", "20")),
    ):
        made[name] = folder / name
        done = qwen_eval("run", "--tasks", TASKS, "--model", model, "--out", made[name], *more)
        assert done.returncode == 0, done.stderr
    return made


def test_compare_prints_differences_and_flips(runs: dict[str, Path]) -> None:
    done = qwen_eval("compare", runs["right"], runs["chance"], COLUMNS="140")
    assert done.returncode == 0, done.stderr
    assert "mmlu@strict" in done.stdout
    assert "-100.0" in done.stdout, "of gsm8k nothing is right by chance"
    assert "groups are the units" in done.stdout
    assert done.stdout.count("\n  lost ") == 10
    assert "more (--flips)" in done.stdout


def test_compare_json_holds_every_flip(runs: dict[str, Path]) -> None:
    done = qwen_eval("compare", runs["right"], runs["chance"], "--tasks", "mmlu@strict", "--json")
    found = json.loads(done.stdout.splitlines()[-1])
    (task,) = found["tasks"]
    assert len(task["flips"]) == task["lost"] > 0
    assert task["paired"]["delta"] == pytest.approx(task["candidate"] - task["baseline"])


def test_runs_over_other_items_are_refused_by_name(runs: dict[str, Path]) -> None:
    message = refused(qwen_eval("compare", runs["right"], runs["few"]), 3)
    assert "mmlu@strict: not comparable: selected is" in message
    assert "--allow selected" in message
    done = qwen_eval("compare", runs["right"], runs["few"], "--allow", "selected")
    assert done.returncode == 0
    assert "DIFFERENT selected" in done.stdout


def gate(rules: str, folder: Path, runs: dict[str, Path], *more: object, candidate: str = "chance"):
    path = folder / "gate.yaml"
    path.write_text(rules)
    return qwen_eval("gate", "--rules", path, "--baseline", runs["right"], "--candidate",
                     runs[candidate], *more)  # fmt: skip


RULES = """
rules:
  - {task: gsm8k, type: non_inferiority, margin: 0.02}
  - {task: mmlu, type: floor, minimum: 0.1}
"""


def test_a_regression_exits_with_1_and_says_so_everywhere(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    summary = tmp_path / "summary.md"
    done = gate(RULES, tmp_path, runs, "--junit", tmp_path / "j.xml", "--out", tmp_path / "v.json",
                "--github", "--json")  # fmt: skip
    assert done.returncode == 1, done.stderr
    verdict = json.loads(done.stdout.splitlines()[-1])
    assert verdict == json.loads((tmp_path / "v.json").read_text())
    assert (verdict["verdict"], verdict["exit_code"]) == ("FAIL", 1)
    assert any(line.startswith("::error title=FAIL non_inferiority gsm8k") for line in
               done.stdout.splitlines())  # fmt: skip
    suites = ET.parse(tmp_path / "j.xml").getroot()
    assert [suite.get("failures") for suite in suites] == ["1", "0"]
    assert not summary.exists()


def test_the_same_run_passes(tmp_path: Path, runs: dict[str, Path]) -> None:
    rules = "rules: [{task: mmlu, type: non_inferiority, margin: 0.02}]"
    done = gate(rules, tmp_path, runs, candidate="right")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("gate",), 2, "--rules, --baseline, --candidate missing"),
        (("gate", "--rules", "none.yaml", "--baseline", "a", "--candidate", "b"), 2, "none.yaml"),
        (("compare", "nowhere", "nowhere"), 2, "is nowhere a run directory?"),
        (("compare", "nowhere", "nowhere", "--alpha", "2"), 2, "--alpha 2.0"),
        (("gate", "plan", "--effect", "20"), 2, "--effect 20"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], code: int, says: str) -> None:
    assert says in refused(qwen_eval(*arguments), code)


def test_plan_says_how_many_items(tmp_path: Path) -> None:
    done = qwen_eval("gate", "plan", "--effect", "2")
    assert done.stdout.startswith("1,5"), done.stdout
    done = qwen_eval("gate", "plan", "--effect", "2", "--discordance", "0.2")
    assert done.stdout.startswith("3,0"), done.stdout
