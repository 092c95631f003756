"""The filter in this kernel: what fails under it and, as a control, does not without it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qwen_eval.sandbox.layers import Profile
from qwen_eval.sandbox.syscalls import MACHINES

ROOT = Path(__file__).parents[2]
MACHINE = os.uname().machine

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or MACHINE not in MACHINES, reason=f"no table for {MACHINE}"
)

START = """
import ctypes, errno, fcntl, os, resource, signal, socket, struct, sys, termios
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.seccomp import load, program
from qwen_eval.sandbox.syscalls import numbers

libc = ctypes.CDLL(None, use_errno=True)
table = numbers(os.uname().machine)

def call(name, *arguments):
    number = table[name] if isinstance(name, str) else name
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    if result == -1:
        raise OSError(ctypes.get_errno(), "")
    return result
"""
LOAD = """
libc.prctl(38, 1, 0, 0, 0)
load(program({profile!r}, os.uname().machine, os.getpid()))
"""
# The child prints what became of the attempt: "done", or the error's name.
TRY = """
try:
    exec({attempt!r})
except OSError as error:
    print(errno.errorcode[error.errno])
else:
    print("done")
"""


def child(source: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-S", "-c", START + source],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": os.environ.get("PATH", "")},
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def outcome(profile: Profile | None, attempt: str, folder: Path, before: str = "") -> str:
    """What became of `attempt`; `profile` None: without a filter."""
    load = LOAD.format(profile=profile) if profile else ""
    done = child(before + load + TRY.format(attempt=attempt), folder)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# What the standard library offers -> the error under the filter.
REFUSED = {
    "os.fork() or os._exit(0)": "EPERM",
    "os.execv(sys.executable, [sys.executable, '-S', '-c', 'print(\"done\")'])": "EPERM",
    "os.waitpid(os.posix_spawn(sys.executable, ['x', '-S', '-c', ''], {}), 0)": "EPERM",
    "socket.socket()": "EPERM",
    "socket.socket(socket.AF_UNIX)": "EPERM",
    "socket.socketpair(type=socket.SOCK_DGRAM)": "EPERM",
    "a, b = socket.socketpair(); a.send(b'x', socket.MSG_OOB)": "EPERM",
    "a, b = socket.socketpair(); a.sendmsg([b'x'], [], socket.MSG_OOB)": "EPERM",
    "os.kill(os.getppid(), 0)": "EPERM",
    "os.killpg(0, 0)": "EPERM",
    "fcntl.fcntl(0, fcntl.F_SETOWN, os.getppid())": "EPERM",
    "fcntl.fcntl(0, 10, 9)": "EPERM",  # F_SETSIG
    "fcntl.fcntl(os.pipe()[0], 1031, 8192)": "EPERM",  # F_SETPIPE_SZ
    "os.setsid()": "EPERM",
    "os.setpgid(0, 0)": "EPERM",
    "os.nice(1)": "EPERM",
    "os.sched_setaffinity(0, os.sched_getaffinity(0))": "EPERM",
    "resource.prlimit(os.getppid(), resource.RLIMIT_CORE)": "EPERM",
    "os.chmod('file', 0o600)": "EPERM",
    "os.utime('file')": "EPERM",
    "os.chown('file', os.getuid(), -1)": "EPERM",
    "os.mkfifo('pipe')": "EPERM",
    "os.memfd_create('memory')": "ENOSYS",
    "fcntl.ioctl(os.open('.', os.O_RDONLY), 0x80086601, bytes(8))": "ENOTTY",  # FS_IOC_GETFLAGS
    "call('prctl', 1, 9)": "EPERM",  # PR_SET_PDEATHSIG
    "call('prctl', 4, 1)": "EPERM",  # PR_SET_DUMPABLE
}


@pytest.mark.parametrize("attempt", REFUSED)
def test_what_a_program_may_not(attempt: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert outcome("score", attempt, tmp_path) == REFUSED[attempt]
    control = outcome(None, attempt, tmp_path)
    if control in ("EOPNOTSUPP", "ENOTTY"):
        pytest.skip(f"this kernel or file system has no such thing: {control}")
    assert control == "done"


# Calls that the kernel would take: without the filter it looks at the arguments, or obeys.
RAW = [
    "call('io_uring_setup', 1, 0)",
    "call('keyctl', 0, -4, 0)",  # KEYCTL_GET_KEYRING_ID of the user
    "call('add_key', 0, 0, 0, 0, 0)",
    "call('ptrace', 0)",  # PTRACE_TRACEME
    "call('process_vm_readv', os.getpid(), 0, 0, 0, 0, 0)",
    "call('unshare', 0)",
    "call('setns', -1, 0)",
    "call('mount', 0, 0, 0, 0, 0)",
    "call('open_tree', -1, 0, 0)",
    "call('clone3', 0, 0)",
    "call('bpf', 0, 0, 0)",
    "call('perf_event_open', 0, 0, 0, 0, 0)",
    "call('userfaultfd', 0)",
    "call('memfd_create', 0, 0)",
    "call('pidfd_open', os.getpid(), 0)",
    "call('pidfd_send_signal', -1, 0, 0, 0)",
    "call('shmget', 0, 0, 0)",
    "call('semget', 0, 0, 0)",
    "call('mq_open', 0, 0, 0, 0)",
    "call('open_by_handle_at', -1, 0, 0)",
    "call('setresuid', -1, -1, -1)",
    "call('personality', 0xFFFFFFFF)",
    "call('inotify_init1', 0)",
    "call('io_setup', 0, 0)",
    "call('timer_create', 0, 0, 0)",
    "call('splice', -1, 0, -1, 0, 1, 0)",
    "call('execveat', -1, 0, 0, 0, 0)",
    "call('tgkill', os.getppid(), os.getppid(), 0)",
    "call('rt_sigqueueinfo', os.getppid(), 0, 0)",
    "call('seccomp', 2, 0, 0)",  # SECCOMP_GET_ACTION_AVAIL
]


@pytest.mark.parametrize("attempt", RAW)
def test_what_the_kernel_is_not_asked(attempt: str, tmp_path: Path) -> None:
    assert outcome("score", attempt, tmp_path) in ("EPERM", "ENOSYS")
    control = outcome(None, attempt, tmp_path)
    if control in ("EPERM", "ENOSYS"):
        pytest.skip(f"the control fails here as well: {control}")


@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_a_terminal_takes_no_input_from_a_program(high: int, tmp_path: Path) -> None:
    # CVE-2017-5226, and CVE-2019-10063 with high bits that the kernel does not look at.
    before = "_, terminal = os.openpty(); letter = ctypes.create_string_buffer(b'x')"
    attempt = f"call('ioctl', terminal, {high} | termios.TIOCSTI, ctypes.addressof(letter))"
    assert outcome("score", attempt, tmp_path, before) == "ENOTTY"
    control = outcome(None, attempt, tmp_path, before)
    if control in ("EPERM", "EIO"):
        pytest.skip(f"the control fails here as well: {control}")
    assert control == "done"


# Ways into the kernel whose numbers mean something else.
FOREIGN = {
    "x32": "print(libc.syscall(ctypes.c_long(0x40000000 + table['getpid'])))",
    # mov eax, 20 (getpid); int 0x80; ret
    "32-bit": """
