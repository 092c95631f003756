"""The harness's side: starts a candidate and its judge, watches the clock, takes the verdict.

Nothing that a candidate prints, returns or exits with is a verdict (see inside.py). A failure of
the sandbox itself is an error of the sample, never a wrong answer of the model.
"""

from __future__ import annotations

import json
import math
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.confine import WORK_FOLDER, Layout, layout
from qwen_eval.types import JudgeRequest, Response

WALL_FACTOR = 5
START_SECONDS = 30.0
OUTPUT_LIMIT = 2**20
_ROOT = str(Path(__file__).absolute().parents[2])
_START = f"import sys; sys.path.insert(0, {_ROOT!r}); " + (
    f"from qwen_eval.sandbox.inside import main; main({_ROOT!r})"
)
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": WORK_FOLDER,
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}
# Identities that no distribution gives out (systemd's UIDS-GIDS table calls them unused).
_FIRST_UID, _UIDS = 60_706, 478

_LAYERS = (
    "rlimits + {user}pid, ipc, uts, mount and network namespaces + private root (standard library "
    "and shared libraries, read-only; no packages; nothing else of this machine) + split judge"
)
_MISSING = "landlock, seccomp, cgroup"
_TRIAL = JudgeRequest(
    candidate="import collections, math, re\ndef twice(x):\n    return 2 * x\n",
    tests="def check(candidate):\n    assert candidate(21) == 42\n",
    entry_point="twice",
)


