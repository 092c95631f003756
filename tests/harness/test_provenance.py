"""What a run says of the process that made it."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_eval.provenance import environment, peak_memory
from qwen_eval.results import read_run
from tests.cli.command import qwen_eval

MIB = 2**20


def told_by(code: str) -> int:
    """What another process prints, in MiB."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return int(done.stdout) // MIB


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else says it")
def test_peak_memory_is_the_most_that_was_held_at_a_time() -> None:
    said = "from qwen_eval.provenance import peak_memory\n{}print(peak_memory())"
    little = told_by(said.format(""))
    assert 5 < little < 100
    much = told_by(said.format("x = b'x' * (300 << 20)\ndel x\n"))
    assert 295 < much - little < 310


@pytest.mark.skipif(sys.platform != "linux", reason="nothing else says it")
def test_it_is_not_that_of_the_program_that_started_this_one() -> None:
    held = b"x" * (200 * MIB)
    assert told_by("from qwen_eval.provenance import peak_memory; print(peak_memory())") < 100
    own = peak_memory()
    assert own is not None
    assert own > len(held)


def test_the_environment_names_no_machine() -> None:
    import platform

    assert platform.node() not in str(environment()) or not platform.node()


def test_a_run_records_its_peak_memory(tmp_path: Path) -> None:
    done = qwen_eval("run", "--tasks", "gsm8k", "--model", "mock:oracle", "--out", tmp_path / "r")
    assert done.returncode == 0, done.stderr
    (start,) = read_run(tmp_path / "r").info.invocations
    assert 10 * 2**20 < start["peak_memory"] < 2**30


def test_the_peak_is_looked_at_once_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen_eval.cli import run

    held = itertools.count(1000)
    monkeypatch.setattr("qwen_eval.provenance.peak_memory", lambda: next(held))
    run.command(tasks="gsm8k", model="mock:oracle", out=tmp_path / "r", limit="3")
    (start,) = read_run(tmp_path / "r").info.invocations
    assert start["peak_memory"] == 1000
    assert next(held) == 1001
