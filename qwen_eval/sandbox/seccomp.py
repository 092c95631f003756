"""Which system calls a contained process may make: a filter that the kernel runs before each.

An allow-list: what a Python program needs that computes, keeps files in its folder and runs
threads. A call that is not on it fails as one that this kernel does not have (ENOSYS), so that C
libraries take their older way, or as one that is not permitted (EPERM), where a program should be
told. Calls in another machine's convention end the process.

A filter sees numbers and arguments, never what a pointer leads to. The kernel keeps the verdict
of each call that is allowed whatever its arguments, so those cost nothing.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from functools import cache

from qwen_eval.sandbox.kernel import ConfineError, syscall
from qwen_eval.sandbox.layers import Profile
from qwen_eval.sandbox.syscalls import MACHINES, numbers

Instruction = tuple[int, int, int, int]
"""code, instructions to skip if the test holds, and if not, constant"""
Code = tuple[Instruction, ...]

_LOAD, _RETURN, _SKIP = 0x20, 0x06, 0x05
_EQUAL, _AT_LEAST, _ANY_BIT = 0x15, 0x35, 0x45
_LONGEST_SKIP = 255
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data

ALLOW: Instruction = (_RETURN, 0, 0, 0x7FFF0000)
KILL: Instruction = (_RETURN, 0, 0, 0x80000000)
MISSING: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.ENOSYS)
REFUSE: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.EPERM)
NO_TERMINAL: Instruction = (_RETURN, 0, 0, 0x00050000 | errno.ENOTTY)

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# From here on x86_64 has numbers of its 32-bit pointers' convention (x32).
_X32 = 0x40000000
# Stands for the process's own id until `program` knows it.
_OWN_PID = -1


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ALLOWED = _names("""
    read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2 lseek sendfile
    copy_file_range open openat openat2 creat close close_range dup dup2 dup3 pipe pipe2 flock
    stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2 umask
    truncate ftruncate fallocate fadvise64 fsync fdatasync getdents getdents64 getcwd chdir fchdir
    rename renameat renameat2 mkdir mkdirat rmdir link linkat unlink unlinkat symlink symlinkat
    readlink readlinkat getxattr lgetxattr fgetxattr listxattr llistxattr flistxattr
    poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
    epoll_pwait2 eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime
    recvfrom recvmsg shutdown getsockname getpeername getsockopt
    mmap munmap mprotect mremap msync mincore madvise brk getrandom
    exit exit_group futex set_robust_list set_tid_address rseq membarrier wait4 waitid
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend
    sigaltstack pause restart_syscall
    time gettimeofday clock_gettime clock_getres nanosleep clock_nanosleep times alarm getitimer
    setitimer
    getpid gettid getppid getpgrp getpgid getsid getuid geteuid getgid getegid getresuid getresgid
    getgroups uname sysinfo getrusage getrlimit setrlimit getpriority getcpu sched_yield
    sched_getaffinity sched_getparam sched_getscheduler sched_getattr sched_get_priority_max
    sched_get_priority_min sched_rr_get_interval
""")
# What Python's own modules offer: here a program is told that it may not, rather than that the
# kernel cannot. Modes, times and owners of files are refused because Landlock does not guard them.
REFUSED = _names("""
    fork vfork execve kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo setpgid setsid
    socket connect bind listen accept setsockopt unshare chroot sync
    chmod fchmod fchmodat chown fchown lchown fchownat utime utimes futimesat utimensat
    setxattr lsetxattr fsetxattr removexattr lremovexattr fremovexattr mknod mknodat
    setuid setgid setreuid setregid setresuid setresgid setfsuid setfsgid setgroups
    setpriority sched_setaffinity sched_setparam sched_setscheduler
