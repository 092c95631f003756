"""Control groups, version 1 or 2: what a program and all it starts may use together.

Version 1 keeps each controller in a tree of its own, version 2 has one tree; both are found
through /proc, and a group counts as had only once it was made and its limit was set: a folder
can be made in many a place that is no control group.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from qwen_eval.sandbox.kernel import ConfineError

_PREFIX = "qwen-eval"
_PERIOD = 100_000  # microseconds: the kernel's own default
# Controller -> file -> value: versions 1 and 2. A file with "?" may be absent (no swap accounting).
_V1 = {
    "memory": {
        "memory.limit_in_bytes": "{memory}",
        "memory.memsw.limit_in_bytes?": "{memory}",
        "memory.swappiness?": "0",
    },
    "pids": {"pids.max": "{processes}"},
    "cpu": {"cpu.cfs_period_us?": "{period}", "cpu.cfs_quota_us?": "{quota}"},
}
_V2 = {
    "memory": {"memory.max": "{memory}", "memory.swap.max?": "0"},
    "pids": {"pids.max": "{processes}"},
    "cpu": {"cpu.max?": "{quota} {period}"},
}


@dataclass(frozen=True)
class Limits:
    """What all processes of a group may have together."""

    memory: int
    """bytes, swap included"""
    processes: int
    """processes and threads"""
    cores: float
    """processor seconds per second"""


@dataclass
class Cgroup:
    """A control group of ours; `folders` are its places, one per tree."""

    version: int
    folders: list[Path]

    @classmethod
    def make(cls, name: str, limits: Limits) -> Cgroup:
        """Make a group and set its limits. Raises ConfineError where that is not to be had."""
        parents = own_groups()
        version = 2 if "" in parents else 1
        if not parents:
            raise ConfineError("cgroup: no tree of control groups is mounted")
        group = cls(version, [])
        values = {
            "memory": limits.memory,
            "processes": limits.processes,
            "period": _PERIOD,
            "quota": round(limits.cores * _PERIOD),
        }
        try:
            for controller, files in (_V1 if version == 1 else _V2).items():
                parent = parents.get(controller) if version == 1 else _giving(parents[""])
                if parent is None:
                    if controller == "cpu":
                        continue
                    raise ConfineError(f"cgroup: no {controller} controller is mounted")
                folder = parent / f"{_prefix()}{os.getpid()}-{name}"
                if folder not in group.folders:
                    folder.mkdir()
                    group.folders.append(folder)
                _set(folder, files, values)
        except OSError as error:
            group.remove()
            reason = (error.strerror or str(error)).lower()
            raise ConfineError(f"cgroup: version {version}: {reason}") from None
        except ConfineError:
            group.remove()
            raise
        return group

    def add(self, pid: int) -> None:
        """Put a process into the group; what it starts later is in it as well. Raises OSError."""
        for folder in self.folders:
            (folder / "cgroup.procs").write_text(str(pid))

    def processes(self) -> list[int]:
        """The processes that are in the group now, as far as this process can name them."""
        found: set[int] = set()
        for folder in self.folders:
            with suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text().split()))
        # Version 2 writes 0 for those of another pid namespace, and kill takes 0 for all of ours.
        return sorted(found - {0})

    def remove(self) -> None:
        """End what is in the group, and the group. A group that stays is swept up later."""
        deadline = time.monotonic() + 5.0
        for folder in self.folders:
            while folder.exists():
                for pid in self.processes():
                    with suppress(ProcessLookupError):
                        os.kill(pid, 9)
                try:
                    folder.rmdir()
                except OSError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.002)
        self.folders = [folder for folder in self.folders if folder.exists()]


def sweep() -> None:
    """Remove the groups of those of our processes that were killed before they could: what was in
    them has ended since, for its zygote hears that nobody is there."""
    for parent in {folder for own in own_groups().values() for folder in (own, *own.parents)}:
        for folder in parent.glob(f"{_prefix()}*-*"):
            pid = folder.name.removeprefix(_prefix()).partition("-")[0]
            if pid.isdecimal() and not os.path.exists(f"/proc/{pid}"):
                with suppress(OSError):
                    folder.rmdir()


def _prefix() -> str:
    """How our groups' names begin. Process ids are told apart by their namespace: containers may
    share a tree."""
    return f"{_PREFIX}-{os.stat('/proc/self/ns/pid').st_ino}-"


def _giving(own: Path) -> Path:
    """The nearest group, from our own upwards, that hands memory and pids down to those below it.
    Version 2 lets no group do so that has processes itself. Raises ConfineError."""
    for folder in (own, *own.parents):
        control = folder / "cgroup.subtree_control"
        if not control.exists():
            break
        if {"memory", "pids"} <= set(control.read_text().split()) and os.access(folder, os.W_OK):
            return folder
    raise ConfineError("cgroup: version 2: no group above this process hands memory and pids down")


def own_groups(proc: str = "/proc/self") -> dict[str, Path]:
    """Controller -> the folder of the group this process is in; version 2's only tree is "".

    Version 1 where its memory controller is mounted, otherwise version 2.
    """
    mounted: dict[str, tuple[str, str]] = {}
    for line in Path(proc, "mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        root, point = left.split()[3:5]
        kind, _, options = right.split(maxsplit=2)
        place = re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), point)
        if kind == "cgroup2":
            mounted[""] = (root, place)
        elif kind == "cgroup":
            for option in options.split(","):
                mounted[option] = (root, place)
    groups = {}
    for line in Path(proc, "cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            if controller in mounted:
                root, place = mounted[controller]
                inner = os.path.relpath(path, root)
                # A tree that begins below our group shows no more than its beginning.
                groups[controller] = Path(place, "" if inner.startswith("..") else inner)
    if "memory" in groups:
        groups.pop("", None)
        return groups
    return {"": groups[""]} if "" in groups else {}


def _set(folder: Path, files: dict[str, str], values: dict[str, int]) -> None:
    for name, value in files.items():
        path = folder / name.rstrip("?")
        if name.endswith("?") and not path.exists():
            continue
        path.write_text(value.format(**values))
