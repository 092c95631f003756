"""No attack of the bank succeeds on any rung, and each does where what stops it is taken away."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from qwen_eval.sandbox.attacks.attack import Attack
from qwen_eval.sandbox.attacks.bank import ATTACKS, QUICK, held_by
from qwen_eval.sandbox.layers import LAYERS, NEEDED, Layer, Rung
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.types import JudgeRequest
from tests.sandbox.bank_runner import Order, obey

RUNNER = Path(__file__).with_name("bank_runner.py")
NOBODY = 12345
OUTCOMES = dict[str, tuple[str, str]]
# What a rung is known to let through, as the documentation says.
RESIDUE: dict[Rung, set[str]] = {
    "A": set(),
    "B": {"60 eight processes that hold 300 MiB each"},
    "C": {
        "39 see whether a path exists",
        "39 see where a link leads",
        "64 the name of the machine",
    },
}
# What not every kernel or system has: there a control may fail.
NOT_EVERYWHERE = {
    "37 become /bin/busybox",
    "39 read the shared memory of others",
    "45 a server of this machine, by version 6",
    "45 a socket of family alg",
    "45 a socket of family vsock",
    "45 a way to the world",
    "46 a call in the 32-bit manner",
    "46 a call in the x32 manner",
    "46 a module of the kernel",
    "46 another kernel",
    "46 measure the kernel",
    "46 page faults in its own hands",
    "46 segments of its own",
    "47 open the trigger of emergencies",
}


def _is_long(attack: Attack) -> bool:
    return attack.waits or attack.timeout > 2


@dataclass(frozen=True)
class World:
    """Where the bank is run: a rung, by root or by an ordinary user, with or without a zygote that
    has forked before."""

    rung: Rung
    user: int
    warm: bool

    def __str__(self) -> str:
        user = "" if self.user or self.rung == "A" else " as root"
        return f"{self.rung}{user}-{'zygote' if self.warm else 'cold'}"

    @property
    def layers(self) -> list[Layer]:
        """Those that make the rung, and those that every rung has."""
        needed = {*NEEDED[self.rung], "landlock", "identity"}
        return [layer for layer in LAYERS if layer in needed]

    @property
    def attacks(self) -> list[Attack]:
        """All of them; those that take long once for each rung."""
        some = ("17 an infinite loop", "21 sleep", "34 two hundred threads")
        whole = self.warm and (self.user or self.rung == "A")
        return [a for a in ATTACKS if whole or not _is_long(a) or a.title in some]


WORLDS = [
    *(World("A", 0, warm) for warm in (True, False)),
    *(World("B", NOBODY, warm) for warm in (True, False)),
    *(World("C", NOBODY, warm) for warm in (True, False)),
    World("C", 0, warm=True),
]
CASES = [
    pytest.param(
        world,
        attack,
        id=f"{world}-{attack.title}",
        marks=[pytest.mark.slow] if world is not WORLDS[0] or _is_long(attack) else [],
    )
    for world in WORLDS
    for attack in world.attacks
]


@cache
def _outcomes(world: World, long: bool) -> OUTCOMES | str:
    """What came of one run of the bank, or why there is none."""
    if os.geteuid() and world.user == 0:
        return "needs root"
    titles = [attack.title for attack in world.attacks if _is_long(attack) == long]
    order = Order(layers=world.layers, warm=world.warm, titles=titles)
    return _ordered(order, os.geteuid() or world.user)


@cache
def _controls(long: bool) -> OUTCOMES | str:
    titles = [attack.title for attack in ATTACKS if _is_long(attack) == long]
    return _ordered(Order(layers=None, warm=True, titles=titles), os.geteuid())


@cache
def _without(layer: Layer) -> OUTCOMES | str:
    """What came of a run of the bank with all layers but one."""
    layers = [other for other in LAYERS if other != layer]
    titles = [attack.title for attack in ATTACKS if not _is_long(attack)]
    return _ordered(Order(layers=layers, warm=True, titles=titles), 0)


def _ordered(order: Order, user: int) -> OUTCOMES | str:
    """Have an order obeyed: in this process where it has the right user and namespaces can show a
    Python from a home that is closed to others."""
    layers = order["layers"]
    if layers is not None and "namespaces" in layers and user == os.geteuid():
        return _missing(layers) or obey(order)
    python = _python(user)
    if python is None:
        return "no Python 3.11 that every user can run, or a checkout that not every user can read"
    done = _run_as(user, [python, "-s", str(RUNNER), json.dumps(order)])
    assert done.returncode == 0, done.stderr
    outcomes: OUTCOMES = json.loads(done.stdout)
    faults = {detail for result, detail in outcomes.values() if result == "broken"}
    if layers is not None and len(faults) == 1 and len(outcomes) > 3:
        return f"not to be had here: {faults.pop()}"
    return outcomes


@cache
def _python(user: int) -> str | None:
    """A Python that a user, and the programs that root runs as others, can run."""
    reading = ["-s", "-c", f"open({str(RUNNER)!r})"]
    for python in (sys.executable, shutil.which("python3.11", path="/usr/bin:/usr/local/bin")):
        with suppress(PermissionError):
            if python and _run_as(user or NOBODY, [python, *reading]).returncode == 0:
                return python
    return None


def _run_as(user: int, command: list[str]) -> subprocess.CompletedProcess[str]:
    other = user != os.geteuid()
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd="/",
        timeout=550,
        check=False,
        user=user if other else None,
        group=user if other else None,
        extra_groups=[] if other else None,
    )


@cache
def _missing_layers(layers: tuple[Layer, ...]) -> str:
    request = JudgeRequest("def f(): return 1", "def check(f): f()", "f")
    with Sandbox(1, layers) as sandbox:
        return sandbox.judge(request).error or ""


def _missing(layers: list[Layer]) -> str:
    """What keeps this machine from having these layers; "" if nothing does."""
    return _missing_layers(tuple(layers))


@pytest.mark.parametrize(("world", "attack"), CASES)
def test_it_holds(world: World, attack: Attack) -> None:
    outcomes = _outcomes(world, _is_long(attack))
    if isinstance(outcomes, str):
        pytest.skip(outcomes)
    result, detail = outcomes[attack.title]
    known = attack.title in RESIDUE[world.rung]
    assert result == ("succeeded" if known else "held"), detail


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_what_is_let_through_is_known(world: World) -> None:
    let_through = {a.title for a in world.attacks if not held_by(a, world.layers)}
    assert let_through == RESIDUE[world.rung] & {a.title for a in world.attacks}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.title)
def test_control(attack: Attack) -> None:
    """The trick works where something weaker judges it: otherwise the above would say nothing."""
    outcomes = _controls(_is_long(attack))
    if isinstance(outcomes, str):
        pytest.skip(outcomes)
    result, detail = outcomes[attack.title]
    if result == "succeeded":
        return
    if attack.weaker == "none known" or attack.title in NOT_EVERYWHERE or _missing(list(LAYERS)):
        pytest.skip(f"not to be shown here: {detail}")
    pytest.fail(detail)


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS[1:])
def test_without_a_layer_that_gets_through_which_no_other_stops(layer: Layer) -> None:
    if os.geteuid() or _missing(list(LAYERS)):
        pytest.skip("needs all layers")
    outcomes = _without(layer)
    if isinstance(outcomes, str):
        pytest.skip(outcomes)
    rest = [other for other in LAYERS if other != layer]
    expected = {a.title for a in ATTACKS if a.title in outcomes and not held_by(a, rest)}
    succeeded = {title for title, (result, _) in outcomes.items() if result == "succeeded"}
    assert expected - NOT_EVERYWHERE == succeeded - NOT_EVERYWHERE


@pytest.mark.slow
@pytest.mark.parametrize("layer", LAYERS[1:])
def test_each_layer_stops_what_no_other_does(layer: Layer) -> None:
    """Take one layer away, whichever, and an attack succeeds."""
    if os.geteuid() or _missing(list(LAYERS)):
        pytest.skip("needs all layers")
    rest = "+".join(other for other in LAYERS if other != layer)
    alone = [attack for attack in ATTACKS if attack.stopped_by == (layer,)]
    shown = []
    for attack in alone:
        outcomes = _controls(_is_long(attack))
        if isinstance(outcomes, str):
            pytest.skip(outcomes)
        result, detail = outcomes[attack.title]
        if result == "succeeded" and detail.startswith(f"{rest}: "):
            shown.append(attack.title)
    assert shown


def test_root_without_another_identity_runs_nothing() -> None:
    if os.geteuid():
        pytest.skip("an ordinary user has no other identity")
    assert _missing([layer for layer in LAYERS if layer != "identity"]) == (
        "sandbox: identity: still root"
    )


def test_the_bank_is_whole() -> None:
    numbers = {attack.number for attack in ATTACKS}
    assert numbers >= set(range(1, 49)), "the 48 of the specification"
    assert len(numbers - set(range(1, 49))) >= 15, "and others"
    assert len({attack.title for attack in ATTACKS}) == len(ATTACKS)
    # What a judge in the program's own process falls for is no layer's to stop.
    assert all(attack.stopped_by for attack in ATTACKS if attack.weaker == "fewer layers")


def test_the_quick_ones_meet_every_layer_and_wait_for_nothing() -> None:
    met = {layer for attack in QUICK for layer in attack.stopped_by}
    assert met == set(LAYERS)
    assert any(attack.weaker == "own process" for attack in QUICK)
    assert not any(attack.waits or attack.profile == "interpreter" for attack in QUICK)
    for world in WORLDS:
        assert all(held_by(attack, world.layers) for attack in QUICK)