""")
# In a pid namespace of its own a process may have children, group them and signal them: they all
# end with the namespace.
_SIGNALS = _names("kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo")
_FAMILY = _SIGNALS | {"fork", "vfork", "setpgid", "setsid"}
# A compiler starts others, and a linker makes its file executable. All that can be started is in
# the namespace's own root; all whose mode can be changed is in a folder of the program's own.
_STARTS = _names("execve chmod fchmod fchmodat")

# CLONE_NEW*: mount, cgroup, uts, ipc, user, pid and net namespaces.
_NEW_NAMESPACES = 0x7E020000
_THREAD = 0x00010000
_TERMINAL_AND_FILE_REQUESTS = (
    *(0x5401, 0x5413),  # TCGETS (isatty), TIOCGWINSZ
    *(0x541B, 0x5421, 0x5450, 0x5451),  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
)
# F_DUPFD to F_SETLKW, locks of open files, F_DUPFD_CLOEXEC, F_GETPIPE_SZ. Not F_SETOWN and
# F_SETSIG, which have the kernel send a signal to any process of the same user.
_FILE_COMMANDS = (*range(8), 36, 37, 38, 1030, 1032)
# PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_SET_VMA. Not the parent's death signal.
_PROCESS_OPTIONS = (3, 15, 16, 0x53564D41)
# ARCH_SET_FS: where x86_64 keeps what belongs to a thread, which a program sets as it starts.
_SET_FS = 0x1002
_UNIX, _OUT_OF_BAND = 1, 1
# SOCK_STREAM is 1, and every other kind has one of these bits. A datagram's end could be sent
# from to any socket with a name.
_OTHER_KINDS = 0xE


@cache
def program(profile: Profile, machine: str, own_pid: int) -> bytes:
    """The filter as an array of struct sock_filter, for `load`.

    `machine`: as os.uname() names it. `own_pid`: of the process that will load it. Raises
    ConfineError where there is no table for `machine`.
    """
    code = _code(profile, machine)
    values = (own_pid if value == _OWN_PID else value for line in code for value in line)
    return struct.pack("<" + "HBBI" * len(code), *values)


def load(filter: bytes) -> None:
    """Put the calling thread and all it starts under `filter`, for good. Raises ConfineError.

    The last layer to go up: it refuses the calls that put up the others. The process must have
    given up new privileges before.
    """
    machine = os.uname().machine
    if machine not in MACHINES:
        raise ConfineError(f"seccomp: no table for {machine}")
    lines = ctypes.create_string_buffer(filter, len(filter))
    sock_fprog = struct.pack("@HP", len(filter) // 8, ctypes.addressof(lines))
    number, set_mode_filter = numbers(machine)["seccomp"], 1
    syscall("seccomp", number, set_mode_filter, 0, sock_fprog)


@cache
def _code(profile: Profile, machine: str) -> Code:
    if machine not in MACHINES:
        raise ConfineError(f"seccomp: no table for {machine}")
    table = numbers(machine)
    answers: dict[str, Code] = dict.fromkeys(REFUSED, (REFUSE,))
    answers |= dict.fromkeys(ALLOWED, (ALLOW,))
    answers |= _checks(profile)
    if profile != "score":
        answers |= dict.fromkeys(_FAMILY, (ALLOW,))
    if profile == "toolchain":
        answers |= dict.fromkeys(_STARTS, (ALLOW,))
    ranges = _ranges({table[name]: answer for name, answer in answers.items() if name in table})
    if machine == "x86_64":
        ranges.append((_X32, (KILL,)))
    search: list[Instruction] = []
    _search(ranges, search, {})
    return (
        (_LOAD, 0, 0, _ARCHITECTURE),
        (_EQUAL, 1, 0, _AUDIT_ARCHITECTURES[machine]),
        KILL,
        (_LOAD, 0, 0, _NUMBER),
        *reversed(search),
    )


def _checks(profile: Profile) -> dict[str, Code]:
    """The calls whose arguments decide.

    Where the kernel takes an argument as an int, the low word is all of it: what a caller leaves
    in the high word is noise, and must not make a difference.
    """
    thread = [(_low(0), _ANY_BIT, _THREAD, True)] if profile == "score" else []
    itself = _one_of(0, (_OWN_PID,), REFUSE)
    # Among several processes only one's own limits are one's own: the filter was made for another.
    limited = (0,) if profile == "toolchain" else (0, _OWN_PID)
    no_urgent_data = (_ANY_BIT, _OUT_OF_BAND, False)
    started = {"arch_prctl": _one_of(0, (_SET_FS,), MISSING)} if profile == "toolchain" else {}
    return started | {
        "clone": _all_of(
            (_high(0), _EQUAL, 0, True), (_low(0), _ANY_BIT, _NEW_NAMESPACES, False), *thread
        ),
        **dict.fromkeys(_SIGNALS, itself),
        "prlimit64": _one_of(0, limited, REFUSE),
        "ioctl": _one_of(1, _TERMINAL_AND_FILE_REQUESTS, NO_TERMINAL),
        "fcntl": _one_of(1, _FILE_COMMANDS, REFUSE),
        "prctl": _one_of(0, _PROCESS_OPTIONS, REFUSE),
        "socketpair": _all_of(
            (_low(0), _EQUAL, _UNIX, True), (_low(1), _ANY_BIT, _OTHER_KINDS, False)
        ),
        # A seldom used corner of Unix sockets, with a history of faults in the kernel.
        "sendto": _all_of((_low(3), *no_urgent_data)),
        "sendmsg": _all_of((_low(2), *no_urgent_data)),
    }


def _low(argument: int) -> int:
    """Offset of an argument's low word; both machines are little-endian."""
    return _ARGUMENTS + 8 * argument


