"""A world of its own: users, processes, files, network, names and shared memory.

The file system is built from nothing: what a layout names is shown, read-only, and the machine's
own root is let go, so that no privilege won later finds a way back to it.
"""

from __future__ import annotations

import os
import signal
import stat
import struct
import sys
from collections.abc import MutableSequence
from typing import NoReturn

from qwen_eval.sandbox.kernel import (
    PR_SET_PDEATHSIG,
    ConfineError,
    call,
    libc,
    prctl,
    syscall,
)
from qwen_eval.sandbox.layout import PACKAGES, PYTHON, Layout
from qwen_eval.sandbox.privileges import assume

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 1 << 14, 1 << 18, 2
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_MOUNT_SETATTR = 428, 429, 442
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

# The new root is put together here, over a folder that every machine has.
_BUILDING_SITE = "/tmp"
_ROOT_OPTIONS = b"mode=755,size=1m,nr_inodes=2048"
# The one place a program may write to; it goes with the process.
PRIVATE = "/tmp"
_PRIVATE_OPTIONS = b"mode=1777,size=16m,nr_inodes=1024"
WORK_FOLDER = "/tmp/work"
_SHARED_MEMORY = "/tmp/shm"

_LAYER = "namespaces"


def enter(identities: list[int] | None, layout: Layout) -> int:
    """Leave this machine's world. Returns, in a forked child that is process 1 of the new one,
    a descriptor of its pid namespace. Raises ConfineError.

    `identities`: host identities to take, the first one now and the others as children choose;
    None keeps the caller's own. The process that called this never returns: it waits for the
    child and exits.
    """
    # Root alone may see all that is to be shown (a Python in a closed home), but gives that up;
    # an ordinary user may copy a mount only in a namespace of its own.
    copies = _copies(layout) if identities else {}
    if identities:
        _unshare_users(identities)
    else:
        own = (os.getuid(), os.getgid())
        call(f"{_LAYER}: user", libc.unshare, _NEWUSER)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{own[0]} {own[0]} 1"),
            ("gid_map", f"{own[1]} {own[1]} 1"),
        ):
            _write(f"/proc/self/{name}", text)
    call(
        f"{_LAYER}: mount, pid, network, ipc, uts",
        libc.unshare,
        _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET,
    )
    child = os.fork()
    if child:
        _supervise(child)
    prctl("parent death signal", PR_SET_PDEATHSIG, signal.SIGKILL)
    own_space = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    call(f"{_LAYER}: own names", libc.sethostname, b"sandbox", 7)
    call(f"{_LAYER}: private mounts", libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    _build_root(layout, copies or _copies(layout))
    return own_space


def fork_alone(own_space: int) -> int:
    """Fork a child that is process 1 of a new pid namespace; with it ends all that it started.
    Returns as os.fork does."""
    call(f"{_LAYER}: pid", libc.unshare, _NEWPID)
    child = os.fork()
    if child:
        call(f"{_LAYER}: back to the own pid", libc.setns, own_space, _NEWPID)
    return child


def own_folders() -> None:
    """Give this process an empty /tmp that no other sees. Needs privileges in the namespace."""
    call(f"{_LAYER}: mount", libc.unshare, _NEWNS)
    _mount_empty(PRIVATE, _PRIVATE_OPTIONS)
    for folder in (WORK_FOLDER, _SHARED_MEMORY):
        os.mkdir(folder)
        os.chmod(folder, 0o777)


def _unshare_users(identities: list[int]) -> None:
    """A user namespace owned by the first identity, in which all of them, and no root, exist."""
    told, unshared = os.pipe()
    own = os.getpid()
    helper = os.fork()
    if helper == 0:  # stays root, which alone may map more than one identity
        code = 1
        try:
            os.close(unshared)
            if not os.read(told, 1):
                os._exit(code)
            table = "".join(f"{identity} {identity} 1\n" for identity in identities)
            _write(f"/proc/{own}/uid_map", table)
            _write(f"/proc/{own}/gid_map", table)
            code = 0
        finally:
            os._exit(code)
    os.close(told)
    try:
        assume(identities[0])
        call(f"{_LAYER}: user", libc.unshare, _NEWUSER)
        os.write(unshared, b"x")
    finally:
        os.close(unshared)
        _, status = os.waitpid(helper, 0)
    if status:
        raise ConfineError(f"{_LAYER}: user: the identities could not be mapped")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, text.encode("ascii"))
    finally:
        os.close(fd)


