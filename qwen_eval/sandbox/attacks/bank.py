"""The attack bank: all attacks, and how one is run against a sandbox."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Literal

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.attacks.attack import Attack
from qwen_eval.sandbox.attacks.escaping import ESCAPING
from qwen_eval.sandbox.attacks.exhausting import EXHAUSTING
from qwen_eval.sandbox.attacks.forging import FORGING
from qwen_eval.sandbox.attacks.ground import Ground
from qwen_eval.sandbox.attacks.replying import REPLYING
from qwen_eval.sandbox.attacks.spawning import SPAWNING
from qwen_eval.sandbox.attacks.spying import SPYING
from qwen_eval.sandbox.layers import Layer
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.sandbox.trial import WALL_FACTOR
from qwen_eval.sandbox.worker import START_SECONDS
from qwen_eval.types import JudgeRequest

ATTACKS: tuple[Attack, ...] = (*FORGING, *REPLYING, *EXHAUSTING, *SPAWNING, *SPYING, *ESCAPING)
QUICK: tuple[Attack, ...] = tuple(attack for attack in ATTACKS if attack.quick)
"""A few that take no time and meet every layer but the control group, which is met by filling
memory alone."""

PATIENCE = 1000.0
GRACE_SECONDS = 10.0
LOOKED_ON = 2.0
"""seconds that a judge with patience watches a program that runs on"""


@dataclass(frozen=True)
class Outcome:
    """`held`: the attack failed. `succeeded`. `broken`: no verdict came, the sandbox itself
    failed, which is for no program to bring about."""

    result: Literal["held", "succeeded", "broken"]
    detail: str = ""

    @property
    def succeeded(self) -> bool:
        """Whether the attack did what it set out to do."""
        return self.result == "succeeded"


def held_by(attack: Attack, layers: Collection[Layer]) -> bool:
    """Whether these layers are to stop an attack; without namespaces there are no sessions."""
    if attack.profile == "interpreter" and "namespaces" not in layers:
        return True
    return not attack.stopped_by or not set(attack.stopped_by).isdisjoint(layers)


def attacks_for(sandbox: Sandbox, *, quick: bool = False) -> list[Attack]:
    """All attacks, or the quick ones, but for those that a sandbox has no layer against."""
    attacks = QUICK if quick else ATTACKS
    return [attack for attack in attacks if held_by(attack, sandbox.layers)]


def run_all(
    sandbox: Sandbox, attacks: Iterable[Attack], threads: int = 2
) -> Iterator[tuple[Attack, Outcome]]:
    """Run attacks, some at a time, each on a proving ground of its own; in their order."""
    attacks = list(attacks)
    with ThreadPoolExecutor(threads) as pool:
        yield from zip(attacks, pool.map(lambda a: run(a, sandbox), attacks), strict=True)


def run(attack: Attack, sandbox: Sandbox, *, alone: bool = False) -> Outcome:
    """Attack a sandbox. A session that is refused is held. `alone`: with the tests in the
    program's own process."""
    begun = time.monotonic()
    with Ground() as ground:
        if attack.profile == "interpreter":
            outcome = _session(attack, sandbox, ground)
        else:
            outcome = _program(attack, sandbox, ground, alone)
    seconds = time.monotonic() - begun
    if seconds > START_SECONDS + WALL_FACTOR * attack.timeout + GRACE_SECONDS:
        return Outcome("succeeded", f"it took {seconds:.0f} s")
    return outcome


def runs_on(attack: Attack, sandbox: Sandbox) -> Outcome:
    """Whether an attack still runs after a while if it has all the time in the world; closes the
    sandbox."""
    closing = threading.Timer(LOOKED_ON, sandbox.close)
    closing.start()
    try:
        with Ground() as ground:
            response = sandbox.judge(_request(replace(attack, timeout=PATIENCE), ground))
    finally:
        closing.cancel()
    on = response.error is not None and "closed" in response.error
    return Outcome("succeeded" if on else "held", response.error or response.text)


def _request(attack: Attack, ground: Ground) -> JudgeRequest:
    return JudgeRequest(ground.fill(attack.program), attack.tests, "f", timeout=attack.timeout)


def _program(attack: Attack, sandbox: Sandbox, ground: Ground, alone: bool) -> Outcome:
    request = replace(_request(attack, ground), alone=alone)
    if not attack.before:
        response = sandbox.judge(request)
    else:
        # With one worker, both programs are its.
        with Sandbox(1, sandbox.layers) as smaller:
            smaller.judge(replace(request, candidate=ground.fill(attack.before)))
            response = smaller.judge(request)
    if response.error is not None:
        return Outcome("broken", response.error)
    return told(attack, response.passed is True, response.text, ground)


def _session(attack: Attack, sandbox: Sandbox, ground: Ground) -> Outcome:
    try:
        with sandbox.interpreter() as session:
            cell = session.run(ground.fill(attack.program) + "\nf()\n", attack.timeout)
    except RefusedError as refusal:
        return Outcome("held", str(refusal))
    except Exception as error:
        # Whatever it is: no program may have the harness raise it.
        return Outcome("broken", f"{type(error).__name__}: {error}")
    return told(attack, cell.value == "True", cell.value or cell.error, ground)


def told(attack: Attack, passed: bool, text: str, ground: Ground) -> Outcome:
    """What came of an attack that ended, by its verdict and by what it left."""
    left = attack.aftermath(ground, text)
    return Outcome("succeeded" if passed or left else "held", left or text)
