"""What a contained process does to itself before it runs a line that is not ours.

Order matters: namespaces and mounts need privileges, so they come first; then a fork, whose child
is process 1 of its own pid namespace (when it ends, everything it started ends); that child gives
up its identity, its privileges and most of its resources for good.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import MutableSequence
from typing import Any, NoReturn

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_MS_NOSUID, _MS_NODEV, _MS_BIND, _MS_REC, _MS_PRIVATE = 2, 4, 1 << 12, 1 << 14, 1 << 18
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY, _ATTR_NOSUID = 442, -100, 0x8000, 1, 2
_CAPABILITY_VERSION_3 = 0x20080522

# Empty places of its own that hide the machine's; what is written there is gone with the process.
_PRIVATE = ("/tmp", "/var/tmp", "/dev/shm", "/run", "/sys", "/proc")
_PRIVATE_OPTIONS = b"mode=1777,size=16m,nr_inodes=1024"
WORK_FOLDER = "/tmp/work"
_PYTHON = "/tmp/python"

_libc = ctypes.CDLL(None, use_errno=True)


class ConfineError(Exception):
    """A layer could not be put up; names it."""


def enter(uid: int | None, parent: int) -> None:
    """Put up the namespaces and return in a forked child that is alone in them.

    `uid`: the identity that `give_up` will take, None for the caller's own (an ordinary user,
    who then gets a user namespace). `parent`: the pid that started this process; when it dies,
    everything here dies. The process that called this never returns: it waits for the child and
    exits with 128 + the signal that ended it, or with its exit code.
    """
    _call("parent death signal", _libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    own = (os.getuid(), os.getgid())
    user = _NEWUSER if uid is None else 0
    spaces = user | _NEWNS | _NEWUTS | _NEWIPC | _NEWPID | _NEWNET
    _call("namespaces", _libc.unshare, spaces)
    if user:
        _map_identity(*own)
    _hide_filesystem()
    child = os.fork()
    if child:
        _supervise(child)
    _call("parent death signal", _libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def give_up(uid: int | None, limits: dict[str, int]) -> None:
    """Become `uid`, drop every capability for good and set the rlimits. Raises ConfineError."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if os.getuid() == 0:
        raise ConfineError("still root")
    _call("no new privileges", _libc.prctl, _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    header, nothing = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    _call("capabilities", _libc.capset, header, nothing)
    for name, wanted in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
    # A change of identity clears the death signal: ask again.
    _call("parent death signal", _libc.prctl, _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    _call("not dumpable", _libc.prctl, _PR_SET_DUMPABLE, 0, 0, 0, 0)
    os.umask(0o077)
    os.chdir(WORK_FOLDER)


def _map_identity(uid: int, gid: int) -> None:
    for path, text in (
        ("/proc/self/setgroups", "deny"),
        ("/proc/self/uid_map", f"{uid} {uid} 1"),
        ("/proc/self/gid_map", f"{gid} {gid} 1"),
    ):
        with open(path, "w", encoding="ascii") as file:
            file.write(text)


def _hide_filesystem() -> None:
    _call("private mounts", _libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    # struct mount_attr: attributes to set, to clear, propagation, user namespace.
    attributes = struct.pack("=QQQQ", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0)
    _call(
        "read-only file system",
        _libc.syscall,
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        b"/",
        ctypes.c_uint(_AT_RECURSIVE),
        attributes,
        ctypes.c_size_t(len(attributes)),
    )
    python = os.open(sys.base_prefix, os.O_PATH)
    for place in _PRIVATE:
        if place == "/proc":  # the last one: the way to the open folder leads through it
            _show_python(python)
        if os.path.isdir(place):
            flags, options = _MS_NOSUID | _MS_NODEV, _PRIVATE_OPTIONS
            _call(f"own {place}", _libc.mount, b"tmpfs", place.encode(), b"tmpfs", flags, options)
    os.close(python)


def _show_python(folder: int) -> None:
    """The standard library may lie where only its owner can read (a home): show it elsewhere."""
    os.umask(0)
    os.mkdir(_PYTHON, 0o755)
    os.mkdir(WORK_FOLDER, 0o777)
    source, flags = f"/proc/self/fd/{folder}".encode(), _MS_BIND | _MS_REC
    _call("python's library", _libc.mount, source, _PYTHON.encode(), None, flags, None)
    _move_paths(sys.path)
    for module in list(sys.modules.values()):
        if isinstance(getattr(module, "__path__", None), list):
            _move_paths(module.__path__)


def _move_paths(paths: MutableSequence[str]) -> None:
    old = sys.base_prefix
    paths[:] = [_PYTHON + path[len(old) :] if path.startswith(old) else path for path in paths]


def _supervise(child: int) -> NoReturn:
    """Wait for the child, with no hand on its pipes; SIGTERM ends it and still counts its time."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    os.closerange(0, 1024)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    os._exit(code if code >= 0 else 128 - code)


def _call(layer: str, function: Any, *arguments: Any) -> None:
    if function(*arguments) != 0:
        error = os.strerror(ctypes.get_errno())
        raise ConfineError(f"{layer}: {error.lower()}") from None


def hide_import_path(root: str) -> None:
    """Take this package's folder off the import path: a program sees the standard library."""
    sys.path[:] = [entry for entry in sys.path if entry != root]
