"""What a contained process does to itself before it runs a line that is not ours.

Order matters: namespaces and mounts need privileges, so they come first; then a fork, whose child
is process 1 of its own pid namespace (when it ends, everything it started ends); that child gives
up its identity, its privileges and most of its resources for good.

The file system is built from nothing: what `layout` names is shown, read-only, and the machine's
own root is let go, so that no privilege won later finds a way back to it.
"""

from __future__ import annotations

import ctypes
import glob
import os
import resource
import signal
import stat
import struct
import sys
from collections.abc import MutableSequence
from typing import Any, NoReturn, TypedDict

_NEWNS, _NEWUTS, _NEWIPC, _NEWUSER = 0x00020000, 0x04000000, 0x08000000, 0x10000000
_NEWPID, _NEWNET = 0x20000000, 0x40000000
_MS_RDONLY, _MS_NOSUID, _MS_NODEV = 1, 2, 4
_MS_BIND, _MS_REC, _MS_PRIVATE, _MNT_DETACH = 1 << 12, 1 << 14, 1 << 18, 2
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_SYS_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE = 442, -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_CAPABILITY_VERSION_3 = 0x20080522

# The new root is put together here, over a folder that every machine has.
_BUILDING_SITE = "/tmp"
_ROOT_OPTIONS = b"mode=755,size=1m,nr_inodes=256"
# Empty places a program may write to (semaphores need /dev/shm); they go with the process.
_PRIVATE = ("/tmp", "/dev/shm")
_PRIVATE_OPTIONS = b"mode=1777,size=16m,nr_inodes=1024"
WORK_FOLDER = "/tmp/work"
_PYTHON = "/tmp/python"
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_ZONES = "/usr/share/zoneinfo"

_libc = ctypes.CDLL(None, use_errno=True)


class ConfineError(Exception):
    """A layer could not be put up; names it."""


class Layout(TypedDict):
    """A program's file system, as far as it shows this machine's: plain data, place by place."""

    shown: dict[str, str]
    """place -> the folder or device of this machine that is seen there, read-only"""
    links: dict[str, str]
    """place -> where that symbolic link leads"""
    covered: list[str]
    """folders inside `shown` that look empty: where packages are installed"""


def layout() -> Layout:
    """The standard library, the shared libraries its extension modules load, and no package.

    Reads folders with thousands of entries: make it once, not for each program.
    """
    shown = {place: place for place in (*_DEVICES, _ZONES) if os.path.exists(place)}
    links = {}
    for folder in _library_folders():
        top = "/" + folder.split("/")[1]
        if os.path.islink(top):
            links[top] = os.readlink(top)
        elif os.path.isdir(folder):
            shown[folder] = folder
    # Nothing else of the prefix: conda keeps other environments there, /usr keeps everything.
    prefix = sys.base_prefix
    parts = [f"{prefix}/{name}" for name in {"lib", sys.platlibdir}]
    if prefix == "/usr":
        parts = [os.path.dirname(os.__file__)]
    for folder in filter(os.path.isdir, parts):
        shown[_PYTHON + folder[len(prefix) :]] = folder
    # site-packages and dist-packages, of this Python and of all others that share the folder.
    covered = [
        place + found[len(folder) :]
        for place, folder in shown.items()
        for level in ("", "python*/")
        for found in glob.glob(f"{glob.escape(folder)}/{level}*-packages")
        if os.path.isdir(found) and not os.path.islink(found)
    ]
    return {"shown": shown, "links": links, "covered": covered}


def _library_folders() -> tuple[str, ...]:
    """The loader's own folders: as Debian, as Fedora, or as all others have them."""
    triplet = f"{os.uname().machine}-linux-gnu"
    if os.path.isdir(f"/usr/lib/{triplet}"):
        return f"/usr/lib/{triplet}", f"/lib/{triplet}"
    if os.path.exists("/usr/lib64/libc.so.6") and not os.path.islink("/usr/lib64"):
        return "/usr/lib64", "/lib64"
    return "/usr/lib", "/lib"


