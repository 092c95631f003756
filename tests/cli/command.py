"""Runs the command line as a user would: another process, its own folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer

from qwen_eval.cli.main import app
from tests.cli import warm

PROGRAM = [sys.executable, "-m", "qwen_eval"]


def environment(**extra: str) -> dict[str, str]:
    """This environment without a mirror and without a network."""
    kept_back = ("QWEN_EVAL_DATA", "PYTEST_CURRENT_TEST")
    inherited = {name: value for name, value in os.environ.items() if name not in kept_back}
    return inherited | {"HF_HUB_OFFLINE": "1", "COLUMNS": "80"} | extra


def qwen_eval(
    *arguments: object, cwd: Path | None = None, stdin: str = "", **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run `qwen-eval` to its end; with an environment of its own, from the start of Python on."""
    words = [str(argument) for argument in arguments]
    if not extra:
        return warm.run(words, cwd, stdin, environment())
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=cwd,
        input=stdin,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=560,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line of an error; notices before it are allowed, a traceback is not."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.rstrip("\n").splitlines()[-1]
    assert last.startswith("qwen-eval: "), done.stderr
    return last.removeprefix("qwen-eval: ")


def understand(words: Sequence[str]) -> None:
    """Read a command line as a call would, and run nothing. Raises for a command or an option that
    does not exist, and for one that is missing."""
    command: Any = typer.main.get_command(app)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    # What is left of a group is its own options, if it runs by itself.
    if hasattr(command, "commands") and not (words and words[0].startswith("-")):
        raise LookupError(f"no such command: {' '.join(words)}")
    command.make_context("qwen-eval", list(words))
