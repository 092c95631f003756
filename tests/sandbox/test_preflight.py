"""Which rung a machine has: tried where the kernel really refuses what is missing.

A filter of our own refuses the calls that a container's filter would, then the sandbox is opened
behind it, by root and by an ordinary user, with a Python that everybody can read.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.attacks.bank import Outcome
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.layers import LAYERS, Layer, named, rung_of
from qwen_eval.sandbox.preflight import findings, open_sandbox, remedy
from qwen_eval.sandbox.sandbox import Sandbox
from tests.sandbox.programs import judge

ROOT = Path(__file__).parents[2]
PYTHON = shutil.which("python3.11", path="/usr/bin:/usr/local/bin")

PROGRAM = """
import ctypes, json, os, struct, sys
sys.path.insert(0, sys.argv[1])
denied, uid, accept, threads = json.loads(sys.argv[2])
from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.preflight import findings, open_sandbox
from qwen_eval.sandbox.syscalls import numbers
from qwen_eval.types import JudgeRequest

if uid:
    os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
table = numbers(os.uname().machine)
lines = [struct.pack("=HBBI", 0x20, 0, 0, 0)]
for name in denied:  # number == name ? EPERM : go on
    lines += [struct.pack("=HBBI", 0x15, 0, 1, table[name]), struct.pack("=HBBI", 6, 0, 0, 0x50001)]
lines += [struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(lines))
program = struct.pack("@HP", len(lines), ctypes.addressof(code))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())

IDENTITY = "def f():\\n import os\\n return os.getuid()"
THREADS = '''
import threading, time
def f(wanted):
    threading.stack_size(32768)
    for started in range(wanted):
        try: threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
        except RuntimeError: return started
    return wanted
'''
found = {one.layer: [one.there, one.detail, one.remedy] for one in findings()}
try:
    with open_sandbox(accept_none=accept) as sandbox:
        request = JudgeRequest("import colorsys\\ndef f(): return 1", "assert f() == 1", "f")
        wrong = JudgeRequest("def f(): return 2", "assert f() == 1", "f")
        verdicts = [sandbox.judge(one).passed for one in (request, wrong)]
        told = sandbox.judge(JudgeRequest(IDENTITY, "raise ValueError(f())", "f")).text
        started = sandbox.judge(JudgeRequest(THREADS, f"raise ValueError(f({threads}))", "f")).text
        print(json.dumps({"rung": sandbox.rung, "isolation": sandbox.isolation,
                          "verdicts": verdicts, "layers": found,
                          "identity": int(told.removeprefix("ValueError: ")),
                          "threads": int(started.removeprefix("ValueError: "))}))
except RefusedError as error:
    print(json.dumps({"refused": str(error), "code": error.exit_code, "layers": found}))
"""

DOCKER = ["unshare", "mount", "setns", "open_tree"]
NO_LANDLOCK = ["landlock_create_ruleset"]
NO_FILTER = ["seccomp"]


def opened(
    denied: list[str], uid: int, *, accept: bool = False, threads: int = 0
) -> dict[str, Any]:
    """What comes of opening a sandbox where the kernel refuses those calls. `threads`: how many a
    program tries to start."""
    if os.getuid() != 0 or PYTHON is None or not os.stat(ROOT).st_mode & 0o005:
        pytest.skip("needs root, a python3.11 all can read, and a folder all can read")
    asked = json.dumps([denied, uid, accept, threads])
    done = subprocess.run(
        [PYTHON, "-c", PROGRAM, str(ROOT), asked],
        capture_output=True, text=True, cwd="/", timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_an_ordinary_user_is_on_rung_b() -> None:
    found = opened([], 12345)
    assert (found["rung"], found["verdicts"]) == ("B", [True, False])
    assert found["isolation"].endswith("; missing: cgroup")
    assert found["layers"]["cgroup"][0] is False
    assert "systemd-run --user" in found["layers"]["cgroup"][2]


@pytest.mark.parametrize("uid", [0, 12345])
def test_without_namespaces_it_is_rung_c(uid: int) -> None:
    """As in a container with its usual filter."""
    found = opened(DOCKER, uid)
    assert (found["rung"], found["verdicts"]) == ("C", [True, False])
    there, detail, way_out = found["layers"]["namespaces"]
    assert there is False
    assert detail.startswith("namespaces: ")
    assert detail.endswith(": operation not permitted")
    assert way_out.startswith(("docker run --security-opt", "sysctl -w "))


@pytest.mark.parametrize(("uid", "most"), [(0, 64), (12345, 1000)])
def test_on_rung_c_threads_leave_room_for_others(uid: int, most: int) -> None:
    """An ordinary user's other programs count with them, so that the limit is above those."""
    found = opened(DOCKER, uid, threads=3000)
    assert 32 < found["threads"] < most


