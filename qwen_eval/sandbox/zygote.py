"""The contained process that forks one child for each program, with the interpreter warm.

It takes orders from the harness over a socket and never sees a program, a test or a verdict:
those lie in files and pipes whose descriptors come with the order and go to the child. So nothing
of one sample can be found in the memory of the next.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
from importlib import import_module
from typing import Any, NoReturn, TypedDict

from qwen_eval.sandbox import landlock, namespaces, privileges, seccomp
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.layers import Profile
from qwen_eval.sandbox.layout import Layout, readable
from qwen_eval.sandbox.roles import ROLES

MESSAGE_LIMIT = 2**16
# What programs import most and what costs the fork little. Not `random` and `threading`: what they
# do in each forked child takes longer than loading them where they are wanted.
WARM = (
    *("bisect", "cmath", "collections", "copy", "enum", "functools", "heapq", "itertools"),
    *("json", "math", "operator", "re", "string", "sys", "typing"),
)


# The descriptor of Landlock's rules for those without a folder, above all that a child is given.
_RULES = 32


class Setup(TypedDict):
    """How a zygote is to be: the first order it gets."""

    identities: list[int] | None
    """host identities of the zygote and of its two children, None for the caller's own"""
    layers: list[str]
    layout: Layout
    folder: str
    """where children start that have none of their own: nothing of theirs, and not writable"""
    profile: Profile
    limits: dict[str, int]
    """rlimits of all children"""


class Child(TypedDict):
    """One process to fork. `fds`: which of the descriptors that came with the order it keeps, as
    3, 4, ...; the first of all is its output."""

    role: str
    folder: bool
    """whether it gets a folder of its own, where that is to be had"""
    fds: list[int]
    limits: dict[str, int]
    """rlimits of its own"""


def main() -> None:
    """Read the setup, build the layers that all children share, then serve.

    With the harness this process ends as well: it hangs up. (A parent's death signal would come
    when the thread ends that started this process, which is not the harness's end.)
    """
    control = socket.socket(fileno=3)
    setup: Setup = json.loads(control.recv(MESSAGE_LIMIT))
    try:
        for name in WARM:
            import_module(name)
        zygote = _Zygote(setup, control)
    except (ConfineError, OSError, ValueError) as error:
        control.send(json.dumps({"broken": complaint(error)}).encode())
        os._exit(1)
    zygote.serve()


class _Zygote:
    def __init__(self, setup: Setup, control: socket.socket) -> None:
        self._control, self._profile = control, setup["profile"]
        self._layers = set(setup["layers"])
        self._identities: list[int | None] = [*(setup["identities"] or [])[1:]] or [None, None]
        self._machine, self._folder = os.uname().machine, setup["folder"]
        self._children: list[int] = []
        self._own_space = -1
        if "namespaces" in self._layers:
            self._own_space = namespaces.enter(setup["identities"], setup["layout"])
            # In a root of our own making, all that is below a top folder was put there by us.
            self._readable = sorted({"/" + p.split("/")[1] for p in setup["layout"]["shown"]})
        else:
            self._readable = readable(setup["layout"])
        if "rlimits" in self._layers:
            privileges.limit(setup["limits"])
        if "landlock" in self._layers:
            rules = self._ruleset([])
            os.dup2(rules, _RULES)
            os.close(rules)
        if "seccomp" in self._layers:
            # Children that are process 1 of their own all have this one, which is made only once.
            seccomp.program(self._profile, self._machine, 1)

    def serve(self) -> NoReturn:
        """Answer orders until the harness hangs up."""
        nothing = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nothing, fd)
        os.close(nothing)
        # Nothing that lives now is looked at again, so no page is copied for its sake.
        gc.collect()
        gc.freeze()
        self._control.send(json.dumps({"ready": os.getpid()}).encode())
        while True:
            message, fds, _, _ = socket.recv_fds(self._control, MESSAGE_LIMIT, 16)
            if not message:
                self._end()
                os._exit(0)
            order: dict[str, Any] = json.loads(message)
            answer: dict[str, Any] = {}
            try:
                if "fork" in order:
                    for child, identity in zip(order["fork"], self._identities, strict=False):
                        self._children.append(self._fork(child, fds, identity))
                    continue  # nobody waits for an answer: the children speak for themselves
                answer = {"ended": self._end()}
            except (ConfineError, OSError) as error:
                answer = {"broken": complaint(error)}
            finally:
                for fd in fds:
                    os.close(fd)
            self._control.send(json.dumps(answer).encode())

    def _end(self) -> list[list[float]]:
        """Kill the children with all they started: exit code and processor seconds of each."""
        ended = []
        for child in self._children:
            os.kill(child, signal.SIGKILL)
        for child in self._children:
            _, status, usage = os.wait4(child, 0)
            ended.append([os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime])
        self._children.clear()
        return ended

    def _fork(self, child: Child, fds: list[int], identity: int | None) -> int:
        apart = self._own_space >= 0
        pid = namespaces.fork_alone(self._own_space) if apart else os.fork()
        if pid:
            return pid
        try:
            self._become(child, fds, identity)
        except BaseException as error:
            os.write(1, f"{complaint(error)}\n".encode("utf-8", "replace"))
        finally:
            os._exit(1)

    def _become(self, child: Child, fds: list[int], identity: int | None) -> None:
        """Put up what is this child's own, then play its role."""
        apart = child["folder"] and "namespaces" in self._layers
        # By way of higher numbers: what is taken over may lie where it is to go.
        spare = [os.dup2(fds[i], _RULES + 1 + n) for n, i in enumerate(child["fds"])]
        pipes = range(3, 2 + len(spare))
        for fd, place in zip(spare, (1, *pipes), strict=True):
            os.dup2(fd, place)
        os.dup2(1, 2)
        # Opened anew: flags and locks of an open file belong to all that share it.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if apart:
            namespaces.own_folders()
        if self._layers:
            privileges.take(identity)
        if "rlimits" in self._layers:
            privileges.limit(child["limits"])
        if "landlock" in self._layers:
            # Its own folder is nobody else's, so neither is the rule that grants it.
            landlock.restrict(self._ruleset([namespaces.PRIVATE]) if apart else _RULES)
        os.closerange(pipes.stop, 1 << 20)
        os.chdir(namespaces.WORK_FOLDER if apart else self._folder)
        if "seccomp" in self._layers:
            seccomp.load(seccomp.program(self._profile, self._machine, os.getpid()))
        ROLES[child["role"]](*pipes)

    def _ruleset(self, writable: list[str]) -> int:
        execute = self._profile == "toolchain"
        return landlock.ruleset(self._readable, writable, execute=execute)


def complaint(error: BaseException) -> str:
    """One line that says which layer failed."""
    if isinstance(error, ConfineError):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    return f"{type(error).__name__}: {error}"
