"""`qwen-eval sandbox doctor`, and what a run says of what contained its programs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_eval.sandbox.layers import LAYERS
from tests.cli.command import environment, qwen_eval, refused

# The command line on a kernel without filters for system calls.
NO_FILTER = """
import ctypes, os, struct, sys
from qwen_eval.sandbox.syscalls import numbers
number = numbers(os.uname().machine)["seccomp"]
lines = ((0x20, 0, 0, 0), (0x15, 0, 1, number), (6, 0, 0, 0x50001), (6, 0, 0, 0x7FFF0000))
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
assert libc.prctl(22, 2, struct.pack("@HP", len(lines), ctypes.addressof(code)), 0, 0) == 0
from qwen_eval.cli.main import main
sys.exit(main())
"""


def without_filters(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`qwen-eval` where seccomp(2) is refused."""
    return subprocess.run(
        [sys.executable, "-c", NO_FILTER, *map(str, arguments)],
        env=environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_the_doctor_tells_layers_rung_and_attacks() -> None:
    done = qwen_eval("sandbox", "doctor")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    told = {line.split()[0]: line.split()[1] for line in lines if line.split()[:1]}
    assert {layer: told[layer] in ("yes", "no") for layer in LAYERS} == dict.fromkeys(LAYERS, True)
    assert re.search(r"^rung [ABC]: programs ", done.stdout, re.MULTILINE)
    attacks = re.search(r"^attacks: (\d+) run just now, 0 got through$", done.stdout, re.MULTILINE)
    assert attacks
    assert int(attacks[1]) >= 8


@pytest.mark.slow
def test_the_doctor_for_a_program() -> None:
    done = qwen_eval("sandbox", "doctor", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert [layer["layer"] for layer in found["layers"]] == list(LAYERS)
    assert found["got_through"] == []
    assert found["isolation"].startswith(f"rung {found['rung']}: ")
    if os.getuid() == 0:
        assert all(layer["there"] or layer["remedy"] for layer in found["layers"])


def test_wrong_words() -> None:
    assert "No such option" in refused(qwen_eval("sandbox", "doctor", "--everything"))
    assert "No such command" in refused(qwen_eval("sandbox", "nurse"))
    assert "doctor" in qwen_eval("sandbox").stdout


@pytest.mark.slow
def test_a_run_says_what_contained_its_programs(tmp_path: Path) -> None:
    asked = ("run", "--tasks", "humaneval", "--model", "mock:oracle", "--limit", "2", "--out")
    done = qwen_eval(*asked, tmp_path / "held")
    assert done.returncode == 0, done.stderr
    info = json.loads((tmp_path / "held" / "run.json").read_text())
    isolation = info["isolation"]
    assert [start["isolation"] for start in info["invocations"]] == [isolation]
    assert isolation.startswith("rung ")
    assert "seccomp" in isolation
    assert f"isolation: {isolation}" in " ".join(done.stdout.split())


@pytest.mark.slow
def test_where_nothing_contains_them_programs_are_refused_or_marked(tmp_path: Path) -> None:
    asked = ("run", "--tasks", "humaneval", "--model", "mock:oracle", "--limit", "2", "--out")
    why = refused(without_filters(*asked, tmp_path / "no"), 3)
    assert "seccomp: operation not permitted" in why
    assert "--accept-no-sandbox" in why
    assert not (tmp_path / "no").exists(), "said before anything was asked"
    doctor = without_filters("sandbox", "doctor")
    assert "seccomp" in refused(doctor, 3)
    assert re.search(r"^seccomp +no +", doctor.stdout, re.MULTILINE)
    doctor = without_filters("sandbox", "doctor", "--json")
    assert doctor.returncode == 3
    told = json.loads(doctor.stdout)
    assert (told["rung"], told["isolation"]) == ("D", "none")
    assert "seccomp" in [layer["layer"] for layer in told["layers"] if layer["remedy"]]

    done = without_filters(*asked, tmp_path / "marked", "--accept-no-sandbox")
    assert done.returncode == 0, done.stderr
    assert "isolation: none" in done.stdout
    assert json.loads((tmp_path / "marked" / "run.json").read_text())["isolation"] == "none"

    again = without_filters("rescore", tmp_path / "marked", "--accept-no-sandbox", "--json")
    assert again.returncode == 0, again.stderr
    assert "isolation: none" in again.stdout
    rescored = json.loads(again.stdout.splitlines()[-1])
    assert rescored["tasks"]["humaneval@strict"]["isolation"] == "none"

    assert qwen_eval(*asked, tmp_path / "held").returncode == 0
    rules = tmp_path / "gate.yaml"
    rules.write_text("rules:\n  - {task: humaneval, type: floor, minimum: 0.5}\n")
    gate = ("gate", "--rules", rules, "--baseline", tmp_path / "held", "--candidate",
            tmp_path / "marked")  # fmt: skip
    assert "ran without a sandbox" in refused(qwen_eval(*gate), 3)
    assert qwen_eval(*gate, "--allow", "isolation").returncode == 0
    assert "isolation is contained there, none here" in refused(
        qwen_eval("compare", tmp_path / "held", tmp_path / "marked"), 3
    )
    resumed = refused(qwen_eval(*asked, tmp_path / "marked"), 2)
    assert "isolation is 'none' there, 'contained' here" in resumed
