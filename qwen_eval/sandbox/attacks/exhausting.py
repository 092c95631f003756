"""Time, memory and disk: programs that use up what others need."""

from __future__ import annotations

from qwen_eval.sandbox.attacks.attack import PRELUDE, Attack, endless, forging, trick

TIME: tuple[Attack, ...] = (
    endless(17, "an infinite loop", "def f(x):\n    while True: pass"),
    endless(17, "an infinite loop while it is read", "while True: pass"),
    endless(
        18,
        "a loop that ignores every signal",
        """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f(x):
            while True: pass
        """,
    ),
    endless(
        19,
        "a regular expression that never lets go",
        "import re\ndef f(x): return re.match('(a+)+$', 'a' * 60 + 'b')",
    ),
    endless(20, "a power of powers", "def f(x): return len(str(7 ** 10 ** 8))"),
    endless(21, "sleep", "import time\ndef f(x): time.sleep(3600)"),
    endless(
        22,
        "stop itself",
        """
        import os, signal, time
        def f(x):
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(3600)
        """,
    ),
    endless(
        23,
        "threads that are busy",
        """
        import threading
        def spin():
            while True: pass
        def f(x):
            for _ in range(64):
                try: threading.Thread(target=spin).start()
                except RuntimeError: break
            spin()
        """,
    ),
    endless(
        15,
        "a loop that catches everything",
        """
        import time
        def f(x):
            while True:
                try:
                    while True: time.sleep(0.01)
                except BaseException: pass
        """,
    ),
    endless(
        58,
        "half an answer",
        f"""{PRELUDE}
def f(x):
    os.write(sys._getframe(1).f_locals["replies"], b"\\0\\xff\\xff\\xff[")
    time.sleep(3600)
        """,
    ),
    endless(
        58,
        "a result that never ends",
        """
        class Endless(list):
            def __iter__(self):
                while True: pass
                yield 1
        def f(x): return Endless()
        """,
    ),
    endless(
        58,
        "a set whose members all hash alike",
        f"""{PRELUDE}
def f(x):
    reply = answer(["s", [["i", hex(n * (2**61 - 1))] for n in range(200_000)]])
    while reply:
        reply = reply[os.write(sys._getframe(1).f_locals["replies"], reply):]
    time.sleep(3600)
        """,
        timeout=0.5,
    ),
    endless(
        58,
        "a range that the tests count",
        "def f(x): return range(10**12)",
        tests="def check(candidate):\n    assert sum(candidate(1)) == 2\n",
    ),
)

SESSIONS: tuple[Attack, ...] = (
    trick(
        18,
        "a session that does not hear that its time is up",
        "signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: time.sleep(0.1)",
        weaker="end of file",
        profile="interpreter",
        waits=True,
        timeout=0.2,
    ),
    trick(
        15,
        "a session that catches everything",
        """
        while True:
            try:
                while True: time.sleep(0.1)
            except BaseException: pass
        """,
        weaker="end of file",
        profile="interpreter",
        waits=True,
        timeout=0.2,
    ),
)