def _supervise(child: int) -> NoReturn:
    """Wait for the child, with no hand on its pipes."""
    os.closerange(0, 1024)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _copies(layout: Layout) -> dict[str, int]:
    """Place -> a read-only copy of what is mounted at its source, not attached anywhere yet."""
    copies = {}
    for place, path in layout["shown"].items():
        flags = _OPEN_TREE_CLONE | _AT_RECURSIVE | os.O_CLOEXEC
        layer = f"{_LAYER}: {path} shown"
        copies[place] = syscall(layer, _SYS_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
        device = stat.S_ISCHR(os.stat(copies[place]).st_mode)
        attributes = _ATTR_RDONLY | _ATTR_NOSUID | (0 if device else _ATTR_NODEV)
        _set_attributes(copies[place], attributes, _AT_EMPTY_PATH | _AT_RECURSIVE)
    return copies


def _build_root(layout: Layout, copies: dict[str, int]) -> None:
    """Make a root folder of `layout` and empty places, move into it, let go of the old one."""
    os.umask(0o022)
    _mount_empty(_BUILDING_SITE, _ROOT_OPTIONS)
    os.mkdir(_BUILDING_SITE + PRIVATE)
    for place, copy in copies.items():
        _attach(copy, _BUILDING_SITE + place)
    for place, target in {**layout["links"], "/dev/shm": _SHARED_MEMORY}.items():
        os.symlink(target, _BUILDING_SITE + place)
    for place in layout["covered"]:
        _mount_empty(_BUILDING_SITE + place, b"mode=755,size=4k,nr_inodes=1", _MS_RDONLY)
    root = os.open(_BUILDING_SITE, os.O_PATH)
    _set_attributes(root, _ATTR_RDONLY, _AT_EMPTY_PATH)
    os.close(root)
    _pivot(_BUILDING_SITE)
    _move_paths(sys.path)
    sys.path.append(PACKAGES)
    for module in list(sys.modules.values()):
        if isinstance(getattr(module, "__path__", None), list):
            _move_paths(module.__path__)


def _mount_empty(place: str, options: bytes, more: int = 0) -> None:
    flags = _MS_NOSUID | _MS_NODEV | more
    target = os.fsencode(place)
    layer = f"{_LAYER}: empty folder {place}"
    call(layer, libc.mount, b"tmpfs", target, b"tmpfs", flags, options)


def _attach(copy: int, place: str) -> None:
    """Mount a copied folder, file or device at a place that is made for it."""
    folder = stat.S_ISDIR(os.stat(copy).st_mode)
    os.makedirs(place if folder else os.path.dirname(place), exist_ok=True)
    if not folder:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
    target, flags = os.fsencode(place), _MOVE_MOUNT_F_EMPTY_PATH
    layer = f"{_LAYER}: {place} shown"
    syscall(layer, _SYS_MOVE_MOUNT, copy, b"", _AT_FDCWD, target, flags)
    os.close(copy)


def _set_attributes(mount: int, attributes: int, flags: int) -> None:
    # struct mount_attr: attributes to set, to clear, propagation, user namespace.
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    layer = f"{_LAYER}: read-only"
    syscall(layer, _SYS_MOUNT_SETATTR, mount, b"", flags, wanted, len(wanted))


def _pivot(folder: str) -> None:
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise ConfineError(f"{_LAYER}: own root folder: not known how on {machine}")
    os.chdir(folder)
    # With both names the same, the old root lies over the new one and is the first to go.
    syscall(f"{_LAYER}: own root folder", _SYS_PIVOT_ROOT[machine], b".", b".")
    call(f"{_LAYER}: leaving the old root folder", libc.umount2, b".", _MNT_DETACH)
    os.chdir("/")


def _move_paths(paths: MutableSequence[str]) -> None:
    """The standard library may lie anywhere, even in a home: it is shown in one known place."""
    old = sys.base_prefix
    paths[:] = [PYTHON + path[len(old) :] if path.startswith(old) else path for path in paths]
