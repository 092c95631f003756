"""Processes: programs that start others, to multiply, to outlive their time or to run what is not
Python."""

from __future__ import annotations

from qwen_eval.sandbox.attacks.attack import Attack, trick
from qwen_eval.sandbox.attacks.ground import Ground


def _outlived(ground: Ground, text: str) -> str:
    """Which of an attack's processes are still there."""
    del text
    alive = ground.alive()
    return f"processes {alive} live on" if alive else ""


def written(ground: Ground, text: str) -> str:
    """What was written where others may look."""
    del text
    left = ground.left()
    return f"left behind: {', '.join(left)}" if left else ""


def _killed(ground: Ground, text: str) -> str:
    """Whether the process outside was ended."""
    del text
    return "" if ground.victim_lives() else "a process outside was ended"


# A call of prctl by which the ground finds the process again.
_NAMED = "libc.prctl(15, $name.encode(), 0, 0, 0)"

_MANY_PROCESSES = """
children = []
try:
    for _ in range(200):
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
        children.append(child)
finally:
    for child in children: os.kill(child, signal.SIGKILL)
    for child in children: os.waitpid(child, 0)
"""
_MANY_THREADS = """
import threading
done = threading.Event()
try:
    for _ in range(200): threading.Thread(target=done.wait, daemon=True).start()
except RuntimeError:
    return False
finally:
    done.set()
"""
_DAEMON = f"""
ready, done = os.pipe()
if os.fork() == 0:
    try:
        os.setsid()
        if os.fork() == 0:
            {_NAMED}
            libc.prctl(1, 0, 0, 0, 0)
            os.write(done, b"x")
            os.closerange(0, 64)
            time.sleep(30)
    finally:
        os._exit(0)
os.close(done)
assert os.read(ready, 1) == b"x"
return False
"""

FORKING: tuple[Attack, ...] = (
    trick(
        33,
        "two hundred processes",
        _MANY_PROCESSES,
        "seccomp",
        "rlimits",
        "cgroup",
        quick=True,
        timeout=10.0,
    ),
    trick(
        33,
        "two hundred processes of a session",
        _MANY_PROCESSES,
        "rlimits",
        "cgroup",
        profile="interpreter",
        timeout=10.0,
    ),
    trick(
        33,
        "a fork bomb in a session",
        f"""
        {_NAMED}
        # Not without end: should nothing stop it, it is 2048 processes that sleep.
        for _ in range(11):
            try: os.fork()
            except OSError: break
        time.sleep(30)
        """,
        # Its processes need not be counted for none to be left.
        weaker="none known",
        profile="interpreter",
        waits=True,
        timeout=1.0,
        aftermath=_outlived,
    ),
    trick(34, "two hundred threads", _MANY_THREADS, "rlimits", "cgroup", timeout=10.0),
    trick(
        35,
        "a daemon that lives on",
        _DAEMON,
        "seccomp",
        "namespaces",
        aftermath=_outlived,
    ),
    trick(
        35,
        "a daemon of a session",
        _DAEMON,
        "namespaces",
        profile="interpreter",
        aftermath=_outlived,
    ),
    trick(
        35,
        "a daemon that writes later",
        """
        if os.fork() == 0:
            try:
                os.setsid()
                if os.fork() == 0:
                    libc.prctl(1, 0, 0, 0, 0)
                    time.sleep(0.3)
                    open($folder + "/left-by-a-daemon", "w").close()
            finally:
                os._exit(0)
        time.sleep(0.6)
        return False
        """,
        "seccomp",
        "namespaces",
        "landlock",
        aftermath=written,
    ),
    trick(
        36,
        "a child that keeps the output open",
        """
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        return False
        """,
        weaker="end of file",
        profile="interpreter",
    ),
    trick(
        36,
        "a child that keeps the output open, of a program",
        """
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
        """,
        weaker="end of file",
    ),
    trick(
        38,
        "clone, by its number",
        """
        child = call("clone", int(signal.SIGCHLD), 0, 0, 0, 0)
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        """,
        "seccomp",
        quick=True,
    ),
    trick(
        38,
        "clone, with noise where the kernel does not look",
        """
        child = call("clone", (1 << 48) | (1 << 63) - (1 << 62) | int(signal.SIGCHLD), 0, 0, 0, 0)
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        """,
        "seccomp",
    ),
    trick(
        38,
        "clone3, by its number",
        """
        import struct
        wish = struct.pack("=8Q", 0, 0, 0, 0, int(signal.SIGCHLD), 0, 0, 0)
        child = call("clone3", wish, len(wish))
        if child == 0: os._exit(0)
        os.waitpid(child, 0)
        """,
        "seccomp",
    ),
    trick(
        38,
        "vfork, through posix_spawn",
        """
        try: os.posix_spawn("/nowhere", ["nowhere"], {})
        except FileNotFoundError: return True
        return False
        """,
        "seccomp",
    ),
)

