"""What a process gives up for good before it runs a line that is not ours."""

from __future__ import annotations

import os
import resource
import signal
import struct

from qwen_eval.sandbox.kernel import (
    PR_SET_DUMPABLE,
    PR_SET_NO_NEW_PRIVS,
    PR_SET_PDEATHSIG,
    ConfineError,
    call,
    libc,
    prctl,
)

_CAPABILITY_VERSION_3 = 0x20080522


def take(identity: int | None) -> None:
    """Become `identity` (None: stay who one is) and drop every capability. Raises ConfineError
    where the kernel would still see root."""
    if identity is not None:
        assume(identity)
    if 0 in os.getresuid():
        raise ConfineError("identity: still root")
    prctl("no new privileges", PR_SET_NO_NEW_PRIVS, 1)
    header, nothing = struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), bytes(24)
    call("capabilities", libc.capset, header, nothing)
    # A change of identity clears the death signal.
    prctl("parent death signal", PR_SET_PDEATHSIG, signal.SIGKILL)
    prctl("not dumpable", PR_SET_DUMPABLE, 0)
    os.umask(0o077)


def assume(identity: int) -> None:
    """Become that user and group, with no other groups. Raises ConfineError."""
    try:
        os.setgroups([])
        os.setresgid(identity, identity, identity)
        os.setresuid(identity, identity, identity)
    except OSError as error:
        raise ConfineError(f"identity: {str(error.strerror).lower()}") from None


def limit(limits: dict[str, int]) -> None:
    """Set rlimits by name, hard and soft. Raises ConfineError, ValueError, OSError."""
    for name, wanted in limits.items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(kind, (value, value))
        if resource.getrlimit(kind) != (value, value):
            raise ConfineError(f"rlimits: {name} was not set")
