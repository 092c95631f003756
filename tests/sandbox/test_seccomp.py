"""The filter as a program: every number and argument against the policy in plain Python.

The filter is run by an interpreter of its own here, after the kernel's description of classic
BPF; the numbers and constants are compared with the kernel's headers.
"""

from __future__ import annotations

import errno
import fcntl
import itertools
import re
import socket
import struct
import termios
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.layers import Profile
from qwen_eval.sandbox.seccomp import ALLOWED, REFUSED, program
from qwen_eval.sandbox.syscalls import MACHINES, numbers

PROFILES = get_args(Profile)
BOTH = [(profile, machine) for profile in PROFILES for machine in sorted(MACHINES)]
OWN_PID = 4321
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}
FLAGS = {
    "CLONE_VM": 0x100,
    "CLONE_SIGHAND": 0x800,
    "CLONE_THREAD": 0x10000,
    "CLONE_NEWNS": 0x20000,
    "CLONE_NEWCGROUP": 0x02000000,
    "CLONE_NEWUTS": 0x04000000,
    "CLONE_NEWIPC": 0x08000000,
    "CLONE_NEWUSER": 0x10000000,
    "CLONE_NEWPID": 0x20000000,
    "CLONE_NEWNET": 0x40000000,
}
NAMESPACES = [value for name, value in FLAGS.items() if "_NEW" in name]
OPTIONS = {
    "PR_GET_DUMPABLE": 3,
    "PR_SET_NAME": 15,
    "PR_GET_NAME": 16,
    "PR_SET_VMA": 0x53564D41,
}
GENERIC = Path("/usr/include/asm-generic/unistd.h")
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": GENERIC,
}
FAMILY = {"fork", "vfork", "setpgid", "setsid"}
STARTS = {"execve", "chmod", "fchmod", "fchmodat"}
SIGNALS = {"kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo"}
MORE = {
    "score": set[str](),
    "interpreter": SIGNALS | FAMILY,
    "toolchain": SIGNALS | FAMILY | STARTS,
}
# What gives a way out, or a way into the kernel, whatever the arguments.
NEVER = re.findall(
    r"\w+",
    """
    execve execveat socket connect bind listen accept accept4 setsockopt sendmmsg
    ptrace process_vm_readv process_vm_writev process_madvise kcmp pidfd_open pidfd_getfd
    pidfd_send_signal clone3 unshare setns mount umount2 pivot_root chroot open_tree move_mount
    fsopen fsconfig fsmount fspick mount_setattr name_to_handle_at open_by_handle_at
    bpf perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register io_setup
    io_submit keyctl add_key request_key memfd_create memfd_secret vmsplice splice tee
    shmget shmat msgget semget mq_open mq_notify fanotify_init inotify_init1 seccomp
    fchmod fchmodat fchown fchownat utimensat setxattr fsetxattr removexattr mknodat
    setuid setgid setresuid setresgid setgroups setfsuid capset setpriority sched_setaffinity
    sched_setscheduler sched_setparam sched_setattr ioprio_set personality quotactl
    swapon reboot init_module finit_module delete_module kexec_load kexec_file_load syslog
    settimeofday clock_settime adjtimex clock_adjtime acct sync syncfs move_pages migrate_pages
    timer_create process_mrelease
    """,
)


@cache
def _lines(code: bytes) -> list[tuple[int, ...]]:
    return list(struct.iter_unpack("<HBBI", code))


def run(code: bytes, number: int, architecture: int, arguments: tuple[int, ...] = ()) -> int:
    """What a filter answers: classic BPF, as far as a filter of calls needs it."""
    six = (*arguments, *[0] * (6 - len(arguments)))
    data = struct.pack("<IIQ6Q", number, architecture, 0, *six)
    lines = _lines(code)
    accumulator, place = 0, 0
    while True:
        kind, yes, no, value = lines[place]
        place += 1
        match kind:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (accumulator,) = struct.unpack_from("<I", data, value)
            case 0x05:  # BPF_JMP | BPF_JA
                place += value
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                place += yes if accumulator == value else no
            case 0x35:  # BPF_JMP | BPF_JGE | BPF_K
                place += yes if accumulator >= value else no
            case 0x45:  # BPF_JMP | BPF_JSET | BPF_K
                place += yes if accumulator & value else no
            case 0x06:  # BPF_RET | BPF_K
                return value
            case _:
                raise AssertionError(f"unknown instruction {kind:#x}")


