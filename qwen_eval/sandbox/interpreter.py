"""A contained Python session, as a code interpreter has it: cell after cell, state kept.

What comes out of it was written by a program that nobody trusts: frames are bounded, pictures are
checked to be PNG, and text is made printable before anybody sees it.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import selectors
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from qwen_eval.sandbox.cells import FIGURES, VALUE_LIMIT
from qwen_eval.sandbox.codec import BadFrameError, complete, frame
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.text import one_line, printable
from qwen_eval.sandbox.worker import START_SECONDS, Worker, memory_file

OUTPUT_LIMIT = 2**20
READ_SIZE = 2**16
GRACE_SECONDS = 2.0
CPU_SECONDS = 3600
_PNG = b"\x89PNG\r\n\x1a\n"
_TRUNCATED = "\n[the rest of the output was cut]"

Outcome = Literal["done", "raised", "timeout", "ended"]


@dataclass(frozen=True)
class Cell:
    """What one cell did. `outcome`: done, raised (`error` is its traceback), timeout, or ended:
    the session's process is gone, with its state; the next cell starts anew."""

    outcome: Outcome
    output: str = ""
    value: str | None = None
    error: str = ""
    figures: tuple[bytes, ...] = ()
    seconds: float = 0.0


class Interpreter:
    """One session (see Sandbox.interpreter). One thread runs its cells; any may close it."""

    def __init__(self, start: Callable[[], Worker], files: Mapping[str, bytes]) -> None:
        self._running, self._ending, self._closed = threading.Lock(), threading.Lock(), False
        # What `close` writes is never read, so a cell that runs hears it whenever it looks.
        self._closing, self._close = os.pipe()
        try:
            self._start, self._worker = start, start()
        except BaseException:
            os.close(self._closing)
            os.close(self._close)
            raise
        self._files = {name: base64.b64encode(data).decode() for name, data in files.items()}
        self._pipes: tuple[int, int, int] | None = None

    def run(self, code: str, seconds: float = 10.0) -> Cell:
        """Run one cell for at most so long; a cell that is stopped keeps the state, one that
        cannot be stopped loses it. After `close`, and during it, the cell is `ended`. Raises
        ConfineError where a session cannot be started."""
        with self._running:
            return Cell("ended", error="closed") if self._closed else self._run(code, seconds)

    def _run(self, code: str, seconds: float) -> Cell:
        if self._pipes is None:
            self._pipes = self._begin()
        begun = time.monotonic()
        output = _Output()
        try:
            body = json.dumps({"code": code, "seconds": seconds}).encode("ascii")
            deadline = begun + seconds + GRACE_SECONDS
            cell = _read_cell(self._exchange(self._pipes, frame(body), output, deadline))
        except BadFrameError as error:
            self._end()
            late = time.monotonic() >= begun + seconds
            cell = Cell("ended", error=f"stopped after {seconds:g} s" if late else str(error))
        except BaseException:
            self._end()  # an answer that nobody waited for is not the next cell's
            raise
        return replace(cell, output=output.text(), seconds=time.monotonic() - begun)

    def close(self) -> None:
        """End the session and all that it started, at once; as often as wanted."""
        with self._ending:
            if self._closed:
                return
            self._closed = True
            os.write(self._close, b"x")
            with self._running:
                self._end()
                self._worker.stop()
                os.close(self._closing)
                os.close(self._close)

    def __enter__(self) -> Interpreter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self) -> tuple[int, int, int]:
        if not self._worker.lives:
            self._worker.stop()
            self._worker = self._start()
        output, out = os.pipe()
        request_end, requests = os.pipe()
        replies, reply_start = os.pipe()
        pipes = (requests, replies, output)
        for fd in pipes:
            os.set_blocking(fd, False)
        fds = [out, memory_file({"files": self._files}), request_end, reply_start]
        try:
            self._worker.fork([self._worker.child("cells", [0, 1, 2, 3], CPU_SECONDS)], fds)
        except BaseException:
            for fd in pipes:
                os.close(fd)
            raise
        finally:
            for fd in fds:
                os.close(fd)
        printed = _Output()
        try:
            self._exchange(pipes, b"", printed, time.monotonic() + START_SECONDS)
        except BadFrameError:
            self._pipes = pipes
            self._end()
            complaint = one_line(printed.text()) or "a session did not start"
            raise ConfineError(complaint) from None
        return pipes

    def _exchange(
        self, pipes: tuple[int, int, int], request: bytes, output: _Output, deadline: float
    ) -> dict[str, Any]:
        """Send a request, gather what is printed, return the answer. Never waits for an end of
        file. Raises BadFrameError where the session ends, breaks the rules, is late or closed."""
        try:
            return _converse(pipes, request, output, deadline, self._closing)
        finally:
            _drain(pipes[2], output.add)  # last words, printed before the answer or the end

    def _end(self) -> None:
        if self._pipes is not None:
            for fd in self._pipes:
                os.close(fd)
            self._pipes = None
            try:
                self._worker.end()
            except (ConfineError, OSError):
                self._worker.stop()  # it is gone, or of no use: the next cell has another