def enter(uid: int | None, parent: int, layout: Layout) -> None:
    """Put up the namespaces and return in a forked child that is alone in them.

    `uid`: the identity that `give_up` will take, None for the caller's own (an ordinary user,
    who then gets a user namespace). `parent`: the pid that started this process; when it dies,
    everything here dies. `layout`: all that is seen of the machine's files. The process that
    called this never returns: it waits for the child and exits with 128 + the signal that ended
    it, or with its exit code.
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
    _build_root(layout)
    # Until the supervisor can pass it on, a SIGTERM would leave the child without one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = os.fork()
    if child:
        _supervise(child)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
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


def _build_root(layout: Layout) -> None:
    """Make a root folder of `layout` and empty places, move into it, let go of the old one."""
    os.umask(0o022)
    _call("private mounts", _libc.mount, b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    # Opened before anything is covered, for they may lie under the building site.
    sources = {place: os.open(path, os.O_PATH) for place, path in layout["shown"].items()}
    _mount_empty(_BUILDING_SITE, _ROOT_OPTIONS)
    for place in _PRIVATE:
        os.makedirs(_BUILDING_SITE + place)
        _mount_empty(_BUILDING_SITE + place, _PRIVATE_OPTIONS)
    os.mkdir(_BUILDING_SITE + WORK_FOLDER)
    os.chmod(_BUILDING_SITE + WORK_FOLDER, 0o777)
    for place, source in sources.items():
        _show(source, _BUILDING_SITE + place)
        os.close(source)
    for place, target in layout["links"].items():
        os.symlink(target, _BUILDING_SITE + place)
    for place in layout["covered"]:
        _mount_empty(_BUILDING_SITE + place, b"mode=755,size=4k,nr_inodes=1", _MS_RDONLY)
    _set_attributes(_BUILDING_SITE, _ATTR_RDONLY)
    _pivot(_BUILDING_SITE)
    _move_paths(sys.path)
    for module in list(sys.modules.values()):
        if isinstance(getattr(module, "__path__", None), list):
            _move_paths(module.__path__)


def _mount_empty(place: str, options: bytes, more: int = 0) -> None:
    flags = _MS_NOSUID | _MS_NODEV | more
    target = os.fsencode(place)
    _call(f"empty folder {place}", _libc.mount, b"tmpfs", target, b"tmpfs", flags, options)


def _show(source: int, place: str) -> None:
    """Bind an open folder or device, read-only with all that is mounted below it."""
    folder = stat.S_ISDIR(os.stat(source).st_mode)
    os.makedirs(place if folder else os.path.dirname(place), exist_ok=True)
    if not folder:
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY))
    origin, target = f"/proc/self/fd/{source}".encode(), os.fsencode(place)
    _call(f"{place} shown", _libc.mount, origin, target, None, _MS_BIND | _MS_REC, None)
    more = _ATTR_NODEV if folder else 0
    _set_attributes(place, _ATTR_RDONLY | _ATTR_NOSUID | more, _AT_RECURSIVE)


def _set_attributes(place: str, attributes: int, flags: int = 0) -> None:
    # struct mount_attr: attributes to set, to clear, propagation, user namespace.
    wanted = struct.pack("=QQQQ", attributes, 0, 0, 0)
    _call(
        f"{place} read-only",
        _libc.syscall,
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(place),
        ctypes.c_uint(flags),
        wanted,
        ctypes.c_size_t(len(wanted)),
    )


def _pivot(folder: str) -> None:
    machine = os.uname().machine
    if machine not in _SYS_PIVOT_ROOT:
        raise ConfineError(f"own root folder: not known how on {machine}")
    number = ctypes.c_long(_SYS_PIVOT_ROOT[machine])
    os.chdir(folder)
    # With both names the same, the old root lies over the new one and is the first to go.
    _call("own root folder", _libc.syscall, number, b".", b".")
    _call("leaving the old root folder", _libc.umount2, b".", _MNT_DETACH)
    os.chdir("/")


def _move_paths(paths: MutableSequence[str]) -> None:
    """The standard library may lie anywhere, even in a home: it is shown in one known place."""
    old = sys.base_prefix
    paths[:] = [_PYTHON + path[len(old) :] if path.startswith(old) else path for path in paths]


def _supervise(child: int) -> NoReturn:
    """Wait for the child, with no hand on its pipes; SIGTERM ends it and still counts its time."""
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
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
