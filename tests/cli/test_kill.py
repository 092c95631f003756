"""Killed at any moment, a run loses nothing, and its resumed end is that of an unbroken run."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qwen_eval.results import SampleRecord, read_metrics, read_samples
from tests.cli import warm
from tests.cli.command import PROGRAM, environment
from tests.model.toy_folder import toy_checkpoint

# How often a run of the real model is killed; one start of it takes seconds.
REAL_KILLS = int(os.environ.get("QWEN_EVAL_KILLS", "3"))

# Runs `qwen-eval` with these words, killed after so many seconds if they are given.
Start = Callable[..., subprocess.CompletedProcess[str] | None]


def fresh(
    words: list[str], kill_after: float | None = None
) -> subprocess.CompletedProcess[str] | None:
    """`qwen-eval` from Python's start on; None if it had to be killed."""
    try:
        return subprocess.run(
            [*PROGRAM, *words],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=kill_after,
        )
    except subprocess.TimeoutExpired:
        return None


def forked(
    words: list[str], kill_after: float | None = None
) -> subprocess.CompletedProcess[str] | None:
    """`qwen-eval` in a process whose imports are done; None if it had to be killed."""
    done = warm.run(words, None, "", environment(), kill_after)
    return None if done.returncode == -signal.SIGKILL else done


def run_killed(start: Start, words: list[str], longest: float, kills: int) -> list[int]:
    """Start and kill until so many kills have hit a living run; samples on disk after each.

    The first part of a run is loading, and Python's own start, where nothing can be lost: fewer
    kills than moments are spent there.
    """
    rng = random.Random(5)
    out = Path(words[-1])
    kept: list[int] = []
    before: dict[str, SampleRecord] = {}
    while len(kept) < kills:
        began = time.monotonic()
        done = start(words, rng.uniform(0.3 * longest, longest))
        assert done is None or done.returncode == 0, done.stderr
        if (out / "DONE").exists():
            if not before:  # a whole run, faster than the first: the machine was busy then
                longest = min(longest, time.monotonic() - began)
            shutil.rmtree(out)  # it came through: begin a new one
            before = {}
            continue
        there = {r.id: r for r in (read_samples(out) if (out / "samples.jsonl").exists() else [])}
        assert before.items() <= there.items(), "a finished sample was lost or changed"
        before = there
        kept.append(len(there))
    return kept


def check(
    start: Start, model: Path, mirror: Path, folder: Path, tasks: list[str], kills: int
) -> None:
    words = ["run", "--model", str(model), "--data", str(mirror), *tasks]
    words += ["--dtype", "float32", "--out"]
    whole, broken = folder / "whole", folder / "broken"
    began = time.monotonic()
    done = start([*words, str(whole)])
    assert done, "nobody killed it"
    assert done.returncode == 0, done.stderr
    longest = time.monotonic() - began
    kept = run_killed(start, [*words, str(broken)], longest, kills)
    done = start([*words, str(broken)])
    assert done, "nobody killed it"
    assert done.returncode == 0, done.stderr
    # Not a bit differs, log-probabilities included.
    assert read_samples(broken) == read_samples(whole)
    assert read_metrics(broken) == read_metrics(whole)
    print(json.dumps({"kept_after_kills": kept}))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_twenty_kills_of_a_toy(mirror: Path, tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "model", max_length=8192, trained_length=8192)
    tasks = ["--tasks", "mmlu@lm-eval,passkey_en@1024", "--limit", "8", "--batch", "2"]
    check(forked, model, mirror, tmp_path, tasks, 20)


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.timeout(1800)
def test_kills_of_a_real_model(mirror: Path, smollm2: Path, tmp_path: Path) -> None:
    tasks = ["--tasks", "piqa,tiny_arithmetic", "--limit", "20"]
    check(fresh, smollm2, mirror, tmp_path, tasks, REAL_KILLS)
