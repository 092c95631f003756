"""Inside: has a program of another language compiled, and runs it with its tests.

This is process 1 of a namespace of its own: no process in there can end, trace or limit it, and
none that it starts has the pipe on which a verdict travels. What they print is a program's word:
it ends in a secret line that only the last statement of the tests prints, so a program that stops
before has not passed, whatever its status. One that looks for that line in itself can forge it;
results of other languages are marked.
"""

from __future__ import annotations

import os
import re
import resource
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from qwen_eval.sandbox.codec import read_job, say

OUTPUT_LIMIT = 2**20
_KEPT = 2**12
_TICK = 10  # milliseconds between two looks at what has ended
_TELLING = re.compile(r"^\w*Error\b|^Exception\b|error:|Assertion")


def build(job: int, verdicts: int) -> None:
    """`job`: a file with {files, steps, token}: texts by name, then what to start one after the
    other, each {argv, environment, seconds, wall}, the last of which is the program with its tests.
    """
    content = read_job(job)
    say(verdicts, "started", "")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 gets no signal that it does not handle
    for name, text in content["files"].items():
        with open(name, "x", encoding="utf-8", errors="replace") as file:
            file.write(text)
    *before, last = content["steps"]
    for step in before:
        if reason := _run(step).failure():
            say(verdicts, "failed", f"does not compile: {reason}")
            return
    end = _run(last)
    reason = end.failure()
    if not reason and end.last_line() != content["token"]:
        reason = "ended before its tests did"
    say(verdicts, "failed" if reason else "passed", reason or "passed")


@dataclass
class _End:
    """How a step ended. `code`: as subprocess has it; `stopped`: why it was ended, if it was."""

    code: int = 0
    stopped: str = ""
    printed: int = 0
    output: bytes = b""
    """the last of it"""
    errors: bytes = b""
    """the first of them"""

    def failure(self) -> str:
        """Why the step did not do what it should; empty where it did."""
        if self.stopped or self.code == 0:
            return self.stopped
        lines = [line for line in self.errors.decode("utf-8", "replace").splitlines() if line]
        found = next(filter(_TELLING.search, lines), lines[0] if lines else "")
        ended = f"signal {-self.code}" if self.code < 0 else f"status {self.code}"
        return found or f"ended with {ended}"

    def last_line(self) -> str:
        return self.output.decode("utf-8", "replace").rstrip("\n").rpartition("\n")[2]

    def add(self, part: bytes, *, error: bool) -> None:
        self.printed += len(part)
        if error:
            self.errors = (self.errors + part)[:_KEPT]
        else:
            self.output = (self.output + part)[-_KEPT:]


def _run(step: dict[str, Any]) -> _End:
    """Start one program, wait for it, and end with it all that it started."""
    (output, out), (errors, err) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        _become(step, out, err)
    os.close(out)
    os.close(err)
    end = _End()
    try:
        _watch(child, {output: False, errors: True}, end, step)
    finally:
        os.close(output)
        os.close(errors)
    return end


def _become(step: dict[str, Any], out: int, err: int) -> NoReturn:
    try:
        os.setsid()
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, 1 << 10)
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python's own way is inherited
        seconds = step["seconds"]
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        os.execve(step["argv"][0], step["argv"], step["environment"])
    except OSError as error:
        os.write(2, f"{step['argv'][0]}: {error.strerror}\n".encode())
    finally:
        os._exit(127)


def _watch(child: int, pipes: dict[int, bool], end: _End, step: dict[str, Any]) -> None:
    """Read what is printed (descriptor -> whether it is of errors) until the child has ended or is
    to be ended. Waits for no end of a pipe, which what the child started may hold open."""
    deadline = time.monotonic() + step["wall"]
    poll = select.poll()
    for fd in pipes:
        os.set_blocking(fd, False)
        poll.register(fd, select.POLLIN)
    ended = False
    while not ended and not end.stopped:
        for fd, _ in poll.poll(_TICK):
            if not _read(fd, end, error=pipes[fd]):
                poll.unregister(fd)
        if end.printed > OUTPUT_LIMIT:
            end.stopped = f"printed more than {OUTPUT_LIMIT >> 20} MiB"
        elif time.monotonic() > deadline:
            end.stopped = f"timeout: {step['wall']:g} s on the wall"
        ended = _reap(child, end, step)
    for fd, error in pipes.items():
        while end.printed <= OUTPUT_LIMIT and _read(fd, end, error=error):
            pass
    if end.printed > OUTPUT_LIMIT:
        end.stopped = f"printed more than {OUTPUT_LIMIT >> 20} MiB"
    _end_all()


def _read(fd: int, end: _End, *, error: bool) -> bool:
    """Take one part of what is there; False where nothing is, or the pipe is at its end."""
    try:
        part = os.read(fd, 2**16)
    except BlockingIOError:
        return False
    end.add(part, error=error)
    return bool(part)


def _reap(child: int, end: _End, step: dict[str, Any]) -> bool:
    """Bury what has ended, whoever started it; whether the child is among them."""
    while True:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
        if pid == child:
            end.code = os.waitstatus_to_exitcode(status)
            # The kernel ends a program by its own count, and on a busy machine reports less.
            used = usage.ru_utime + usage.ru_stime
            if end.code in (-signal.SIGXCPU, -signal.SIGKILL) and used > step["seconds"] / 2:
                end.stopped = f"timeout: {step['seconds']} s of processor time"
            return True
        if not pid:
            return False


def _end_all() -> None:
    """End every other process of the namespace: nothing is left to disturb what comes next."""
    with suppress(ProcessLookupError):
        os.kill(-1, signal.SIGKILL)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return
