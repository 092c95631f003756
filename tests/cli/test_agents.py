"""Agents from the command line: a run, its resumption, its rescoring, and what it is held by."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from qwen_eval.cli import asking
from qwen_eval.cli.setup import load_tasks
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.results import read_run
from qwen_eval.sandbox import preflight
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox
from tests.cli.command import qwen_eval

TASKS = "code_interpreter_math,code_interpreter_general,hf_agent_run"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few samples of three tasks."""
    with open_sandbox() as sandbox:
        if "namespaces" not in sandbox.layers:
            pytest.skip("no namespaces here, so no sessions")
    out = tmp_path_factory.mktemp("agents") / "run"
    done = ask(out)
    assert done.returncode == 0, done.stderr
    assert "isolation: rung" in done.stderr
    return out


def ask(out: Path, model: str = "mock:oracle") -> subprocess.CompletedProcess[str]:
    words = "--tasks", TASKS, "--model", model, "--limit", 3, "--out", out, "--json"
    return qwen_eval("run", *words)


def scores(out: Path) -> dict[str, float]:
    metrics = json.loads((out / "metrics.json").read_text())["tasks"]
    return {name: row["overall"]["estimate"] for name, row in metrics.items()} | {
        f"{name} {other}": figure["estimate"]
        for name, row in metrics.items()
        for other, figure in row["others"].items()
    }


def test_a_model_that_is_always_right_gets_all_of_every_metric(run: Path) -> None:
    found = scores(run)
    assert set(found) == {
        "code_interpreter_math@strict",
        "code_interpreter_math@strict executable",
        "code_interpreter_general@strict",
        "code_interpreter_general@strict correct",
        "hf_agent_run@strict",
        "hf_agent_run@strict tool_selection",
        "hf_agent_run@strict tool_used",
    }
    assert set(found.values()) == {1.0}
    assert read_run(run).info.isolation.startswith("rung")


def test_a_run_that_was_cut_short_goes_on_to_the_same_end(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    out.mkdir()
    for name in ("run.json", "prompts.json"):
        (out / name).write_bytes((run / name).read_bytes())
    lines = (run / "samples.jsonl").read_text().splitlines()
    (out / "samples.jsonl").write_text("\n".join(lines[:5]) + "\n" + lines[5][:40])
    done = ask(out)
    assert done.returncode == 0, done.stderr
    assert "5 samples kept" in done.stderr
    assert scores(out) == scores(run)
    assert (out / "samples.jsonl").read_text() == (run / "samples.jsonl").read_text()


def test_rescoring_runs_nothing_again(run: Path) -> None:
    done = qwen_eval("rescore", run, "--json")
    assert done.returncode == 0, done.stderr
    assert "isolation" not in done.stdout
    tasks = json.loads(done.stdout.splitlines()[-1])["tasks"]
    math = tasks["code_interpreter_math@strict"]["scorers"]
    assert math["outcome"] == {"estimate": 1.0, "n": 3, "no_answer": 0, "errors": 0}
    assert math["qwen_last_number"]["n"] == 3
    assert tasks["hf_agent_run@strict"]["scorers"]["hf_agent"]["estimate"] == 1.0


def test_a_model_that_says_nonsense_is_wrong_and_the_run_ends(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "Action: code_interpreter\\nAction Input: ```py\\n1/0\\n```"}\n')
    done = ask(tmp_path / "run", f"mock:{script}")
    assert done.returncode == 0, done.stderr
    found = scores(tmp_path / "run")
    assert found["code_interpreter_math@strict"] == 0.0
    assert found["code_interpreter_math@strict executable"] == 0.0
    assert found["hf_agent_run@strict"] == 0.3


def test_without_namespaces_sessions_are_refused_before_the_first_word(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Sandbox(1, {"landlock", "seccomp", "rlimits", "identity"})
    monkeypatch.setattr(preflight, "open_sandbox", lambda **_: held)
    tasks = load_tasks("hf_agent_run", None, "1")
    with pytest.raises(RefusedError, match="may start processes, and without user namespaces"):
        asking.open_sandbox(tasks, accept_none=False)
    assert held._closed


def test_a_package_that_is_missing_is_named_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from qwen_eval.tasks import solvers

    monkeypatch.setitem(solvers.SESSION_PACKAGES, "code_interpreter", ("no-such-package",))
    with open_sandbox() as sandbox:
        if "namespaces" not in sandbox.layers:
            pytest.skip("no namespaces here, so no sessions")
    tasks = load_tasks("code_interpreter_math", None, "1")
    wanted = r"import no-such-package, which is not installed: pip install 'qwen-eval\[interpreter"
    with pytest.raises(UserError, match=wanted):
        asking.open_sandbox(tasks, accept_none=False)
