"""The layers of the containment, and the rungs of the ladder that their presence makes.

| rung | what holds a program |
|---|---|
| A | namespaces, seccomp, Landlock, rlimits, a control group |
| B | the same without a control group |
| C | no namespaces: Landlock, seccomp, rlimits; nothing can be written, nothing forked |
| D | not enough: no program is run |
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

Layer = Literal["identity", "namespaces", "landlock", "seccomp", "rlimits", "cgroup"]
Profile = Literal["score", "interpreter", "toolchain"]
"""`score`: one process and its threads. `interpreter`: it may fork, so its process ids must be
a namespace of their own, for it may also signal every process it sees. `toolchain`: it may start
other programs as well, those that are shown and those that it makes."""
Rung = Literal["A", "B", "C", "D"]

LAYERS: tuple[Layer, ...] = get_args(Layer)
NEEDED: Mapping[Rung, Collection[Layer]] = {
    "A": ("namespaces", "seccomp", "rlimits", "cgroup"),
    "B": ("namespaces", "seccomp", "rlimits"),
    "C": ("landlock", "seccomp", "rlimits"),
    "D": (),
}
TITLES: Mapping[Layer, str] = {
    "identity": "own uid",
    "namespaces": "user, pid, mount, network, ipc and uts namespaces with a private root",
    "landlock": "landlock",
    "seccomp": "seccomp",
    "rlimits": "rlimits",
    "cgroup": "cgroup",
}


NONE = "none"
"""The isolation of a run whose programs nothing held."""


def rung_of(layers: Collection[Layer]) -> Rung:
    """The highest rung whose layers are all there."""
    return next(rung for rung, needed in NEEDED.items() if set(needed) <= set(layers))


def named(layers: Collection[Layer], titles: Mapping[Layer, str] = TITLES) -> str:
    """One line for a run's provenance: the rung, what is there, what is missing."""
    if rung_of(layers) == "D":
        return NONE
    there = [titles[layer] for layer in LAYERS if layer in layers]
    # An ordinary user needs no other identity, and root runs nothing without one.
    missing = [TITLES[layer] for layer in LAYERS if layer not in {*layers, "identity"}]
    line = f"rung {rung_of(layers)}: {' + '.join([*there, 'split judge'])}"
    return line + (f"; missing: {', '.join(missing)}" if missing else "")
