"""Helpers: judge a program in the sandbox, or run it without one, as a control."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.types import JudgeRequest, Response


def judge(sandbox: Sandbox, program: str, tests: str, timeout: float = 3.0) -> Response:
    """Judge a program whose function is `f`; `tests` is the body of check(candidate)."""
    check = "def check(candidate):\n" + textwrap.indent(textwrap.dedent(tests), "    ")
    return sandbox.judge(JudgeRequest(textwrap.dedent(program), check, "f", timeout=timeout))


def answer(sandbox: Sandbox, program: str, timeout: float = 3.0) -> str:
    """What `f()` returns inside, told through the text of a failing assertion."""
    response = judge(sandbox, program, "raise AssertionError(repr(candidate()))", timeout)
    assert response.error is None, response
    return response.text.removeprefix("AssertionError: ")


def answer_outside(program: str, folder: Path) -> str:
    """What `f()` returns in a plain process: the control that shows an attack would work."""
    source = textwrap.dedent(program) + "\nprint(repr(f()))\n"
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, cwd=folder, timeout=60
    )
    return (done.stdout + done.stderr).strip()


def naming(name: str) -> str:
    """A program's line after which `named` finds its process."""
    return f"import ctypes; ctypes.CDLL(None).prctl(15, {name.encode()!r}, 0, 0, 0)"


def named(name: str) -> list[Path]:
    """The processes of this machine, contained or not, that call themselves `name`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == name:
                found.append(path)
        except OSError:
            continue
    return found


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Return as soon as `condition` holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)
