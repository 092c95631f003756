"""The command line as users and scripts know it: a change here is a change of contract."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer

from qwen_eval.cli.main import app
from tests.cli.command import qwen_eval

# A line for every command: its name and its options.
SURFACE = {
    name: set(flags.split())
    for name, _, flags in (
        line.partition(":")
        for line in (Path(__file__).parent / "command_line.txt").read_text().splitlines()
    )
}


def found() -> dict[str, set[str]]:
    """Every command with its options and arguments."""
    surface: dict[str, set[str]] = {}

    def walk(command, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None or getattr(command, "invoke_without_command", False):
            names = {
                text
                for parameter in command.params
                for text in (*parameter.opts, *parameter.secondary_opts)
            }
            surface[name] = names - {"--help", "-h", "--version"}
        for sub, child in (inner or {}).items():
            walk(child, f"{name} {sub}".strip())

    walk(typer.main.get_command(app), "")
    return surface


def test_commands_and_options_are_these() -> None:
    assert found() == SURFACE


@pytest.mark.parametrize(
    "heavy", ["torch", "transformers", "numpy", "pandas", "lm_eval", "qwen_eval.fileio"]
)
def test_help_loads_nothing_heavy(heavy: str) -> None:
    code = (
        "import sys; sys.argv = ['qwen-eval', '--help']\n"
        "from qwen_eval.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, f"--help imports {heavy}"


def test_help_of_every_command_answers() -> None:
    for name in SURFACE:
        done = qwen_eval(*name.split(), "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


def test_help_needs_little_work() -> None:
    # Processor time, not wall time, and the least of three: a busy machine must not fail this.
    assert min(_work_of_help() for _ in range(3)) < 1.0


def _work_of_help() -> float:
    before = _children()
    subprocess.run([sys.executable, "-m", "qwen_eval", "--help"], capture_output=True, check=True)
    return _children() - before


def _children() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
