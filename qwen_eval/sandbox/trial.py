"""One program before its judge: the pipes between the two, the clock, and the verdict."""

from __future__ import annotations

import json
import math
import os
import selectors
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from qwen_eval.sandbox.codec import ENDED
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.text import one_line
from qwen_eval.sandbox.toolchains import COMPILE_SECONDS, job
from qwen_eval.sandbox.worker import START_SECONDS, Worker, memory_file
from qwen_eval.types import JudgeRequest, Response

WALL_FACTOR = 5
OUTPUT_LIMIT = 2**20
VERDICT_LIMIT = 2**16
# What is said of a process that ended too early, the candidate's or the judge's.
_NO_VERDICT = "the tests ended without a verdict"
_ENDINGS = (ENDED, _NO_VERDICT)
WEAKER = "judged in the program's own process"


@dataclass
class Trial:
    """Runs one request on a worker that nobody else uses meanwhile."""

    request: JudgeRequest
    worker: Worker
    closing: int
    """a descriptor that can be read from as soon as everything is to end"""
    _open: set[int] = field(default_factory=set)
    _printed: int = 0
    _complaint: bytes = b""

    def run(self) -> Response:
        """The verdict, or an error of the sandbox. Raises ConfineError, OSError."""
        try:
            verdicts, output = self._begin()
            passed, text = self._await(verdicts, output)
            ended = self.worker.end()
        finally:
            for fd in self._open:
                os.close(fd)
        if passed is None:
            return broken(text)
        limit = _cpu_seconds(self.request.timeout)
        # The kernel ends a program by its own count, and on a busy machine reports a lower one.
        killed = any(code == -9 and seconds > limit / 2 for code, seconds in ended)
        if text in _ENDINGS and killed:
            text = f"timeout: {limit} s of processor time"
        return self._judged(passed, text)

    def _begin(self) -> tuple[int, int]:
        """Start the processes: descriptors to read the verdict and what is printed from."""
        request, worker = self.request, self.worker
        verdicts, verdict = self._pipe()
        output, out = self._pipe()
        seconds = _cpu_seconds(request.timeout)
        program = {"program": request.candidate, "entry_point": request.entry_point}
        tests = {
            "tests": request.tests,
            "preamble": request.preamble,
            "entry_point": request.entry_point,
        }
        if request.language != "Python":
            fds = [out, self._file(job(request, seconds, WALL_FACTOR)), verdict]
            children = [worker.child("build", [0, 1, 2], COMPILE_SECONDS + seconds)]
        elif request.alone:
            fds = [out, self._file(program | tests), verdict]
            children = [worker.child("alone", [0, 1, 2], seconds)]
        else:
            call_end, call_start = self._pipe()
            reply_end, reply_start = self._pipe()
            fds = [out, self._file(program), call_end, reply_start]
            fds += [self._file(tests), call_start, reply_end, verdict]
            children = [
                worker.child("candidate", [0, 1, 2, 3], seconds),
                worker.child("judge", [0, 4, 5, 6, 7], seconds, folder=False),
            ]
        worker.fork(children, fds)
        # Ours are closed: when the children end, the pipes do.
        for fd in fds:
            os.close(fd)
        self._open -= set(fds)
        return verdicts, output

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe()
        self._open.update(ends)
        return ends

    def _file(self, content: Mapping[str, Any]) -> int:
        fd = memory_file(content)
        self._open.add(fd)
        return fd

    def _await(self, verdicts: int, output: int) -> tuple[bool | None, str]:
        """Read the judge's lines until it decides, time is up, or too much was printed."""
        buffer, started = b"", False
        deadline = time.monotonic() + START_SECONDS
        with selectors.PollSelector() as selector:
            for fd in (verdicts, output, self.closing):
                selector.register(fd, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if key.fd == self.closing:
                        return None, "closed while the program ran"
                    part = os.read(key.fd, 65536)
                    if key.fd == output:
                        self._printed += len(part)
                        self._complaint = (self._complaint + part)[:300]
                        if not part:
                            selector.unregister(output)
                        continue
                    buffer += part
                    if not part or len(buffer) > VERDICT_LIMIT:
                        return self._no_verdict(started, output)
                    while b"\n" in buffer:
                        line, _, buffer = buffer.partition(b"\n")
                        said, text = _read_verdict(line)
                        if said != "started":
                            return said == "passed", text
                        started = True
                        deadline = time.monotonic() + self._wall
                if self._printed > OUTPUT_LIMIT:
                    return False, f"printed more than {OUTPUT_LIMIT >> 20} MiB"
        if not started:
            return None, f"a contained process did not start within {START_SECONDS:.0f} s"
        return False, f"timeout: {self._wall:g} s on the wall"

    @property
    def _wall(self) -> float:
        compiling = 0 if self.request.language == "Python" else COMPILE_SECONDS
        return WALL_FACTOR * (self.request.timeout + compiling)

    def _no_verdict(self, started: bool, output: int) -> tuple[bool | None, str]:
        if started:
            return False, _NO_VERDICT
        # Only our own lines have run so far, so what was printed is their complaint.
        os.set_blocking(output, False)
        with suppress(BlockingIOError):
            self._complaint += os.read(output, 300)
        complaint = one_line(self._complaint.decode("utf-8", "replace").partition("\n")[0])
        raise ConfineError(complaint or "a contained process did not start")

    def _judged(self, passed: bool, text: str) -> Response:
        text = one_line(text)
        if self.request.alone or self.request.language != "Python":
            text = f"{text} ({WEAKER})"
        return Response(text=text, passed=passed, finish_reason="judged")


def _read_verdict(line: bytes) -> tuple[str, str]:
    """What a judge said; a line that says nothing is a failure."""
    try:
        said, text = json.loads(line)
    except (ValueError, TypeError, RecursionError):
        said = text = None
    if not isinstance(said, str) or not isinstance(text, str):
        return "failed", "a verdict that is none"
    return said, text


def _cpu_seconds(timeout: float) -> int:
    return max(math.ceil(timeout), 1)


def broken(reason: str) -> Response:
    """The answer where the sandbox itself failed."""
    return Response(error=f"sandbox: {reason}", finish_reason="error")
