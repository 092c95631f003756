"""The action and the pipelines to copy: they parse, their commands exist, and their scripts run."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.command import environment, qwen_eval, understand

ROOT = Path(__file__).parents[2]
ACTION = yaml.safe_load((ROOT / ".github/actions/gate/action.yml").read_text(encoding="utf-8"))
GITHUB = yaml.safe_load((ROOT / "docs/ci/github.yml").read_text(encoding="utf-8"))
GITLAB = yaml.safe_load((ROOT / "docs/ci/gitlab.yml").read_text(encoding="utf-8"))
INSTALL, GATE = ACTION["runs"]["steps"]
(WORKFLOW,) = GITHUB["jobs"].values()
JOB = GITLAB["evaluate"]
RULES = """
rules:
  - {task: mmlu, type: non_inferiority, margin: 0.05}
  - {task: gsm8k, type: budget, errors: 0.0}
"""
# Each would leave a file `pwned` if a shell ever read it as more than a name.
HOSTILE = (
    "two words",
    'quo\'te "and" quote',
    "$(touch pwned)",
    "`touch pwned`",
    "a; touch pwned #",
    '"; touch pwned; echo "',
    "line\ntouch pwned\n",
    "--json",
    "${HOME} * ~ \\",
    "x\n::error::forged\nverdict=PASS",
)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the examples expect it, with two runs over the bundled sample."""
    folder: Path = tmp_path_factory.mktemp("runs")
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "gate.yaml").write_text(RULES, encoding="utf-8")
    for model, out in (("mock:oracle", "evaluation/baseline"), ("mock:random", "worse")):
        done = qwen_eval("run", "--tasks", "mmlu,gsm8k", "--model", model, "--out", out, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`python` and `qwen-eval` as a pipeline's PATH has them; pip only notes what it is asked."""
    folder: Path = tmp_path_factory.mktemp("bin")
    python = shlex.quote(sys.executable)
    noting = 'if [ "$1 $2" = "-m pip" ]; then printf "%s\\0" "$@" > pip.txt; exit; fi'
    for name, body in (
        ("python", f'{noting}\nexec {python} "$@"'),
        ("qwen-eval", f'exec {python} -m qwen_eval "$@"'),
    ):
        (folder / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (folder / name).chmod(0o755)
    return folder


@pytest.fixture
def home(tmp_path: Path, runs: Path) -> Path:
    shutil.copytree(runs, tmp_path / "home")
    return tmp_path / "home"


def bash(
    script: str, programs: Path, cwd: Path, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a step as GitHub does (`shell: bash`); GitLab's runner sets the same options."""
    variables = {"GITHUB_OUTPUT": str(cwd / "output"), "GITHUB_STEP_SUMMARY": str(cwd / "summary"),
                 "PATH": f"{programs}:/usr/bin:/bin"} | variables  # fmt: skip
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
        cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip


def variables_of(step: dict[str, Any], **given: str) -> dict[str, str]:
    """A step's variables with the action's inputs put in, as the runner does it."""
    inputs = {name: spec.get("default") for name, spec in ACTION["inputs"].items()} | given
    assert set(inputs) == set(ACTION["inputs"])
    names = {v: re.fullmatch(r"\$\{\{ inputs\.(\w+) \}\}", text) for v, text in step["env"].items()}
    return {variable: inputs[match[1]] for variable, match in names.items() if match}


def outputs(home: Path) -> dict[str, str]:
    lines = (home / "output").read_text(encoding="utf-8").splitlines()
    found = dict(line.split("=", 1) for line in lines)
    assert len(found) == len(lines) == 2
    return found


def judged(programs: Path, home: Path, **inputs: str) -> subprocess.CompletedProcess[str]:
    """The action's gate over the two runs, or over what is given instead."""
    usual = {"rules": "evaluation/gate.yaml", "baseline": "evaluation/baseline"}
    return bash(GATE["run"], programs, home, **variables_of(GATE, **usual | inputs))


# ── The action ───────────────────────────────────────────────────────────────────────────────────


def test_a_regression_fails_with_everything_written(programs: Path, home: Path) -> None:
    done = judged(
        programs, home, candidate="worse", junit="out/gate.xml", verdict="out/v/gate.json"
    )
    assert done.returncode == 1, done.stderr
    assert outputs(home) == {"verdict": "FAIL", "exit-code": "1"}
    assert yaml.safe_load((home / "out/v/gate.json").read_text())["verdict"] == "FAIL"
    assert len(list(ET.parse(home / "out/gate.xml").iter("failure"))) == 1
    assert "::error" in done.stdout
    assert "FAIL" in (home / "summary").read_text()


def test_the_same_run_passes(programs: Path, home: Path) -> None:
    done = judged(programs, home, candidate="evaluation/baseline")
    assert done.returncode == 0, done.stderr
    assert outputs(home) == {"verdict": "PASS", "exit-code": "0"}
    assert not list(ET.parse(home / "gate.xml").iter("failure"))


def test_an_earlier_verdict_is_not_taken_for_this_one(programs: Path, home: Path) -> None:
    assert judged(programs, home, candidate="evaluation/baseline").returncode == 0
    (home / "output").unlink()
    assert judged(programs, home, candidate="nowhere").returncode == 2
    assert outputs(home) == {"verdict": "", "exit-code": "2"}
    assert not (home / "gate.json").exists()
    assert not (home / "gate.xml").exists()


def test_fields_that_may_differ_are_given_one_a_line(programs: Path, home: Path) -> None:
    (home / "worse" / "DONE").unlink()
    assert judged(programs, home, candidate="worse").returncode == 3
    (home / "output").unlink()
    done = judged(programs, home, candidate="worse", allow="scorer\nunfinished\n")
    assert done.returncode == 1, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE)
def test_inputs_are_names_and_nothing_else(programs: Path, home: Path, text: str) -> None:
    for name in ("candidate", "baseline", "rules", "junit", "verdict"):
        usual = {"candidate": "worse", name: text}
        done = judged(programs, home, **usual)
        assert done.returncode in (1, 2), done.stderr
        assert outputs(home)["exit-code"] == str(done.returncode)
        assert not re.search(r"^\s*::error::forged", done.stdout + done.stderr, re.MULTILINE)
        (home / "output").unlink()
    # Names that are strange, but there.
    folder, rules = home / f"run {text}", home / f"rules {text}"
    shutil.copytree(home / "evaluation" / "baseline", folder)
    rules.write_text(RULES, encoding="utf-8")
    done = judged(programs, home, candidate=folder.name, rules=rules.name, allow=text,
                  junit=f"{text}.xml", verdict=f"{text}.json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert outputs(home) == {"verdict": "PASS", "exit-code": "0"}
    assert (home / f"{text}.xml").exists()
    assert not list(home.rglob("pwned"))


@pytest.mark.parametrize("text", HOSTILE)
def test_requirements_reach_pip_as_they_are(programs: Path, tmp_path: Path, text: str) -> None:
    step = variables_of(INSTALL, install=f"{text}\n\nqwen-eval==0.1.0")
    done = bash(INSTALL["run"], programs, tmp_path, **step)
    assert done.returncode == 0, done.stderr
    asked = (tmp_path / "pip.txt").read_text(encoding="utf-8").split("\0")[:-1]
    lines = [line for line in text.split("\n") if line]
    assert asked == ["-m", "pip", "install", "--", *lines, "qwen-eval==0.1.0"]
    assert not (tmp_path / "pwned").exists()


def test_no_script_has_an_expression_pasted_into_it() -> None:
    steps = [*ACTION["runs"]["steps"], *WORKFLOW["steps"]]
    scripts = [step["run"] for step in steps if "run" in step]
    assert len(scripts) == 5
    assert not [script for script in scripts if "${{" in script]
    assert not [step for step in ACTION["runs"]["steps"] if "uses" in step]


# ── The pipelines ────────────────────────────────────────────────────────────────────────────────


def commands(scripts: list[str]) -> Iterator[list[str]]:
    """The words of every `qwen-eval` command line."""
    for line in "\n".join(scripts).replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["qwen-eval"]:
            yield words[1:]


WORKFLOW_SCRIPTS = [step["run"] for step in WORKFLOW["steps"] if "run" in step]
LINES = [*commands(WORKFLOW_SCRIPTS), *commands(JOB["before_script"] + JOB["script"])]


def test_the_pipelines_have_commands() -> None:
    assert [words[0] for words in LINES] == ["models", "run", "models", "run", "gate"]


@pytest.mark.parametrize("words", LINES, ids=" ".join)
def test_the_command_lines_are_understood(words: list[str]) -> None:
    understand(words)


def for_mock(script: str) -> str:
    """Without the one option that a mock model refuses."""
    assert script.count("--dtype float32") == 1
    return script.replace("--dtype float32", "")


@pytest.mark.parametrize(("model", "code"), [("mock:oracle", 0), ("mock:random", 1)])
def test_the_workflow_runs(programs: Path, home: Path, model: str, code: int) -> None:
    steps = {step["name"]: step for step in WORKFLOW["steps"] if "name" in step}
    evaluate = bash(
        for_mock(steps["Evaluate"]["run"]), programs, home, **GITHUB["env"] | {"MODEL": model}
    )
    assert evaluate.returncode == 0, evaluate.stderr
    done = judged(programs, home, **steps["Gate"]["with"])
    assert done.returncode == code, done.stderr
    kept = steps["Keep the verdict and the run"]
    assert all((home / path).exists() for path in kept["with"]["path"].split())
    assert kept["if"] == "always()"


@pytest.mark.parametrize(("model", "code"), [("mock:oracle", 0), ("mock:random", 1)])
def test_the_template_runs(programs: Path, home: Path, model: str, code: int) -> None:
    done = bash(
        for_mock("\n".join(JOB["script"])), programs, home, **JOB["variables"] | {"MODEL": model}
    )
    assert done.returncode == code, done.stderr
    kept = JOB["artifacts"]
    assert all((home / path).exists() for path in (*kept["paths"], kept["reports"]["junit"]))
    assert kept["when"] == "always"


def test_an_inconclusive_end_is_a_warning_in_gitlab_and_nothing_is_tried_again() -> None:
    assert JOB["allow_failure"] == {"exit_codes": [5]}
    assert JOB["retry"] == 0


def test_the_workflow_can_only_read_and_names_its_actions_versions() -> None:
    assert GITHUB["permissions"] == {"contents": "read"}
    assert GITHUB["concurrency"]["group"]
    # YAML 1.1 reads the key `on` as true.
    assert {"pull_request", "schedule"} == set(GITHUB[True])
    used = [step["uses"] for step in WORKFLOW["steps"] if "uses" in step]
    own = "OWNER/qwen-eval/.github/actions/gate@REF"
    assert own in used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+", name) for name in used if name != own)