MEMORY: tuple[Attack, ...] = (
    trick(
        24,
        "memory of 2.5 GiB, written to",
        "import mmap\n"
        "pages = mmap.mmap(-1, 5 << 29)\n"
        "ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(pages)), 1, 5 << 29)",
        "rlimits",
        "cgroup",
        timeout=20.0,
    ),
    trick(24, "1.25 GiB of addresses", "bytearray(5 << 28)", "rlimits", quick=True),
    trick(
        25,
        "a list that doubles",
        "values = [0]\nwhile len(values) < 2**27: values += values",
        "rlimits",
        timeout=20.0,
    ),
    forging(
        26,
        "a recursion without end",
        """
        import sys
        sys.setrecursionlimit(10**9)
        def f(x): return list(map(f, [x]))
        """,
        weaker="crash",
    ),
    forging(26, "a null pointer", "import ctypes\ndef f(x): ctypes.string_at(0)", weaker="crash"),
    trick(
        59,
        "a compressed bomb",
        "import gzip\ngzip.decompress(gzip.compress(bytes(1 << 24), 1) * 40)",
        "rlimits",
        timeout=20.0,
    ),
    trick(
        60,
        "eight processes that hold 300 MiB each",
        """
        import mmap, select
        ready, done = os.pipe(), os.pipe()
        for _ in range(8):
            if os.fork() == 0:
                os.close(done[1])
                pages = mmap.mmap(-1, 300 << 20)
                ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(pages)), 1, 300 << 20)
                os.write(ready[1], b"x")
                os.read(done[0], 1)
                os._exit(0)
        count = 0
        while count < 8:
            if select.select([ready[0]], [], [], 0.1)[0]: count += len(os.read(ready[0], 8))
            elif os.waitpid(-1, os.WNOHANG)[0]: return False
        """,
        "cgroup",
        profile="interpreter",
        timeout=20.0,
    ),
)

DISK: tuple[Attack, ...] = (
    trick(
        27,
        "one huge file",
        """
        path = place() + "/left-huge"
        try:
            with open(path, "wb") as file:
                for _ in range(17): file.write(bytes(1 << 20))
        finally:
            os.unlink(path)
        """,
        "namespaces",
        "landlock",
        "rlimits",
    ),
    trick(
        28,
        "five thousand empty files",
        """
        folder, made = place(), []
        try:
            for number in range(5000):
                path = f"{folder}/left-{number}"
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY))
                made.append(path)
        finally:
            for path in made: os.unlink(path)
        """,
        "namespaces",
        "landlock",
    ),
    trick(
        29,
        "many files under the limit",
        """
        folder, made = place(), []
        try:
            for number in range(40):
                made.append(f"{folder}/left-{number}")
                with open(made[-1], "wb") as file: file.write(bytes(1 << 20))
        finally:
            for path in made: os.unlink(path)
        """,
        "namespaces",
        "landlock",
        quick=True,
    ),
    trick(
        30,
        "shared memory of 40 MiB",
        """
        made = []
        try:
            for number in range(40):
                path = f"/dev/shm/{$name}-{number}"
                with open(path, "wb") as file:
                    made.append(path)
                    file.write(bytes(1 << 20))
        finally:
            for path in made: os.unlink(path)
        """,
        "namespaces",
        "landlock",
    ),
    trick(
        30,
        "files without a name of 40 MiB",
        """
        files = [call("memfd_create", b"left", 0) for _ in range(40)]
        for file in files: os.write(file, bytes(1 << 20))
        """,
        "seccomp",
    ),
    trick(
        31,
        "a sparse file of a gigabyte",
        """
        path = place() + "/left-sparse"
        with open(path, "wb") as file:
            os.unlink(path)
            os.truncate(file.fileno(), 1 << 30)
        """,
        "rlimits",
    ),
    trick(
        31,
        "32 MiB set aside",
        """
        path = place() + "/left-aside"
        with open(path, "wb") as file:
            os.unlink(path)
            os.posix_fallocate(file.fileno(), 0, 1 << 25)
        """,
        "namespaces",
        "landlock",
        "rlimits",
    ),
    trick(
        61,
        "more descriptors than a program needs",
        "[os.open('/dev/null', os.O_RDONLY) for _ in range(100)]",
        "rlimits",
        quick=True,
    ),
    trick(
        61,
        "raise its own limits",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))",
        "rlimits",
    ),
    trick(
        61,
        "a core file",
        """
        import resource
        resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20))
        assert libc.prctl(4, 1, 0, 0, 0) == 0
        """,
        "rlimits",
        "seccomp",
    ),
    trick(
        61,
        "lock memory",
        "page = ctypes.create_string_buffer(1 << 16)\n"
        "call('mlock', ctypes.addressof(page), 1 << 16)",
        "rlimits",
        "seccomp",
    ),
)

EXHAUSTING = (*TIME, *SESSIONS, *MEMORY, *DISK)