def _high(argument: int) -> int:
    return _low(argument) + 4


def _one_of(argument: int, values: tuple[int, ...], otherwise: Instruction) -> Code:
    """Allow the call if the argument's low word is one of `values`."""
    tests = [(_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
    return ((_LOAD, 0, 0, _low(argument)), *tests, otherwise, ALLOW)


def _all_of(*tests: tuple[int, int, int, bool]) -> Code:
    """Allow the call if every test (offset of a word, code, constant) has the wanted outcome."""
    code: list[Instruction] = []
    for place, (offset, test, value, wanted) in enumerate(tests):
        to_refusal = 2 * (len(tests) - 1 - place) + 1
        skips = (0, to_refusal) if wanted else (to_refusal, 0)
        code += [(_LOAD, 0, 0, offset), (test, *skips, value)]
    return (*code, ALLOW, REFUSE)


def _ranges(answers: dict[int, Code]) -> list[tuple[int, Code]]:
    """Answers by number, as (first number, answer) of each range that shares one."""
    ranges: list[tuple[int, Code]] = []
    for number in range(max(answers) + 2):
        answer = answers.get(number, (MISSING,))
        if not ranges or answer != ranges[-1][1]:
            ranges.append((number, answer))
    return ranges


def _search(ranges: list[tuple[int, Code]], tail: list[Instruction], known: dict[Code, int]) -> int:
    """Find the range of the loaded number by halving, and give its answer.

    A filter only skips forward, by 255 instructions at most where it tests, so it is built from
    its end: `tail` is what follows, last instruction first, and grows. A place in it is the
    number of instructions from there to the end: returned is where the search starts, and in
    `known` where each answer does, which thus stands there once.
    """
    if len(ranges) == 1:
        answer = ranges[0][1]
        if answer not in known:
            tail.extend(reversed(answer))
            known[answer] = len(tail)
        return known[answer]
    middle = len(ranges) // 2
    above = _search(ranges[middle:], tail, known)
    below = _search(ranges[:middle], tail, known)
    above, below = _within_reach(above, tail), _within_reach(below, tail)
    tail.append((_AT_LEAST, len(tail) - above, len(tail) - below, ranges[middle][0]))
    return len(tail)


def _within_reach(place: int, tail: list[Instruction]) -> int:
    """A place that two more instructions can skip to, and that leads to `place`."""
    if len(tail) + 1 - place > _LONGEST_SKIP:
        tail.append((_SKIP, 0, 0, len(tail) - place))
        return len(tail)
    return place