_REPLY = """
import json
reply = "".join(f"\\\\{byte:03o}" for byte in answer(True))
"""

RUNNING: tuple[Attack, ...] = (
    *(
        trick(
            37,
            f"become {path}",
            f"{_REPLY}os.execv({path!r}, {command})",
            "namespaces",
            "landlock",
            "seccomp",
        )
        for path, command in {
            "/bin/sh": "['sh', '-c', 'printf \"' + reply + '\" >&5']",
            "/bin/busybox": "['busybox', 'sh', '-c', 'printf \"' + reply + '\" >&5']",
            "/usr/bin/python3": (
                "['python3', '-I', '-c', f'import os; os.write(5, {answer(True)!r})']"
            ),
        }.items()
    ),
    trick(
        37,
        "a shell of a session",
        """
        import subprocess
        command = ["/bin/sh", "-c", "echo run"]
        assert subprocess.run(command, capture_output=True, text=True).stdout == "run\\n"
        """,
        "namespaces",
        "landlock",
        "seccomp",
        profile="interpreter",
    ),
    trick(
        37,
        "the loader of a session",
        """
        import glob, subprocess
        loader = glob.glob("/lib*/ld-linux*") + glob.glob("/lib/*/ld-linux*")
        done = subprocess.run([loader[0], "--version"], capture_output=True, text=True)
        assert "stable release" in done.stdout or "ld.so" in done.stdout
        """,
        "landlock",
        "seccomp",
        profile="interpreter",
    ),
    trick(
        37,
        "a file without a name that is run",
        """
        import shutil
        file = call("memfd_create", b"run", 0)
        with open("/bin/sh", "rb") as source: os.write(file, source.read())
        os.execve(file, ["sh", "-c", f"echo > {$folder}/left-by-a-shell"], {})
        """,
        "namespaces",
        "landlock",
        "seccomp",
        aftermath=written,
    ),
)

SIGNALLING: tuple[Attack, ...] = (
    trick(
        44,
        "signal the parent",
        "assert os.getppid() > 1\nos.kill(os.getppid(), 0)",
        "identity",
        "namespaces",
        "seccomp",
        "landlock",
    ),
    trick(
        44,
        "end a process outside",
        "os.kill($victim, signal.SIGKILL)\ntime.sleep(0.2)",
        "identity",
        "namespaces",
        "landlock",
        "seccomp",
        aftermath=_killed,
    ),
    trick(
        44,
        "signal the harness and its group",
        "os.kill($harness, 0)\nos.killpg(os.getpgid($harness), 0)",
        "identity",
        "namespaces",
        "landlock",
        "seccomp",
    ),
    trick(
        44,
        "kill all that a session sees",
        "os.kill(-1, signal.SIGKILL)\nreturn False",
        weaker="none known",
        profile="interpreter",
        aftermath=_killed,
    ),
    trick(
        62,
        "have the kernel signal a process outside",
        """
        import fcntl
        reading, writing = os.pipe()
        fcntl.fcntl(reading, fcntl.F_SETOWN, $victim)
        fcntl.fcntl(reading, 10, int(signal.SIGTERM))  # F_SETSIG
        fcntl.fcntl(reading, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
        os.write(writing, b"x")
        time.sleep(0.2)
        """,
        "identity",
        "namespaces",
        "seccomp",
        aftermath=_killed,
    ),
    trick(
        62,
        "have the kernel send signals at all",
        "import fcntl\nfcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())",
        "seccomp",
    ),
)

SPAWNING = (*FORKING, *RUNNING, *SIGNALLING)
