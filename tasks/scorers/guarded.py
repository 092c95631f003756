"""Calls of a library that may not come back, in a process of their own.

A computer algebra system takes 9^{9^{9^9}} at its word, and a model may write it. The process that
works it out has a budget of processor time, not of time by the clock, so that a busy machine
decides as an idle one does, and a bound on its memory. It is started when first needed, answers
one call after the other, and is started anew where it died.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from functools import cache
from typing import Any

from qwen_eval.errors import UserError

_START = "from qwen_eval.tasks.scorers.guarded_worker import main; main()"


class UndecidedError(Exception):
    """The call had no outcome: it took too long, or the library failed. The text says which."""


class Guard:
    """A process that answers the functions of guarded_worker, from any thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._owner = 0
        self._ready = set[str]()
        self._lock = threading.Lock()

    def call(self, function: str, *arguments: Any) -> Any:
        """What the function says. Raises UndecidedError where it says nothing, and UserError where
        its libraries are not there."""
        with self._lock:
            process = self._running()
            if function not in self._ready:
                outcome, said = self._asked(process, [function]) or ("", "it ended at once")
                if outcome != "value":
                    raise UserError(f"{function}: a scorer's libraries do not work: {said}")
                self._ready.add(function)
            answer = self._asked(process, [function, *arguments])
        if answer is None:
            raise UndecidedError("it took too much time or memory")
        if answer[0] != "value":
            raise UndecidedError(answer[1])
        return answer[1]

    def close(self) -> None:
        """End the process, if there is one."""
        with self._lock:
            self._stop()

    def _asked(self, process: subprocess.Popen[str], call: list[Any]) -> tuple[str, Any] | None:
        """The process's outcome, None if it died of the call."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(call) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = ""
        if not answer:
            self._stop()
            return None
        outcome, value = json.loads(answer)
        return outcome, value

    def _running(self) -> subprocess.Popen[str]:
        # A fork of this process must not talk over the same pipes.
        if self._process is None or self._owner != os.getpid():
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _START],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="ascii",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )
            self._owner = os.getpid()
            self._ready.clear()
        return self._process

    def _stop(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.communicate()
        self._process = None


@cache
def guard() -> Guard:
    """The one that all scorers of this process share."""
    shared = Guard()
    atexit.register(shared.close)
    return shared
