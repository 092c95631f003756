"""The interpreter sessions of samples that are under way: opened with their first cell, run from a
thread of the runner's, closed with their sample or all at once.

Of what a cell puts out, little is kept: the beginning and the end of a long text, and pictures by
their hash. Knows nothing of solvers.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError
from typing import Protocol

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.interpreter import Cell
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.types import ExecuteRequest, Response, Session

KEPT = 16_384  # letters of what a cell put out, and of why it failed
DIGITS = 16  # of a picture's hash
SETUP_SECONDS = 60.0  # libraries that draw are slow to load


class Interpreter(Protocol):
    """An open session: qwen_eval.sandbox.interpreter.Interpreter."""

    def run(self, code: str, seconds: float) -> Cell:
        """Run one cell."""
        ...

    def close(self) -> None:
        """End it; from any thread."""
        ...


Start = Callable[[tuple[str, ...], Mapping[str, bytes]], Interpreter]
"""(packages, files) → an open session: qwen_eval.sandbox.sandbox.Sandbox.interpreter."""


class Sessions:
    """Sessions by the handles of solvers. Thread-safe; two cells of one session never run at a time
    because a sample asks for one thing at a time."""

    def __init__(self, start: Start) -> None:
        self._start = start
        self._open: dict[Session, Interpreter] = {}
        self._ready: set[Session] = set()  # those whose setup was run
        self._lock, self._closed = threading.Lock(), False

    def run(self, request: ExecuteRequest) -> Response:
        """Run a cell; blocks until it ends. What is wrong with the sandbox is the response's
        `error`, what is wrong with the cell its `fault`."""
        try:
            cell = self._run(request)
        except PackageNotFoundError as error:
            return _broken(f"package {error.name} is not installed")
        except (RefusedError, ConfineError, OSError) as error:
            return _broken(str(error))
        shown = cell.output
        if cell.value is not None:
            shown += ("\n" if shown and not shown.endswith("\n") else "") + cell.value
        return Response(
            text=shortened(shown, KEPT),
            passed=cell.outcome == "done",
            fault=shortened(cell.error, KEPT),
            figures=tuple(hashlib.sha256(png).hexdigest()[:DIGITS] for png in cell.figures),
            finish_reason="executed",
        )

    def _run(self, request: ExecuteRequest) -> Cell:
        session = request.session
        interpreter = self._opened(session)
        if session not in self._ready:
            setup = interpreter.run(session.setup, SETUP_SECONDS)
            if setup.outcome != "done":
                raise ConfineError("setup: " + setup.error.strip().rpartition("\n")[2])
            self._ready.add(session)
        cell = interpreter.run(request.code, request.seconds)
        if cell.outcome == "ended":  # the next cell finds a process of its own
            self._ready.discard(session)
        return cell

    def _opened(self, session: Session) -> Interpreter:
        if (found := self._open.get(session)) is not None:
            return found
        started = self._start(session.packages, session.files)
        with self._lock:
            if not self._closed:
                self._open[session] = started
                return started
        started.close()
        raise ConfineError("closed")

    def close(self, session: Session) -> None:
        """End one session, if it was opened."""
        with self._lock:
            found = self._open.pop(session, None)
            self._ready.discard(session)
        if found is not None:
            found.close()

    def close_all(self) -> None:
        """End all sessions, those too whose cells run; none is opened any more."""
        with self._lock:
            self._closed = True
            left = list(self._open.values())
            self._open.clear()
        for interpreter in left:
            interpreter.close()


def shortened(text: str, limit: int) -> str:
    """A text of at most so many letters, and a line that says how many its middle has lost."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[{len(text) - 2 * half} letters left out]\n{text[-half:]}"


def _broken(reason: str) -> Response:
    return Response(finish_reason="error", error=f"sandbox: {reason}")