import mmap
memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
memory.write(bytes.fromhex('b814000000cd80c3'))
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
print(ctypes.CFUNCTYPE(ctypes.c_int)(address)())
""",
}


@pytest.mark.skipif(MACHINE != "x86_64", reason="x86_64 has these")
@pytest.mark.parametrize("profile", ["score", "interpreter", "toolchain"])
@pytest.mark.parametrize("name", FOREIGN)
def test_another_convention_ends_the_process(name: str, profile: str, tmp_path: Path) -> None:
    done = child(LOAD.format(profile=profile) + FOREIGN[name], tmp_path)
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, "")
    control = child(FOREIGN[name], tmp_path)
    if control.returncode == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit calls")
    assert control.returncode == 0, control.stderr


def test_the_filter_of_another_machine_ends_the_process(tmp_path: Path) -> None:
    for machine in MACHINES:
        source = f"libc.prctl(38, 1, 0, 0, 0); load(program('score', {machine!r}, os.getpid()))"
        done = child(source + "; print('done')", tmp_path)
        expected = (0, "done\n") if machine == MACHINE else (-signal.SIGSYS, "")
        assert (done.returncode, done.stdout) == expected


WORKS = {
    "threads": """
import threading, queue
found = queue.Queue()
workers = [threading.Thread(target=found.put, args=(n,)) for n in range(8)]
for worker in workers: worker.start()
for worker in workers: worker.join()
assert sorted(found.get() for _ in workers) == list(range(8))
""",
    "a pool of threads": """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    assert list(pool.map(abs, range(-3, 0))) == [3, 2, 1]