def policy(profile: str, name: str | None, arguments: tuple[int, ...]) -> int:
    """The answer that a call should have; `name` None: a number without one."""
    refused, words = ERRNO | errno.EPERM, [value & 0xFFFFFFFF for value in arguments]
    if name in MORE[profile]:
        return ALLOW
    match name:
        case "clone":
            fits = arguments[0] >> 32 == 0 and not any(arguments[0] & new for new in NAMESPACES)
            fits &= profile != "score" or bool(arguments[0] & FLAGS["CLONE_THREAD"])
        case "kill" | "tkill" | "tgkill" | "rt_sigqueueinfo" | "rt_tgsigqueueinfo":
            fits = words[0] == OWN_PID
        case "prlimit64":
            fits = words[0] == 0 or (profile != "toolchain" and words[0] == OWN_PID)
        case "arch_prctl" if profile == "toolchain":
            fits, refused = words[0] == 0x1002, ERRNO | errno.ENOSYS  # ARCH_SET_FS
        case "ioctl":
            fits = words[1] in {
                *(termios.TCGETS, termios.TIOCGWINSZ, termios.FIONREAD, termios.FIONBIO),
                *(termios.FIONCLEX, termios.FIOCLEX),
            }
            refused = ERRNO | errno.ENOTTY
        case "fcntl":
            fits = words[1] in {
                *(fcntl.F_DUPFD, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_GETFL, fcntl.F_SETFL),
                *(fcntl.F_GETLK, fcntl.F_SETLK, fcntl.F_SETLKW, fcntl.F_OFD_GETLK),
                *(fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW, fcntl.F_DUPFD_CLOEXEC, 1032),
            }
        case "prctl":
            fits = words[0] in OPTIONS.values()
        case "socketpair":
            # 0 is no kind of socket; the kernel says so.
            kind = words[1] & 0xF & ~socket.SOCK_STREAM
            fits = words[0] == socket.AF_UNIX and kind == 0
        case "sendto":
            fits = not words[3] & socket.MSG_OOB
        case "sendmsg":
            fits = not words[2] & socket.MSG_OOB
        case _ if name in ALLOWED:
            fits = True
        case _ if name in REFUSED:
            fits = False
        case _:
            fits, refused = False, ERRNO | errno.ENOSYS
    return ALLOW if fits else refused


@pytest.mark.parametrize(("profile", "machine"), BOTH)
def test_every_number_is_answered_by_the_policy(profile: Profile, machine: str) -> None:
    code = program(profile, machine, OWN_PID)
    names = {number: name for name, number in numbers(machine).items()}
    for arguments in ((0,) * 6, (OWN_PID,) * 6, (1,) * 6, (2**64 - 1,) * 6, (0x10F00,) * 6):
        for number in (*range(601), 2**30 - 1):
            expected = policy(profile, names.get(number), arguments)
            answer = run(code, number, ARCHITECTURES[machine], arguments)
            assert answer == expected, (names.get(number), number, arguments)


@pytest.mark.parametrize(("profile", "machine"), BOTH)
def test_another_convention_ends_the_process(profile: Profile, machine: str) -> None:
    code = program(profile, machine, OWN_PID)
    for name, architecture in ARCHITECTURES.items():
        if name != machine:
            for number in (*range(601), 2**30, 2**31, 2**32 - 1):
                assert run(code, number, architecture) == KILL
    for number in (*range(2**30, 2**30 + 601), 2**31, 2**32 - 1):
        expected = KILL if machine == "x86_64" else ERRNO | errno.ENOSYS
        assert run(code, number, ARCHITECTURES[machine]) == expected


CHECKED = [
    *sorted(SIGNALS),
    *("clone", "prlimit64", "ioctl", "fcntl", "prctl", "socketpair", "sendto", "sendmsg"),
    *("execve", "fchmod", "arch_prctl"),
]
# What an argument may mean to the kernel, and numbers beside it.
WORDS = sorted(
    {
        *(*range(64), OWN_PID, OWN_PID + 1, 2**31, 2**32 - 1),
        *(value for name, value in vars(termios).items() if name.startswith(("TIO", "FIO", "TCG"))),
        *(value for name, value in vars(fcntl).items() if name.startswith("F_") and value >= 0),
        *(1 << bit | FLAGS["CLONE_THREAD"] for bit in range(32)),
        *(1 << bit for bit in range(32)),
        *OPTIONS.values(),
        *(*range(1024, 1040), *range(0x1000, 0x1006)),
    }
)
HIGH_WORDS = (0, 1, 2**32 - 1)


