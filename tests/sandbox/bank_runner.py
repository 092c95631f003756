"""Runs the attack bank, or its controls, once, as whoever starts it: for a process of its own.

    python bank_runner.py '{"layers": [...], "warm": true, "titles": [...]}'

prints {title: [result, detail]} as JSON. Needs nothing but the standard library and the sandbox.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypedDict

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).absolute().parents[2]))

from qwen_eval.sandbox.attacks.attack import Attack
from qwen_eval.sandbox.attacks.bank import ATTACKS, Outcome, run, run_all, runs_on, told
from qwen_eval.sandbox.attacks.ground import Ground
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.layers import LAYERS, Layer
from qwen_eval.sandbox.roles import ROLES
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.sandbox.text import LINE_LIMIT
from qwen_eval.sandbox.worker import memory_file

BY_TITLE = {attack.title: attack for attack in ATTACKS}
# A judge as most are: one interpreter for all, an exit status for a verdict.
_PLAIN = """
import json, sys
program, tests = json.loads(sys.argv[1])
names = {"__name__": "plain"}
try:
    exec(compile(program, "program", "exec"), names)
    exec(compile(tests, "tests", "exec"), names)
    names["check"](names["f"])
except Exception as error:
    print(f"{type(error).__name__}: {error}", flush=True)
    raise
"""
_PATIENCE = 4.0


class Order(TypedDict):
    """What to run. `layers` None: the controls."""

    layers: list[Layer] | None
    warm: bool
    titles: list[str]


def obey(order: Order) -> dict[str, tuple[str, str]]:
    """Title -> result and detail."""
    attacks = [BY_TITLE[title] for title in order["titles"]]
    layers = order["layers"]
    if layers is None:
        with ThreadPoolExecutor(2) as pool:
            outcomes = zip(attacks, pool.map(control, attacks), strict=True)
    else:
        with Sandbox(2, layers, warm=order["warm"]) as sandbox:
            outcomes = zip(*zip(*run_all(sandbox, attacks), strict=True), strict=True)
    return {attack.title: (outcome.result, outcome.detail) for attack, outcome in outcomes}


def control(attack: Attack) -> Outcome:
    """The same trick where something weaker judges it: it must succeed. The detail of one that
    did begins with what it succeeded against."""
    if attack.weaker == "fewer layers":
        return _with_fewer_layers(attack)
    if attack.weaker == "own process":
        with Sandbox(1, _own(LAYERS)) as sandbox:
            return run(attack, sandbox, alone=True)
    if attack.weaker == "no clock":
        with Sandbox(1, _own(LAYERS)) as sandbox:
            return runs_on(attack, sandbox)
    if attack.weaker == "guessable numbers":
        return _with_guessable_numbers(attack)
    if attack.weaker == "none known":
        return Outcome("held", "no weaker judge is known to fall for it")
    return _in_a_plain_process(attack)


def _own(layers: Iterable[Layer]) -> list[Layer]:
    """Those of the layers that this user can have."""
    return [layer for layer in layers if layer != "cgroup" or os.geteuid() == 0]


def _with_fewer_layers(attack: Attack) -> Outcome:
    """Without what stops it; where that set cannot be opened here or still holds it, bare."""
    rest = [layer for layer in _own(LAYERS) if layer not in attack.stopped_by]
    told = []
    for layers in (rest, []):
        if attack.profile == "interpreter" and "namespaces" not in layers:
            continue
        try:
            with Sandbox(1, layers) as sandbox:
                outcome = run(attack, sandbox)
        except ConfineError as error:
            outcome = Outcome("broken", str(error))
        if outcome.succeeded:
            return Outcome("succeeded", f"{'+'.join(layers) or 'bare'}: {outcome.detail}")
        told.append(f"{'+'.join(layers) or 'bare'}: {outcome.detail}")
    if attack.profile == "interpreter" and "namespaces" in attack.stopped_by:
        return _in_a_plain_process(attack)
    return Outcome("held", "; ".join(told))


def _in_a_plain_process(attack: Attack) -> Outcome:
    """One process, nothing contained, all that the harness has inherited."""
    pair = socket.socketpair()
    forgotten = [os.dup(pair[0].fileno()) for _ in range(8)]
    with Ground() as ground:
        content = json.dumps([ground.fill(attack.program), attack.tests])
        process = subprocess.Popen(
            [sys.executable, "-c", _PLAIN, content],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=forgotten,
            cwd=ground.folder,
            start_new_session=True,
        )
        try:
            patience = _PATIENCE if attack.weaker == "end of file" else 60
            printed, _ = process.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            return Outcome("succeeded", "the output has no end")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            for fd in (*forgotten, *(one.detach() for one in pair)):
                os.close(fd)
        text = printed.decode("utf-8", "surrogateescape").rstrip("\n")
        fooled = {
            "plain process": process.returncode == 0,
            "fewer layers": process.returncode == 0,
            "printed verdict": "passed" in text.splitlines() and process.returncode != 0,
            "raw text": not text.isprintable() or len(text) > 2 * LINE_LIMIT,
            "crash": process.returncode not in (0, 1) or not text,
        }
        detail = f"plain process: {text[:200]}"
        return told(attack, fooled.get(attack.weaker, False), detail, ground)


def _with_guessable_numbers(attack: Attack) -> Outcome:
    """The two roles as they are, but with questions that all bear the same number."""
    calls, replies, verdicts = os.pipe(), os.pipe(), os.pipe()
    nothing = os.open(os.devnull, os.O_RDWR)
    with Ground() as ground:
        program = {"program": ground.fill(attack.program), "entry_point": "f"}
    tests = {"tests": attack.tests, "preamble": "", "entry_point": "f"}
    children = [
        _play("candidate", (nothing, memory_file(program), calls[0], replies[1])),
        _play("judge", (nothing, memory_file(tests), calls[1], replies[0], verdicts[1])),
    ]
    for fd in (*calls, *replies, verdicts[1], nothing):
        os.close(fd)
    with open(verdicts[0]) as file:
        lines = file.read()
    for child in children:
        os.waitpid(child, 0)
    return Outcome("succeeded" if '["passed"' in lines else "held", lines)


def _play(role: str, fds: Sequence[int]) -> int:
    """Fork a process that has a role, descriptors 3, 4, ... and guessable random numbers."""
    child = os.fork()
    if child:
        return child
    try:
        kept = [os.dup2(fd, 40 + number) for number, fd in enumerate(fds)]
        for number, fd in enumerate(kept):
            os.dup2(fd, 2 + number)
        os.closerange(2 + len(kept), 1 << 16)
        os.dup2(2, 0), os.dup2(2, 1)
        os.urandom = bytes
        ROLES[role](*range(3, 2 + len(kept)))
    finally:
        os._exit(0)


if __name__ == "__main__":
    print(json.dumps(obey(json.loads(sys.argv[1]))))