class _Output:
    """What was printed, up to the limit."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._cut = False

    def add(self, part: bytes) -> None:
        room = OUTPUT_LIMIT - len(self._parts)
        self._cut |= len(part) > room
        self._parts += part[:room]

    def text(self) -> str:
        text = printable(self._parts.decode("utf-8", "replace"))
        return text + _TRUNCATED if self._cut else text


def _converse(
    pipes: tuple[int, int, int], request: bytes, output: _Output, deadline: float, closing: int
) -> dict[str, Any]:
    requests, replies, printed = pipes
    reply = bytearray()
    with selectors.PollSelector() as selector:
        selector.register(replies, selectors.EVENT_READ)
        selector.register(printed, selectors.EVENT_READ)
        selector.register(closing, selectors.EVENT_READ)
        if request:
            selector.register(requests, selectors.EVENT_WRITE)
        while (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                if key.fd == requests:
                    try:
                        request = request[os.write(requests, request) :]
                    except BrokenPipeError:
                        raise BadFrameError("the session ended") from None
                    if not request:
                        selector.unregister(requests)
                elif key.fd == closing:
                    raise BadFrameError("closed")
                elif key.fd == printed:
                    if not _drain(printed, output.add, once=True):
                        selector.unregister(printed)
                elif not _drain(replies, reply.extend, once=True):
                    raise BadFrameError("the session ended")
            content = complete(reply)
            if isinstance(content, dict):
                return content
            if content is not None:
                raise BadFrameError("an answer that is none")
    raise BadFrameError("the session did not answer in time")


def _drain(fd: int, add: Callable[[bytes], object], *, once: bool = False) -> bool:
    """Take what is there without waiting for more; False at the end of the file."""
    for _ in range(1 if once else OUTPUT_LIMIT // READ_SIZE):
        try:
            part = os.read(fd, READ_SIZE)
        except BlockingIOError:
            return True
        if not part:
            return False
        add(part)
    return True


def _read_cell(reply: dict[str, Any]) -> Cell:
    """A reply with every part checked, and cut where a session that keeps to the rules would have
    cut it. Raises BadFrameError."""
    outcome, value, error = reply.get("outcome"), reply.get("value"), reply.get("error")
    figures = reply.get("figures")
    if (
        outcome not in ("done", "raised", "timeout")
        or not isinstance(value, str | None)
        or not isinstance(error, str)
        or not isinstance(figures, list)
    ):
        raise BadFrameError("an answer that is none")
    return Cell(
        outcome,
        value=None if value is None else printable(value[:VALUE_LIMIT]),
        error=printable(error[-VALUE_LIMIT:]),
        figures=tuple(_picture(figure) for figure in figures[:FIGURES]),
    )


def _picture(figure: object) -> bytes:
    try:
        data = base64.b64decode(str(figure), validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not data.startswith(_PNG):
        raise BadFrameError("a figure that is no PNG picture")
    return data