@pytest.mark.parametrize("name", CHECKED)
def test_each_argument_decides_as_it_should(name: str) -> None:
    for profile, machine in BOTH:
        code = program(profile, machine, OWN_PID)
        number, architecture = numbers(machine).get(name), ARCHITECTURES[machine]
        if number is None:
            assert (name, machine) == ("arch_prctl", "aarch64")
            continue
        for others in (0, 1):
            for place, high, word in itertools.product(range(4), HIGH_WORDS, WORDS):
                arguments = [others] * 6
                arguments[place] = high << 32 | word
                expected = policy(profile, name, tuple(arguments))
                assert run(code, number, architecture, tuple(arguments)) == expected, arguments


word = (
    st.sampled_from(WORDS)
    | st.integers(0, 2**32 - 1)
    | st.sets(st.sampled_from(sorted(FLAGS.values()))).map(sum)
)
argument = st.builds(lambda high, low: high << 32 | low, st.sampled_from(HIGH_WORDS), word)


@given(st.sampled_from(BOTH), st.sampled_from(CHECKED), st.tuples(*[argument] * 6))
@settings(max_examples=300)
def test_arguments_decide_together(
    both: tuple[Profile, str], name: str, arguments: tuple[int, ...]
) -> None:
    profile, machine = both
    code = program(profile, machine, OWN_PID)
    if name in numbers(machine):
        answer = run(code, numbers(machine)[name], ARCHITECTURES[machine], arguments)
        assert answer == policy(profile, name, arguments)


@given(st.sampled_from(BOTH), st.sampled_from(NEVER), st.tuples(*[argument] * 6))
def test_a_way_out_is_never_allowed(
    both: tuple[Profile, str], name: str, arguments: tuple[int, ...]
) -> None:
    profile, machine = both
    code = program(profile, machine, OWN_PID)
    assume(profile != "toolchain" or name not in STARTS)
    answer = run(code, numbers(machine)[name], ARCHITECTURES[machine], arguments)
    assert answer in (ERRNO | errno.EPERM, ERRNO | errno.ENOSYS)


