"""`make gate`: its commands exist, and its rules decide what their comments say."""

from __future__ import annotations

import os
import random
import shlex
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from qwen_eval.gate import judge
from qwen_eval.results import Run, read_run
from qwen_eval.rules import read_rules
from tests.cli.command import qwen_eval, understand

ROOT = Path(__file__).parents[2]
RULES = read_rules(ROOT / "tests" / "gate" / "gate.yaml")


def lines_of(target: str) -> list[list[str]]:
    """The words behind `qwen-eval` of every such line that a target would run."""
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=os.environ | {"REASON": "a new model"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line.split("/qwen-eval ", 1)[1]) for line in lines if "/qwen-eval " in line]


@pytest.mark.parametrize("target", ["gate", "gate-baseline"])
def test_the_command_lines_are_understood(target: str) -> None:
    lines = lines_of(target)
    assert len(lines) == {"gate": 2, "gate-baseline": 4}[target]
    for words in lines:
        understand(words)


def test_a_baseline_needs_a_reason() -> None:
    bare = {name: value for name, value in os.environ.items() if name != "REASON"}
    done = subprocess.run(
        ["make", "--dry-run", "gate-baseline"], cwd=ROOT, env=bare, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    (check,) = [line for line in done.stdout.splitlines() if line.startswith("test -n")]
    for reason, code in (("", 1), ("two words, 'quoted'", 0)):
        assert subprocess.run(["sh", "-c", check], env={"REASON": reason}).returncode == code


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The questions of `make gate`, all right."""
    (asked,) = [words for words in lines_of("gate") if words[0] == "run"]
    out = tmp_path_factory.mktemp("gate") / "run"
    for flag, value in (("--model", "mock:oracle"), ("--out", str(out))):
        asked[asked.index(flag) + 1] = value
    at = asked.index("--dtype")
    done = qwen_eval(*asked[:at], *asked[at + 2 :])
    assert done.returncode == 0, done.stderr
    return read_run(out)


def losing(run: Run, count: int, seed: int) -> Run:
    """The same run with so many of its right MMLU answers wrong."""
    items = [s.id for s in run.samples if s.task == "mmlu@strict"]
    lost = set(random.Random(seed).sample(items, count))
    return replace(
        run,
        samples=[
            replace(s, values=dict.fromkeys(s.values, 0.0)) if s.id in lost else s
            for s in run.samples
        ],
    )


@pytest.mark.parametrize(("lost", "code"), [(0, 0), (2, 0), (4, 5), (12, 1), (20, 1)])
def test_the_rules_decide_with_so_few_questions(drawn: Run, lost: int, code: int) -> None:
    for seed in range(5):
        verdict = judge(RULES, drawn, losing(drawn, lost, seed), today=date(2026, 1, 1))
        assert verdict.exit_code == code, [rule.message for rule in verdict.rules]


@pytest.mark.parametrize(("share", "code"), [(0.0, 0), (0.001, 0), (0.01, 1), (-0.01, 0)])
def test_the_rules_see_the_slightest_loss_in_bits(drawn: Run, share: float, code: int) -> None:
    """Every text's bits as many percent more, from two bits per byte on, with noise of a tenth."""
    rng = random.Random(4)
    texts = {s.id: 2.0 * rng.uniform(0.9, 1.1) for s in drawn.samples if "bits" in s.task}
    before, after = (
        replace(
            drawn,
            samples=[
                replace(s, values=s.values | {"bits_per_byte": texts[s.id] * (1 + factor)})
                if s.id in texts
                else s
                for s in drawn.samples
            ],
        )
        for factor in (0.0, share)
    )
    verdict = judge(RULES, before, after, today=date(2026, 1, 1))
    assert verdict.exit_code == code, [rule.message for rule in verdict.rules]


def test_an_answer_that_failed_is_no_verdict(drawn: Run) -> None:
    first = next(i for i, s in enumerate(drawn.samples) if s.task == "humaneval@strict")
    broken = replace(drawn.samples[first], status="error", error="killed", values={})
    samples = [*drawn.samples[:first], broken, *drawn.samples[first + 1 :]]
    verdict = judge(RULES, drawn, replace(drawn, samples=samples), today=date(2026, 1, 1))
    assert verdict.exit_code == 4