class Sandbox:
    """Runs programs, `workers` at a time. Thread-safe; use as a context manager or close it.

    A program sees Python's standard library, the system's shared libraries and an empty folder of
    its own, and no other file.

    Limits of one program: `JudgeRequest.timeout` seconds of processor time and WALL_FACTOR times
    that on the wall (so that a busy machine fails nobody), 1 GiB of address space, 16 MiB of
    files, 1 MiB of output, 64 processes.
    """

    def __init__(self, workers: int) -> None:
        self._identities: queue.Queue[tuple[int | None, int | None]] = queue.Queue()
        self._workers = workers
        self._layout = layout()
        # What `close` writes is never read, so every call that waits sees it, now and later.
        self._closing, self._close = os.pipe()
        self._closed = False
        self._lock = threading.Lock()
        root = os.getuid() == 0
        first = _FIRST_UID + 2 * workers * (os.getpid() % (_UIDS // (2 * workers)))
        for worker in range(workers):
            pair = (first + 2 * worker, first + 2 * worker + 1)
            self._identities.put(pair if root else (None, None))
        self.isolation = (
            f"own uid + {_LAYERS.format(user='')}; missing: {_MISSING}"
            if root
            else f"{_LAYERS.format(user='user, ')}; missing: own uid, process limit, {_MISSING}"
        )

    @classmethod
    def open(cls, workers: int = 2) -> Sandbox:
        """Put up every layer once and run a trial program, before a model says its first word.

        Raises RefusedError (exit 3) where a layer cannot be had: then no program is run at all.
        """
        sandbox = cls(workers)
        trial = sandbox.judge(_TRIAL)
        if not trial.passed:
            sandbox.close()
            raise RefusedError(
                f"programs cannot be contained here ({trial.error or trial.text}): allow user "
                "namespaces or run as root with CAP_SYS_ADMIN on Linux 5.12 or later (docker run "
                "--privileged), or leave out the tasks that run programs"
            )
        return sandbox

    def judge(self, request: JudgeRequest) -> Response:
        """Run one program against its tests; blocks for as long as that takes, or until `close`."""
        identity = self._identities.get()
        try:
            if self._closed:
                return _broken("closed")
            trial = _Trial(request, self._layout, self._closing, *identity)
            try:
                return trial.run()
            finally:
                trial.end()
        except OSError as error:
            return _broken(f"{type(error).__name__}: {error}")
        finally:
            self._identities.put(identity)

    def close(self) -> None:
        """End what runs, at once; those calls of `judge`, and all later ones, answer an error.

        Returns when no program is left. From any thread, as often as wanted.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._close, b"x")
            # With all identities in hand, nobody runs anything.
            identities = [self._identities.get() for _ in range(self._workers)]
            os.close(self._closing)
            os.close(self._close)
            for identity in identities:
                self._identities.put(identity)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Confined:
    """One started process and the pipe of its output."""

    process: subprocess.Popen[bytes]
    output: int
    cpu_seconds: float = 0.0
    status: int | None = None

    def end(self) -> None:
        """Kill it with everything it started; afterwards its processor time is known."""
        if self.status is not None:
            return
        deadline = time.monotonic() + 2.0
        while self.status is None:
            # The supervisor turns SIGTERM into the end of its namespace and reports the time used;
            # should it fail to, its own death ends the namespace as well.
            late = time.monotonic() > deadline
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, signal.SIGKILL if late else signal.SIGTERM)
            self._wait(0.5)

    def _wait(self, seconds: float) -> None:
        limit = time.monotonic() + seconds
        pause = 0.0005
        while time.monotonic() < limit:
            pid, status, usage = os.wait4(self.process.pid, os.WNOHANG)
            if pid:
                self.status = self.process.returncode = os.waitstatus_to_exitcode(status)
                self.cpu_seconds = usage.ru_utime + usage.ru_stime
                return
            time.sleep(pause)
            pause = min(2 * pause, 0.02)


@dataclass
class _Trial:
    """One program, one judge, the pipes between them, and the clock."""

    request: JudgeRequest
    layout: Layout
    closing: int
    candidate_uid: int | None
    judge_uid: int | None
    _started: list[_Confined] = field(default_factory=list)
    _printed: int = 0
    _complaint: bytes = b""

    def run(self) -> Response:
        request = self.request
        call_end, call_start = os.pipe()
        reply_end, reply_start = os.pipe()
        verdict_end, verdict_start = os.pipe()
        inner = [call_end, call_start, reply_end, reply_start, verdict_start]
        try:
            program = {"program": request.candidate}
            self._start("candidate", self.candidate_uid, [call_end, reply_start], program)
            tests = {"tests": request.tests, "preamble": request.preamble}
            pipes = [call_start, reply_end, verdict_start]
            self._start("judge", self.judge_uid, pipes, tests)
        except BaseException:
            os.close(verdict_end)
            raise
        finally:
            for fd in inner:
                os.close(fd)
        try:
            return self._await(verdict_end)
        finally:
            os.close(verdict_end)

    def end(self) -> None:
        for confined in self._started:
            confined.end()
            os.close(confined.output)

    def _start(self, role: str, uid: int | None, pipes: list[int], content: dict[str, str]) -> None:
        job = {
            "role": role,
            "entry_point": self.request.entry_point,
            "uid": uid,
            "parent": os.getpid(),
            "pipes": pipes,
            "layout": self.layout,
            "limits": _limits(self.request.timeout, own_uid=uid is not None),
            **content,
        }
        output, out = os.pipe()
        os.set_blocking(output, False)
        try:
            process = subprocess.Popen(
                [sys.executable, "-s", "-S", "-P", "-c", _START],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                pass_fds=pipes,
                env=_ENVIRONMENT,
                cwd="/",
                start_new_session=True,
            )
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(out)
        self._started.append(_Confined(process, output))
        assert process.stdin is not None
        with process.stdin, suppress(BrokenPipeError):
            process.stdin.write(json.dumps(job).encode("ascii"))

    def _await(self, verdicts: int) -> Response:
        """Read the judge's lines until it decides, time is up, or too much was printed."""
        os.set_blocking(verdicts, False)
        buffer, started = b"", False
        deadline = time.monotonic() + START_SECONDS
        with selectors.DefaultSelector() as selector:
            selector.register(verdicts, selectors.EVENT_READ)
            selector.register(self.closing, selectors.EVENT_READ)
            for confined in self._started:
                selector.register(confined.output, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                for key, _ in selector.select(left):
                    if key.fd == self.closing:
                        return _broken("closed while the program ran")
                    part = os.read(key.fd, 65536)
                    if key.fd != verdicts:
                        self._note_output(part)
                        if not part:
                            selector.unregister(key.fd)
                        continue
                    if not part:
                        return self._no_verdict(started)
                    buffer += part
                    while b"\n" in buffer:
                        line, _, buffer = buffer.partition(b"\n")
                        verdict, text = json.loads(line)
                        if verdict != "started":
                            return self._decided(verdict == "passed", text)
                        started = True
                        deadline = time.monotonic() + WALL_FACTOR * self.request.timeout
                if self._printed > OUTPUT_LIMIT:
                    return _judged(False, f"printed more than {OUTPUT_LIMIT >> 20} MiB")
        if not started:
            return _broken(f"a contained process did not start within {START_SECONDS:.0f} s")
        return _judged(False, f"timeout: {WALL_FACTOR * self.request.timeout:g} s on the wall")

    def _note_output(self, part: bytes) -> None:
        self._printed += len(part)
        self._complaint = (self._complaint + part)[:300]

    def _no_verdict(self, started: bool) -> Response:
        if not started:
            # Only our own lines have run so far, so what was printed is their complaint.
            complaint = self._complaint.decode("utf-8", "replace").strip()
            return _broken(complaint.partition("\n")[0] or "a contained process did not start")
        return self._decided(False, "the tests ended without a verdict")

    def _decided(self, passed: bool, text: str) -> Response:
        if not passed:
            self.end_all()
            limit = _cpu_seconds(self.request.timeout)
            if any(confined.cpu_seconds > 0.98 * limit for confined in self._started):
                text = f"timeout: {limit} s of processor time"
        return _judged(passed, text)

    def end_all(self) -> None:
        for confined in self._started:
            confined.end()


def _cpu_seconds(timeout: float) -> int:
    return max(math.ceil(timeout), 1)


def _limits(timeout: float, own_uid: bool) -> dict[str, Any]:
    limits = {
        "RLIMIT_AS": 2**30,
        "RLIMIT_CPU": _cpu_seconds(timeout),
        "RLIMIT_FSIZE": 2**24,
        "RLIMIT_NOFILE": 64,
        "RLIMIT_STACK": 2**26,
        "RLIMIT_CORE": 0,
    }
    if own_uid:  # counted per identity: an ordinary user's other programs would be counted in
        limits["RLIMIT_NPROC"] = 64
    return limits


def _judged(passed: bool, text: str) -> Response:
    return Response(text=text, passed=passed, finish_reason="judged")


def _broken(reason: str) -> Response:
    return Response(error=f"sandbox: {reason}", finish_reason="error")
