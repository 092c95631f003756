"""What a run says of the process that made it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qwen_eval.provenance import environment, peak_memory

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
