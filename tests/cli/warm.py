"""Processes of the command line whose imports are done.

Python's start and its imports take longer than most commands that the tests run. A server does
them once, and forks for each command: a process of its own, with its own folder, streams and exit
status. Two servers take turns, so that a command and the same once more see different hashes.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
HEAVY = (
    "jinja2",
    "pydantic.type_adapter",
    "qwen_eval.backends.native",
    "qwen_eval.run_writer",
    "qwen_eval.runner",
    "qwen_eval.suites",
    "qwen_eval.tasks.solvers",
)
STREAMS = ("stdin", "stdout", "stderr")


class Server:
    """Runs commands one after the other, all with the environment that it was started in."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.warm"],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(
        self, arguments: list[str], cwd: Path | None, stdin: str, kill_after: float | None
    ) -> subprocess.CompletedProcess[str]:
        """`qwen-eval` with these arguments, to its end or until it is killed."""
        assert self.process.stdin
        assert self.process.stdout
        with TemporaryDirectory() as folder:
            paths = {name: Path(folder) / name for name in STREAMS}
            paths["stdin"].write_text(stdin)
            asked = {
                "arguments": arguments, "cwd": str(cwd or Path.cwd()), "kill_after": kill_after
            }  # fmt: skip
            try:
                print(json.dumps(asked | {n: str(p) for n, p in paths.items()}),
                      file=self.process.stdin, flush=True)  # fmt: skip
                code = int(self.process.stdout.readline())
            except BaseException:
                self.end()  # nobody waits for its answer any more
                raise
            said = (paths[name].read_text() for name in STREAMS[1:])
            return subprocess.CompletedProcess(arguments, code, *said)

    def end(self) -> None:
        """For good."""
        self.process.kill()
        self.process.wait()


_SERVERS: list[Server | None] = [None, None]
_TURNS = cycle(range(len(_SERVERS)))


def run(
    arguments: list[str],
    cwd: Path | None,
    stdin: str,
    environment: dict[str, str],
    kill_after: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """`qwen-eval` with these arguments in this environment, to its end; killed after so many
    seconds, if they are given."""
    turn = next(_TURNS)
    server = _SERVERS[turn]
    if server is None or server.environment != environment or server.process.poll() is not None:
        if server:
            server.end()
        server = _SERVERS[turn] = Server(environment)
    return server.run(arguments, cwd, stdin, kill_after)


def become(asked: dict[str, object]) -> None:
    """What a process is when Python has just started it for a command."""
    os.chdir(str(asked["cwd"]))
    sys.argv = ["qwen-eval", *asked["arguments"]]  # type: ignore[misc]
    for number, (name, mode) in enumerate(zip(STREAMS, "rww", strict=True)):
        with open(str(asked[name]), mode) as file:
            os.dup2(file.fileno(), number)
    sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")


def main() -> None:
    """The server: a line for a command, its exit status as the answer."""
    for name in HEAVY:
        importlib.import_module(name)
    from qwen_eval.cli.main import main as command

    gc.freeze()  # what is not looked at need not be copied when a child ends
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            become(asked)
            return command()
        if asked["kill_after"] is not None:
            kill(child, asked["kill_after"])
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    return None


def kill(child: int, seconds: float) -> None:
    """After so many seconds, unless it ends before; it is left to be waited for."""
    end = time.monotonic() + seconds
    ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < end and os.waitid(os.P_PID, child, ended) is None:
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    main()