@pytest.mark.parametrize(("profile", "machine"), BOTH)
def test_the_filter_is_well_formed_and_small(profile: Profile, machine: str) -> None:
    lines = list(struct.iter_unpack("<HBBI", program(profile, machine, OWN_PID)))
    assert len(lines) < 250
    reached = {0}
    for place, (kind, yes, no, value) in enumerate(lines):
        assert place in reached, "no instruction is in vain"
        if kind == 0x20:
            assert value % 4 == 0
            assert value < 64
            reached.add(place + 1)
        elif kind == 0x05:
            reached.add(place + 1 + value)
        elif kind != 0x06:
            reached |= {place + 1 + yes, place + 1 + no}
    assert max(reached) < len(lines)


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_search_that_is_longer_than_a_skip_arrives(
    machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen_eval.sandbox import seccomp

    # With a shorter reach, the way that a longer filter would take is taken by this one.
    monkeypatch.setattr(seccomp, "_LONGEST_SKIP", 20)
    lines = seccomp._code.__wrapped__("interpreter", machine)
    assert any(line[0] == 0x05 for line in lines)
    assert max(skip for line in lines if line[0] == 0x35 for skip in line[1:3]) <= 20
    code = b"".join(struct.pack("<HBBI", *line[:3], line[3] % 2**32) for line in lines)
    usual = program("interpreter", machine, 2**32 - 1)
    for number in range(601):
        arguments = (number, 0x10F00, number)
        architecture = ARCHITECTURES[machine]
        expected = run(usual, number, architecture, arguments)
        assert run(code, number, architecture, arguments) == expected


@pytest.mark.parametrize(("profile", "machine"), BOTH)
def test_only_its_own_id_tells_two_processes_apart(profile: Profile, machine: str) -> None:
    first, second = program(profile, machine, 1), program(profile, machine, 99_999)
    lines = [struct.iter_unpack("<HBBI", code) for code in (first, second)]
    for one, other in zip(*lines, strict=True):
        assert one == other or (one[:3] == other[:3] and (one[3], other[3]) == (1, 99_999))
    assert (first != second) is (profile != "toolchain"), "it may limit and tell nothing by an id"
    if profile == "toolchain":
        return
    number, prefix = numbers(machine)["prlimit64"], ARCHITECTURES[machine]
    assert run(first, number, prefix, (1,)) == run(second, number, prefix, (99_999,)) == ALLOW
    assert run(second, number, prefix, (1,)) == ERRNO | errno.EPERM


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_a_toolchain_has_little_more_than_an_interpreter(machine: str) -> None:
    codes = [program(profile, machine, OWN_PID) for profile in ("interpreter", "toolchain")]
    more = set()
    for name, number in numbers(machine).items():
        for words in itertools.product((0, 1, OWN_PID, 0x1002), repeat=2):
            told = [run(code, number, ARCHITECTURES[machine], words) for code in codes]
            if told[0] != told[1]:
                more.add((name, told[1] == ALLOW))
    gained = {name for name, allowed in more if allowed}
    assert gained == (STARTS | {"arch_prctl"}) & set(numbers(machine))
    assert {name for name, allowed in more if not allowed} == {"prlimit64"}


@pytest.mark.parametrize("machine", ["riscv64", "i686", "armv7l", "aarch64_be", ""])
def test_a_machine_without_a_table_is_named(machine: str) -> None:
    with pytest.raises(ConfineError, match=f"^seccomp: no table for {machine}$"):
        program("score", machine, 1)


def test_names_are_sorted_into_one_list_each() -> None:
    known = set(numbers("x86_64")) | set(numbers("aarch64"))
    assert known >= ALLOWED | REFUSED
    assert not ALLOWED & REFUSED
    assert set(NEVER) <= known
    assert not ALLOWED & set(NEVER)


def _defined(path: Path, pattern: str) -> dict[str, int]:
    """Numbers that a header defines, by name."""
    if not path.exists():
        pytest.skip(f"no kernel header {path}")
    found = re.findall(rf"^#define {pattern}\s+(0x[0-9a-fA-F]+|\d+)U?\b", path.read_text(), re.M)
    return {name: int(value, 0) for name, value in found}


@pytest.mark.parametrize("machine", sorted(MACHINES))
def test_numbers_are_the_headers(machine: str) -> None:
    defined = _defined(HEADERS[machine], r"__NR(?:3264)?_(\w+)")
    if machine == "aarch64":
        # The same file serves 32-bit machines: their 64-bit times, and names that stand for all.
        defined = {name: value for name, value in defined.items() if not 403 <= value <= 423}
        for other in ("syscalls", "arch_specific_syscall", "sync_file_range2"):
            defined.pop(other, None)
        defined["newfstatat"] = defined.pop("fstatat")
    table = numbers(machine)
    assert len(table) > 300
    assert len(set(table.values())) == len(table)
    last = max(table.values())
    assert table == {name: value for name, value in defined.items() if value <= last}


def test_constants_are_the_headers() -> None:
    folder = Path("/usr/include/linux")
    clone = _defined(folder / "sched.h", r"(CLONE_\w+)")
    assert clone.items() >= FLAGS.items()
    new = {value for name, value in clone.items() if name.startswith("CLONE_NEW")}
    assert new - set(NAMESPACES) <= {0x80}, "CLONE_NEWTIME, which clone takes for a signal"
    assert _defined(folder / "prctl.h", r"(PR_\w+)").items() >= OPTIONS.items()
    answers = _defined(folder / "seccomp.h", r"SECCOMP_RET_(\w+)")
    assert (answers["ALLOW"], answers["KILL_PROCESS"], answers["ERRNO"]) == (ALLOW, KILL, ERRNO)
    machines = _defined(folder / "elf-em.h", r"EM_(\w+)")
    # linux/audit.h: __AUDIT_ARCH_64BIT, __AUDIT_ARCH_LE.
    assert ARCHITECTURES["x86_64"] == machines["X86_64"] | 0xC0000000
    assert ARCHITECTURES["aarch64"] == machines["AARCH64"] | 0xC0000000
    assert ARCHITECTURES["i386"] == machines["386"] | 0x40000000
