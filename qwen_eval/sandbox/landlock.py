"""Landlock: a process gives up, for itself and all it starts, what it was not granted.

Rights, structures and the versions that know them: linux/landlock.h and Documentation/
userspace-api/landlock.rst. Needs no privilege and no namespace. It does not limit stat, chmod,
chown or utime (seccomp does).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from qwen_eval.sandbox.kernel import libc, syscall

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_RULESET_VERSION, _RULE_PATH_BENEATH = 1, 1

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE, _MAKE_DIR, _MAKE_REG, _MAKE_SYM = 1 << 4, 1 << 5, 1 << 7, 1 << 8, 1 << 12
_REFER, _TRUNCATE = 1 << 13, 1 << 14
_READ = _READ_FILE | _READ_DIR
_WRITE = _READ | _WRITE_FILE | _TRUNCATE | _REFER | _MAKE_SYM
_WRITE |= _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE
# Version -> all rights over files that it knows; a version without a line knows no more.
_KNOWN = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_SINCE, _TCP = 4, 3
_SCOPES_SINCE, _SCOPES = 6, 3


def version() -> int:
    """The kernel's Landlock version, 0 where it has none or it is switched off."""
    return max(int(libc.syscall(_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)), 0)


def ruleset(readable: Iterable[str], writable: Iterable[str], *, execute: bool = False) -> int:
    """A descriptor of: those paths and what is below them, no TCP, and (from version 6 on) no
    signal to and no abstract socket of a process outside. Executing is granted there if `execute`,
    otherwise nowhere, and making devices, sockets and named pipes never. Raises ConfineError,
    OSError."""
    known = version()
    handled = max(rights for since, rights in _KNOWN.items() if since <= max(known, 1))
    tcp = _TCP if known >= _TCP_SINCE else 0
    scopes = _SCOPES if known >= _SCOPES_SINCE else 0
    # struct landlock_ruleset_attr grew with the versions: older kernels know its beginning.
    attributes = struct.pack("=QQQ", handled, tcp, scopes)
    size = 24 if scopes else 16 if tcp else 8
    rules = syscall("landlock", _CREATE_RULESET, attributes, size, 0)
    more = _EXECUTE if execute else 0
    try:
        for rights, paths in ((_READ, readable), (_WRITE, writable)):
            for path in paths:
                _grant(rules, path, (rights | more) & handled)
    except BaseException:
        os.close(rules)
        raise
    return rules


def restrict(rules: int) -> None:
    """Keep this process, and all it starts, to a ruleset for good. Needs no_new_privs."""
    syscall("landlock", _RESTRICT_SELF, rules, 0)


def _grant(rules: int, path: str, rights: int) -> None:
    fd = os.open(path, os.O_PATH)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISCHR(mode) or path == "/dev":
            rights |= _WRITE_FILE  # nothing is kept there
        if not stat.S_ISDIR(mode):
            rights &= _OF_FILES
        rule = struct.pack("=Qi", rights, fd)
        syscall(f"landlock: {path}", _ADD_RULE, rules, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(fd)
