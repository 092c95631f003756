"""Finds out what holds on this machine by doing it, before a model says its first word.

The highest rung of the ladder that can be had is taken, and then attacked: a sandbox that a known
trick gets out of runs nothing. Below rung C programs are refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.attacks import bank
from qwen_eval.sandbox.cgroup import sweep
from qwen_eval.sandbox.layers import LAYERS, NONE, Layer, rung_of
from qwen_eval.sandbox.sandbox import Sandbox, titles
from qwen_eval.sandbox.toolchains import toolchain
from qwen_eval.sandbox.trial import WEAKER
from qwen_eval.types import JudgeRequest

_CHECK = "def check(candidate):\n    assert candidate(21) == 42\n"
_WARM = JudgeRequest("def twice(x):\n    return 2 * x\n", _CHECK, "twice")
# A module that no zygote has loaded: the standard library can be read where programs run.
_COLD = JudgeRequest(
    "import colorsys, sched, collections\ndef twice(x):\n    return 2 * x\n", _CHECK, "twice"
)
_USER_NAMESPACES = "/proc/sys/user/max_user_namespaces"
_DEBIAN = "/proc/sys/kernel/unprivileged_userns_clone"
_UBUNTU = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns"


@dataclass(frozen=True)
class Finding:
    """Whether a layer can be had here, by itself. `detail`: its version, or what the kernel said;
    `remedy`: what would bring it, empty where it is there."""

    layer: Layer
    there: bool
    detail: str
    remedy: str = ""


def open_sandbox(
    workers: int = 2, *, accept_none: bool = False, languages: Iterable[str] = ()
) -> Sandbox:
    """A sandbox on the highest rung that this machine has, tried and attacked, and tried in each of
    the `languages`, which need namespaces where they are not Python.

    `accept_none`: below rung C, run programs behind what layers there are, and mark the results as
    not contained; root's programs run under another identity even then. Raises RefusedError
    (exit 3) where that was not accepted, and always where an attack got through or one of the
    languages does not work; MissingToolError where one is not there.
    """
    _require_linux()
    sweep()
    layers, reasons = set(LAYERS), []
    while rung_of(layers) != "D" or (accept_none and layers):
        sandbox = Sandbox(workers, layers)
        trial = sandbox.judge(_COLD)
        if trial.passed:
            if sandbox.rung != "D":
                _attack(sandbox)
            _speak(sandbox, languages)
            return sandbox
        sandbox.close()
        reason, layer = _fault(trial.error or trial.text, layers)
        if layer != "cgroup":  # which no rung but the highest needs
            reasons.append(reason)
        if layer is None or layer == "identity":
            break
        layers.discard(layer)
    way_out = _way_out(reasons[-1])
    if not accept_none:
        way_out += (
            "; `qwen-eval sandbox doctor` says more, and --accept-no-sandbox runs them all the "
            "same, marked as such"
        )
    raise RefusedError(f"programs cannot be contained here ({'; '.join(reasons)}): {way_out}")


def findings() -> list[Finding]:
    """Each layer tried by itself, in the order of LAYERS. Raises RefusedError where none can be."""
    _require_linux()
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(_find, LAYERS))


def _require_linux() -> None:
    # Not to mypy, which would skip what follows on other systems.
    if str(sys.platform) != "linux":
        raise RefusedError(
            f"programs are contained by Linux alone, and this is {sys.platform}: run it in a "
            "Linux container (docker run) or on a Linux machine"
        )


def _find(layer: Layer) -> Finding:
    if layer == "identity" and os.geteuid():
        return Finding(layer, True, f"uid {os.geteuid()}: an ordinary user's own", "")
    # Root's programs run under another identity in any case, or not at all.
    with Sandbox(1, {layer, "identity"}) as sandbox:
        trial = sandbox.judge(_WARM)
    if trial.passed:
        return Finding(layer, True, titles()[layer])
    reason, _ = _fault(trial.error or trial.text, {layer})
    return Finding(layer, False, reason, remedy(layer))


def _fault(complaint: str, layers: set[Layer]) -> tuple[str, Layer | None]:
    """Why a trial did not work, and which layer is to blame, if one of those is."""
    complaint = complaint.removeprefix("sandbox: ")
    closed = ("ModuleNotFoundError", "PermissionError", "ImportError", "start: Permission denied")
    if complaint.startswith(closed):
        return f"standard library: {sys.base_prefix} is closed to other users", None
    blamed = complaint.partition(":")[0]
    return complaint, next((layer for layer in layers if layer == blamed), None)


def _attack(sandbox: Sandbox) -> None:
    for attack, outcome in bank.run_all(sandbox, bank.attacks_for(sandbox, quick=True)):
        if outcome.result != "held":
            sandbox.close()
            how = "got through" if outcome.succeeded else f"broke the sandbox ({outcome.detail})"
            raise RefusedError(
                f"programs are not contained here: the attack “{attack.name}” {how} "
                f"({sandbox.isolation}); run nothing that a model wrote on this machine"
            )


def _speak(sandbox: Sandbox, languages: Iterable[str]) -> None:
    """Try each language, and say in the isolation that no split judge holds its tests."""
    others = sorted({*languages} - {"Python"})
    for language in others:
        trial = sandbox.judge(toolchain(language).sample)
        if not trial.passed:
            sandbox.close()
            reason = (trial.error or trial.text).removeprefix("sandbox: ")
            way_out = remedy("namespaces") if reason.startswith("namespaces: ") else "leave it out"
            raise RefusedError(
                f"programs in {language} do not run in the sandbox here ({reason}): {way_out}"
            )
    if others and sandbox.isolation != NONE:
        sandbox.isolation += f"; programs in {', '.join(others)}: {WEAKER}"


def _way_out(reason: str) -> str:
    layer = reason.partition(":")[0]
    if layer == "standard library":
        return "use a Python that every user can read, or allow user namespaces"
    known = next((known for known in LAYERS if known == layer), None)
    # Below rung C there is no namespace and one more thing is missing; namespaces are the cure.
    return remedy(known if known in ("seccomp", "identity") else "namespaces")


def remedy(layer: Layer) -> str:
    """The command, or the kernel, that brings a layer to this machine."""
    if layer == "namespaces":
        if _reads(_USER_NAMESPACES, "0"):
            return "sysctl -w user.max_user_namespaces=10000"
        if _reads(_DEBIAN, "0"):
            return "sysctl -w kernel.unprivileged_userns_clone=1"
        if _reads(_UBUNTU, "1"):
            return "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0"
        return "docker run --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
    return {
        "identity": "start as an ordinary user, or docker run --cap-add SETUID --cap-add SETGID",
        "landlock": "boot Linux 5.13 or later with landlock in lsm= (CONFIG_SECURITY_LANDLOCK)",
        "seccomp": "boot a kernel with CONFIG_SECCOMP_FILTER on x86_64 or aarch64",
        "rlimits": "raise the hard limits (ulimit -H -a)",
        "cgroup": "start as root, or with systemd-run --user --scope -p Delegate=yes",
    }[layer]


def _reads(path: str, value: str) -> bool:
    try:
        return Path(path).read_text().strip() == value
    except OSError:
        return False