""",
    "asyncio": """
import asyncio
async def main():
    await asyncio.gather(*[asyncio.sleep(0.01) for _ in range(5)])
    assert await asyncio.to_thread(abs, -3) == 3
asyncio.run(main())
""",
    "files": """
import glob, mmap, pathlib, shutil, tempfile
with tempfile.TemporaryDirectory(dir='.') as folder:
    path = pathlib.Path(folder, 'a')
    path.write_text('text'); path.touch()
    shutil.copyfile(path, folder + '/b'); os.link(path, folder + '/c')
    os.symlink('a', folder + '/d')
    os.rename(folder + '/b', folder + '/e'); os.truncate(path, 2); os.mkdir(folder + '/sub')
    assert sorted(os.listdir(folder)) == ['a', 'c', 'd', 'e', 'sub']
    with open(folder + '/e', 'r+b') as file:
        fcntl.flock(file, fcntl.LOCK_EX); fcntl.lockf(file, fcntl.LOCK_EX); os.fsync(file)
        with mmap.mmap(file.fileno(), 0) as mapped: assert mapped[:2] == b'te'
with tempfile.TemporaryFile(dir='.') as file: file.write(b'x')
""",
    "databases": """
import sqlite3
for name in (':memory:', 'data.sqlite'):
    with sqlite3.connect(name) as data:
        data.execute('create table t (x)'); data.execute('insert into t values (1)')
        assert data.execute('select x from t').fetchall() == [(1,)]
""",
    "time and chance": """
import datetime, hashlib, random, secrets, time, uuid
time.sleep(0.01); datetime.datetime.now(); os.urandom(8); secrets.token_hex(); uuid.uuid4()
hashlib.sha256(b'x').hexdigest(); random.SystemRandom().random(); time.process_time()
""",
    "data": """
import bz2, csv, decimal, fractions, gzip, json, lzma, pickle, re, statistics, unittest, zlib
assert json.loads(json.dumps([1])) == [1] and re.sub('a', 'b', 'a') == 'b'
assert decimal.Decimal('0.1') * 3 == decimal.Decimal('0.3')
assert lzma.decompress(lzma.compress(b'x' * 10**6)) == b'x' * 10**6
""",
    "memory": "block = bytearray(200 * 10**6); block[::4096] = b'x' * len(block[::4096])",
    "its own signals": """
import threading, time
heard = []
for number in (signal.SIGUSR1, signal.SIGALRM):
    signal.signal(number, lambda n, _: heard.append(n))
os.kill(os.getpid(), signal.SIGUSR1); signal.raise_signal(signal.SIGUSR1)
signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.1)
assert heard == [signal.SIGUSR1] * 3 + [signal.SIGALRM]
""",
    "pairs and pipes": """
import select
left, right = socket.socketpair()
left.settimeout(5); left.sendall(b'x')
assert right.recv(1) == b'x'
right.sendmsg([b'y']); assert left.recvmsg(1)[0] == b'y'
assert left.getsockname() == ''
r, w = os.pipe(); os.set_blocking(r, False); os.write(w, b'z')
assert select.select([r], [], [], 5)[0] == [r] and os.read(r, 1) == b'z'
assert not os.isatty(r)
""",
    "its own limits": """
resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); resource.prlimit(0, resource.RLIMIT_CORE)
resource.getrusage(resource.RUSAGE_SELF)
os.cpu_count(); os.uname(); os.getgroups(); os.sysconf('SC_PHYS_PAGES')
""",
    "its own limits by its number": "resource.prlimit(os.getpid(), resource.RLIMIT_CORE)",
    "a request with noise above": """
