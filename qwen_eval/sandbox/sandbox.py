"""The harness's side: has programs run and judged, watches the clock, takes the verdict.

Nothing that a candidate prints, returns or exits with is a verdict (see roles.py). A failure of
the sandbox itself is an error of the sample, never a wrong answer of the model.
"""

from __future__ import annotations

import itertools
import os
import queue
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox import landlock
from qwen_eval.sandbox.cgroup import Limits, own_groups
from qwen_eval.sandbox.interpreter import Interpreter
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.layers import LAYERS, TITLES, Layer, Profile, named, rung_of
from qwen_eval.sandbox.layout import layout
from qwen_eval.sandbox.toolchains import with_toolchain
from qwen_eval.sandbox.trial import Trial, broken
from qwen_eval.sandbox.worker import Plan, Worker
from qwen_eval.types import JudgeRequest, Response

MIB, GIB = 2**20, 2**30
# Identities that no distribution gives out (systemd's UIDS-GIDS table calls them unused).
_FIRST_UID, _UIDS, _PER_WORKER = 60_706, 478, 3
# Processes begin at different places, so that two of them seldom share an identity.
_numbers = itertools.count(os.getpid())
_RLIMITS = {
    "RLIMIT_FSIZE": 16 * MIB,
    "RLIMIT_NOFILE": 64,
    "RLIMIT_STACK": 64 * MIB,
    "RLIMIT_CORE": 0,
    "RLIMIT_MEMLOCK": 0,
    "RLIMIT_MSGQUEUE": 0,
}
# Of addresses, not of memory: numerical libraries reserve far more than they touch.
_ADDRESSES: Mapping[Profile, int] = {"score": GIB, "interpreter": 4 * GIB, "toolchain": 4 * GIB}
_LIMITS: Mapping[Profile, Limits] = {
    "score": Limits(memory=2 * GIB, processes=160, cores=2.0),
    "interpreter": Limits(memory=2 * GIB, processes=96, cores=1.0),
    "toolchain": Limits(memory=2 * GIB, processes=160, cores=2.0),
}


class Sandbox:
    """Runs programs, `workers` at a time, each behind `layers`. Thread-safe; use as a context
    manager or close it. preflight.open_sandbox finds the layers that this machine has.

    A program sees Python's standard library, the system's shared libraries and an empty folder of
    its own, and no other file. Limits of one program: `JudgeRequest.timeout` seconds of processor
    time and five times that on the wall (so that a busy machine fails nobody), 1 GiB of address
    space, 16 MiB of files, 1 MiB of output, 64 threads, no process of its own. One in another
    language (toolchains.py) sees what compiles and runs it as well, has 4 GiB of address space, and
    may start processes, which end with it.

    `warm`: False starts a process anew for each program, which is slower and shows that nothing
    depends on what ran before.
    """

    def __init__(
        self, workers: int, layers: Collection[Layer] = LAYERS, *, warm: bool = True
    ) -> None:
        own = {*layers} - ({"identity"} if os.geteuid() else set())
        self.layers = frozenset[Layer](layer for layer in LAYERS if layer in own)
        self._warm = warm
        self._plan = _plan(self.layers, "score")
        self._workers = workers
        self._slots: queue.Queue[_Slot] = queue.Queue()
        for _ in range(workers):
            self._slots.put(_Slot())
        # What `close` writes is never read, so every call that waits sees it, now and later.
        self._closing, self._close = os.pipe()
        self._closed = False
        self._lock = threading.Lock()
        self.rung = rung_of(self.layers)
        self.isolation = named(self.layers, titles())

    def judge(self, request: JudgeRequest) -> Response:
        """Run one program against its tests; blocks for as long as that takes, or until `close`."""
        slot = self._slots.get()
        try:
            if self._closed:
                return broken("closed")
            return self._judge(slot, request)
        except ConfineError as error:
            slot.stop()
            return broken(str(error))
        except OSError as error:
            slot.stop()
            return broken(f"{type(error).__name__}: {error}")
        except BaseException:
            slot.stop()  # interrupted: the program is not to run on beside the next one
            raise
        finally:
            if not self._warm:
                slot.stop()
            self._slots.put(slot)

    def _judge(self, slot: _Slot, request: JudgeRequest) -> Response:
        if slot.worker is not None and not slot.worker.lives:
            slot.stop()  # killed from outside since, which is no fault of this program
        if slot.language != request.language:
            slot.stop()
        if slot.worker is None:
            slot.worker = _worker(self._plan_of(request.language))
            slot.language = request.language
        response = Trial(request, slot.worker, self._closing).run()
        if response.error is not None:
            slot.stop()
        return response

    def _plan_of(self, language: str) -> Plan:
        if language == "Python":
            return self._plan
        if "namespaces" not in self.layers:
            raise ConfineError(f"namespaces: programs in {language} run in nothing less")
        return _plan(self.layers, "toolchain", language=language)

    def interpreter(
        self, packages: Iterable[str] = (), files: Mapping[str, bytes] | None = None
    ) -> Interpreter:
        """A session that keeps its state from cell to cell; close it, or use it as a context
        manager. It may fork, and has an empty folder with `files` in it and, besides the standard
        library, the installed `packages` with what they require.

        Raises RefusedError where this machine has no namespaces to hold what it forks, ConfineError
        where they cannot be had now, PackageNotFoundError.
        """
        if "namespaces" not in self.layers:
            raise RefusedError(
                "an interpreter may start processes, and without user namespaces nothing holds "
                f"them here ({self.isolation}); `qwen-eval sandbox doctor` says what is missing"
            )
        plan = _plan(self.layers, "interpreter", tuple(packages))
        return Interpreter(lambda: _worker(plan), files or {})

    def close(self) -> None:
        """End what runs, at once; those calls of `judge`, and all later ones, answer an error.

        Returns when no program is left. From any thread, as often as wanted.
        """
        with self._lock:
            if self._closed:
                return
            self._closed = True
            os.write(self._close, b"x")
            # With all slots in hand, nobody runs anything.
            slots = [self._slots.get() for _ in range(self._workers)]
            for slot in slots:
                slot.stop()
            os.close(self._closing)
            os.close(self._close)
            for slot in slots:
                self._slots.put(slot)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Slot:
    """The right to run one program at a time, and the zygote that does, once there is one."""

    worker: Worker | None = None
    language: str = "Python"
    """of the programs that it runs: another zygote is started for another"""

    def stop(self) -> None:
        if self.worker is not None:
            self.worker.stop()
            self.worker = None


@cache
def _plan(
    layers: frozenset[Layer],
    profile: Profile,
    packages: tuple[str, ...] = (),
    language: str = "Python",
) -> Plan:
    limits = _RLIMITS | {"RLIMIT_AS": _ADDRESSES[profile]}
    shown = layout(packages)
    if language != "Python":
        shown = with_toolchain(shown, language)
    return Plan(layers, shown, profile, limits, _LIMITS[profile])


def _worker(plan: Plan) -> Worker:
    number = next(_numbers)
    identities = None
    if "identity" in plan.layers:
        first = _FIRST_UID + _PER_WORKER * (number % (_UIDS // _PER_WORKER))
        identities = range(first, first + _PER_WORKER)
    return Worker(plan, str(number), identities)


def titles() -> dict[Layer, str]:
    """What the layers are called, with the versions that this machine has of them."""
    group = f"cgroup v{2 if '' in own_groups() else 1}"
    return {**TITLES, "landlock": f"landlock {landlock.version()}", "cgroup": group}
