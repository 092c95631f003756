"""The kernel's own calls, of which Python's `os` knows only some; a failure names its layer."""

from __future__ import annotations

import ctypes
import os
from typing import Any

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NO_NEW_PRIVS = 1, 4, 38

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
# Looked up once, here, and not in every child that is forked. Other systems have none of them.
for _name in ("capset", "mount", "prctl", "setns", "umount2", "unshare"):
    getattr(libc, _name, None)


class ConfineError(Exception):
    """A layer could not be put up; the message begins with the layer's name and a colon."""


def call(layer: str, function: Any, *arguments: Any) -> int:
    """What a C function returned. Raises ConfineError where that is below zero."""
    result = int(function(*arguments))
    if result < 0:
        raise ConfineError(f"{layer}: {os.strerror(ctypes.get_errno()).lower()}")
    return result


def syscall(layer: str, number: int, *arguments: Any) -> int:
    """A system call by its number; whole numbers are passed at full width."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return call(layer, libc.syscall, ctypes.c_long(number), *wide)


def prctl(layer: str, option: int, value: int = 0) -> int:
    """prctl(2) with one argument."""
    return call(layer, libc.prctl, option, ctypes.c_ulong(value), 0, 0, 0)