count = ctypes.c_int(-1)
call('ioctl', os.pipe()[0], 1 << 32 | termios.FIONREAD, ctypes.addressof(count))
assert count.value == 0
""",
}
WORKS_IN_A_FAMILY = {
    "a child": """
child = os.fork()
if not child: os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
""",
    "a signal to a child": """
import time
child = os.fork()
if not child: time.sleep(60)
os.kill(child, signal.SIGKILL)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
""",
    "a session of its own": """
child = os.fork()
if not child: os._exit(0 if os.setsid() is None else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
""",
    "a pool of processes": """
import multiprocessing
with multiprocessing.get_context('fork').Pool(2) as pool:
    assert pool.map(abs, range(-3, 0)) == [3, 2, 1]
""",
}


@pytest.mark.parametrize("profile", ["score", "interpreter", "toolchain"])
@pytest.mark.parametrize("name", WORKS)
def test_what_a_program_may(name: str, profile: Profile, tmp_path: Path) -> None:
    # Where a process has others beside it, no number says that a process is the caller.
    refused = (profile, name) == ("toolchain", "its own limits by its number")
    assert outcome(profile, WORKS[name], tmp_path) == ("EPERM" if refused else "done")


@pytest.mark.parametrize("name", WORKS_IN_A_FAMILY)
def test_an_interpreter_may_have_children(name: str, tmp_path: Path) -> None:
    assert outcome("interpreter", WORKS_IN_A_FAMILY[name], tmp_path) == "done"
    assert outcome("score", WORKS_IN_A_FAMILY[name], tmp_path) == "EPERM"


@pytest.mark.parametrize(
    "attempt",
    [
        call
        for call in (*REFUSED, *RAW)
        if not re.search("fork|kill|queueinfo|setsid|setpgid", call)
    ],
)
def test_an_interpreter_may_nothing_else(attempt: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert outcome("interpreter", attempt, tmp_path) in ("EPERM", "ENOSYS", "ENOTTY")


@pytest.mark.parametrize("flag", ["0x10000000", "0x20000000", "0x40000000", "1 << 32"])
def test_a_child_comes_as_by_fork(flag: str, tmp_path: Path) -> None:
    """Without a user, pid or net namespace, and without flags that only a newer call knows."""
    attempt = "call('clone', {} | signal.SIGCHLD, 0, 0, 0, 0) or os._exit(0)"
    assert outcome("interpreter", attempt.format("0"), tmp_path) == "done"
    assert outcome("interpreter", attempt.format(flag), tmp_path) == "EPERM"
    control = outcome(None, attempt.format(flag), tmp_path)
    if control in ("EPERM", "ENOSPC"):
        pytest.skip(f"no namespaces here: {control}")
    assert control == "done"


def test_a_filter_that_the_kernel_refuses_names_the_layer(tmp_path: Path) -> None:
    source = "try: load({})\nexcept ConfineError as error: print(error)\nelse: print('loaded')"
    assert child(source.format("b''"), tmp_path).stdout == "seccomp: invalid argument\n"
    own = "program('score', os.uname().machine, os.getpid())"
    # Without the promise to gain no privileges, an ordinary user may not.
    ordinary = "if os.getuid() == 0: os.setresuid(65534, 65534, 65534)\n"
    done = child(ordinary + source.format(own), tmp_path)
    assert done.stdout == "seccomp: permission denied\n"
    promise = "libc.prctl(38, 1, 0, 0, 0)\n"
    assert child(ordinary + promise + source.format(own), tmp_path).stdout == "loaded\n"


def test_what_it_costs(tmp_path: Path) -> None:
    source = """
import time
libc.prctl(38, 1, 0, 0, 0)
start = time.perf_counter()
code = program('score', os.uname().machine, os.getpid())
built = time.perf_counter()
again = program('score', os.uname().machine, os.getpid())
built_again = time.perf_counter()
load(code)
loaded = time.perf_counter()
assert again == code
print(len(code) // 8, *(f'{second * 1e6:.0f}' for second in (
    built - start, built_again - built, loaded - built_again)))
"""
    size, first, again, load = child(source, tmp_path).stdout.split()
    print(f"{size} instructions: built in {first} us, again in {again} us, loaded in {load} us")
