"""The harness's side of one zygote: starts it, hands it descriptors, ends what it forked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.sandbox.cgroup import Cgroup, Limits
from qwen_eval.sandbox.codec import write_all
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.layers import Layer, Profile
from qwen_eval.sandbox.layout import Layout
from qwen_eval.sandbox.zygote import MESSAGE_LIMIT, Child, Setup

START_SECONDS = 30.0
_ROOT = str(Path(__file__).absolute().parents[2])
# The program's import path is the standard library's alone.
_START = f"import sys; sys.path.insert(0, {_ROOT!r}); " + (
    f"from qwen_eval.sandbox.zygote import main; sys.path.remove({_ROOT!r}); main()"
)
_THREADS = 64
_ROOM = 448  # for what a user starts meanwhile
_ENDED = "start: the contained process ended"
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp/work",
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONIOENCODING": "utf-8:replace",
    # A library that starts a thread per core would meet the limits for nothing.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class Plan:
    """What all workers of a sandbox have in common."""

    layers: frozenset[Layer]
    layout: Layout
    profile: Profile
    rlimits: Mapping[str, int]
    """of each process, by name: bytes and counts"""
    limits: Limits
    """of all processes of a worker together"""


class Worker:
    """A zygote of ours and its control group. Not thread-safe: one at a time has it.

    Raises ConfineError, naming the layer, where one of the plan's layers cannot be had.
    """

    def __init__(self, plan: Plan, name: str, identities: Sequence[int] | None) -> None:
        self._plan = plan
        self._group: Cgroup | None = None
        self._threads = _THREADS
        if not {"identity", "namespaces"} & plan.layers:
            # Counted per identity: an ordinary user's other programs are counted in.
            self._threads += _tasks_of(os.geteuid()) + _ROOM
        self._folder = ""
        if "namespaces" not in plan.layers:
            # Seen, and not to be written: no namespace gives a program a folder of its own.
            self._folder = tempfile.mkdtemp(prefix=f"qwen-eval-{os.getpid()}-")
            os.chmod(self._folder, 0o755)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        try:
            with theirs:
                self._process = _start(theirs)
            if plan.profile != "score":
                _expendable(self._process.pid)
            if "cgroup" in plan.layers:
                self._group = Cgroup.make(name, plan.limits)
                self._group.add(self._process.pid)
            setup: Setup = {
                "identities": list(identities) if identities else None,
                "layers": sorted(plan.layers),
                "layout": plan.layout,
                "folder": self._folder or "/",
                "profile": plan.profile,
                "limits": dict(plan.rlimits),
            }
            self._control.settimeout(START_SECONDS)
            self._send(setup)
            self._receive()
        except BaseException as error:
            self.stop()
            if isinstance(error, OSError):
                raise ConfineError(f"start: {error.strerror or error}") from None
            raise

    @property
    def lives(self) -> bool:
        """Whether its zygote is still there."""
        return self._process is not None and self._process.poll() is None

    def child(self, role: str, fds: Sequence[int], seconds: int, *, folder: bool = True) -> Child:
        """A process for `fork`: its role, its descriptors by their place in what is handed over
        (the first is its output), its processor time, and whether it may have a folder."""
        limits = {"RLIMIT_CPU": seconds, "RLIMIT_NPROC": self._threads}
        return Child(role=role, folder=folder, fds=list(fds), limits=limits)

    def fork(self, children: Sequence[Child], fds: Sequence[int]) -> None:
        """Start the children, each with those of the descriptors that it names. Raises
        ConfineError, OSError."""
        self._send({"fork": children}, fds)

    def end(self) -> list[tuple[int, float]]:
        """Kill the children with all they started: the exit code and processor seconds of each.
        Raises ConfineError where one could not be started or the zygote is gone, OSError."""
        self._send({"end": True})
        return [(int(code), seconds) for code, seconds in self._receive()["ended"]]

    def stop(self) -> None:
        """End the zygote, all that it started, and its control group. As often as wanted."""
        self._control.close()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(2.0)  # it hears that we hung up, and ends its children
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGKILL)
                self._process.wait()
        if self._group is not None:
            self._group.remove()
        if self._folder:
            # Not always empty: a program that nothing holds may have written there.
            shutil.rmtree(self._folder, ignore_errors=True)

    def _send(self, message: Any, fds: Sequence[int] = ()) -> None:
        try:
            socket.send_fds(self._control, [json.dumps(message).encode()], fds)
        except ConnectionError:
            raise ConfineError(_ENDED) from None

    def _receive(self) -> dict[str, Any]:
        try:
            message = self._control.recv(MESSAGE_LIMIT)
        except ConnectionError:
            message = b""
        answer: dict[str, Any] = json.loads(message) if message else {"broken": _ENDED}
        if "broken" in answer:
            raise ConfineError(answer["broken"])
        return answer


def _tasks_of(user: int) -> int:
    """The processes and threads of a user, as far as they can be seen from here."""
    found = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if folder.stat().st_uid == user:
                found += len(os.listdir(folder / "task"))
    return found


def memory_file(content: Mapping[str, Any]) -> int:
    """A file without a name that one child will read: what it holds never passes the zygote."""
    fd = os.memfd_create("job")
    try:
        write_all(fd, json.dumps(content).encode("ascii"))
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _expendable(pid: int) -> None:
    """Have the kernel end that process, and what it will fork, before all others where memory runs
    out: without a control group a session's processes together may ask for more than there is."""
    with suppress(OSError):
        Path(f"/proc/{pid}/oom_score_adj").write_text("1000")


def _start(control: socket.socket) -> subprocess.Popen[bytes]:
    fd = control.fileno()
    # Descriptor 3 is where the zygote looks; whatever else we hold stays with us.
    line = f"import os; os.dup2({fd}, 3) if {fd} != 3 else None; os.closerange(4, 1 << 20); "
    # Python makes its streams for what they lead to at the start: for children it is a pipe.
    unread, pipe = os.pipe()
    try:
        return subprocess.Popen(
            [sys.executable, "-s", "-S", "-P", "-c", line + _START],
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            pass_fds=[fd],
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(unread)
        os.close(pipe)