def test_namespaces_without_landlock_are_enough() -> None:
    found = opened(NO_LANDLOCK, 12345)
    assert (found["rung"], found["verdicts"]) == ("B", [True, False])
    assert "landlock" in found["isolation"].partition("; missing: ")[2]
    assert "CONFIG_SECURITY_LANDLOCK" in found["layers"]["landlock"][2]


@pytest.mark.parametrize(
    ("denied", "uid", "reason", "way_out"),
    [
        (DOCKER + NO_LANDLOCK, 12345, "namespaces: ", "docker run"),
        (DOCKER + NO_LANDLOCK, 0, "namespaces: ", "docker run"),
        (NO_FILTER, 12345, "seccomp: ", "CONFIG_SECCOMP_FILTER"),
        (NO_FILTER, 0, "seccomp: ", "CONFIG_SECCOMP_FILTER"),
        (["setresuid"], 0, "", "ordinary user"),
    ],
)
def test_below_rung_c_nothing_is_run(
    denied: list[str], uid: int, reason: str, way_out: str
) -> None:
    found = opened(denied, uid)
    assert found["code"] == 3
    assert found["refused"].startswith(f"programs cannot be contained here ({reason}")
    assert way_out in found["refused"]
    assert "\n" not in found["refused"]


def test_what_was_accepted_is_marked() -> None:
    for uid in (0, 12345):
        found = opened(NO_FILTER, uid, accept=True)
        assert (found["rung"], found["isolation"]) == ("D", "none")
        assert found["verdicts"] == [True, False]
        assert found["identity"] != 0, "not even then as root"
    held = opened([], 12345, accept=True)
    assert held["rung"] == "B", "accepting none gives up nothing that is there"


def test_root_without_another_identity_runs_nothing() -> None:
    found = opened(["setresuid"], 0, accept=True)
    assert found["code"] == 3
    assert "identity: " in found["refused"]
    assert "--accept-no-sandbox" not in found["refused"], "which would not help"


@pytest.mark.parametrize("ask", [open_sandbox, findings])
def test_other_systems_are_refused_in_one_line(
    ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(RefusedError, match="this is darwin") as refused:
        ask()
    assert refused.value.exit_code == 3
    assert "\n" not in str(refused.value)


def test_an_attack_that_gets_through_closes_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the layers say of themselves."""

    def run(attack: object, sandbox: Sandbox, **_: object) -> Outcome:
        del attack, sandbox
        return Outcome("succeeded", "for a test")

    monkeypatch.setattr("qwen_eval.sandbox.attacks.bank.run", run)
    with pytest.raises(RefusedError, match=r"got through .* run nothing that a model wrote"):
        open_sandbox(accept_none=True)


def test_each_layer_is_tried_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise ConfineError("cgroup: version 1: read-only file system")

    monkeypatch.setattr("qwen_eval.sandbox.worker.Cgroup.make", lambda *_: refuse(_))
    found = {finding.layer: finding for finding in findings()}
    assert list(found) == list(LAYERS)
    assert found["cgroup"].there is False
    assert found["cgroup"].detail == "cgroup: version 1: read-only file system"
    assert found["seccomp"].there, "one that is missing takes no other with it"


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_a_remedy(layer: Layer) -> None:
    assert len(remedy(layer).splitlines()) == 1


@pytest.mark.parametrize(
    ("missing", "rung"),
    [
        ([], "A"),
        (["cgroup"], "B"),
        (["landlock"], "A"),
        (["identity", "cgroup", "landlock"], "B"),
        (["namespaces"], "C"),
        (["namespaces", "cgroup", "identity"], "C"),
        (["namespaces", "landlock"], "D"),
        (["seccomp"], "D"),
        (["rlimits"], "D"),
    ],
)
def test_the_ladder(missing: list[Layer], rung: str) -> None:
    layers = set(LAYERS) - set(missing)
    assert rung_of(layers) == rung
    line = named(layers)
    assert line == "none" if rung == "D" else line.startswith(f"rung {rung}: ")
    assert line.count("; missing: ") == (rung != "D" and bool({*missing} - {"identity"}))


def test_a_sandbox_that_is_open_judges() -> None:
    with open_sandbox() as sandbox:
        assert judge(sandbox, "def f(): return 1", "assert candidate() == 1").passed
        assert sandbox.rung in ("A", "B", "C")
