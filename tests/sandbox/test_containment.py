"""What a program can reach and use up. Every attack has a control: outside it succeeds."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.sandbox import _START, Sandbox
from qwen_eval.types import JudgeRequest
from tests.sandbox.programs import answer, answer_outside, judge, named, naming, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.open() as opened:
        yield opened


def _try(body: str) -> str:
    """A program whose f() says "done" if `body` works and the error's name if it does not."""
    lines = "".join(f"        {line}\n" for line in body.splitlines())
    return f"""
def f():
    import ctypes, glob, os, signal, socket, subprocess
    try:
{lines}
    except (OSError, MemoryError, subprocess.SubprocessError) as error:
        return type(error).__name__
    return "done"
"""


REACHES = {
    "read a private file": "open({secret!r}).read()",
    "write into a folder of others": "open({folder!r} + '/left', 'w').write('x')",
    "write beside the interpreter": "open({folder!r} + '/../left', 'w').write('x')",
    "see the processes": "assert len(glob.glob('/proc/[0-9]*')) > 1 or os.stat('/proc/1/stat')",
    "open a kernel switch": "os.close(os.open('/proc/sys/kernel/core_pattern', os.O_RDONLY))",
    "reach a local server": "socket.create_connection(('127.0.0.1', {port}), 2).close()",
    "send a datagram": "socket.socket(2, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', 9))",
    "signal a process outside": "os.kill({victim}, 0)",
    "shared memory left behind": "open('/dev/shm/left-by-a-test', 'w').close(); os.stat({shm!r})",
}


@pytest.mark.parametrize("name", REACHES)
def test_out_of_reach(sandbox: Sandbox, name: str, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o777)
    with socket.create_server(("127.0.0.1", 0)) as server, _Sleeper() as victim:
        values = {
            "secret": str(secret),
            "folder": str(folder),
            "port": server.getsockname()[1],
            "victim": victim.pid,
            "shm": "/dev/shm/left-by-a-test",
        }
        program = _try(REACHES[name].format(**values))
        assert answer_outside(program, tmp_path) == "'done'", "the control"
        Path(values["shm"]).unlink(missing_ok=True)
        if name == "shared memory left behind":
            answer(sandbox, program)
            assert not Path(values["shm"]).exists()
        else:
            assert answer(sandbox, program) != "'done'"


class _Sleeper:
    def __enter__(self) -> subprocess.Popen[bytes]:
        self.process = subprocess.Popen(["sleep", "60"])
        return self.process

    def __exit__(self, *_: object) -> None:
        assert self.process.poll() is None, "nobody inside may end it"
        self.process.kill()
        self.process.wait()


def test_the_environment_is_empty(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    names = answer(sandbox, "def f():\n    import os\n    return sorted(os.environ)")
    assert names == "['HOME', 'LANG', 'LC_CTYPE', 'PATH', 'PYTHONHASHSEED']" or "KEY" not in names
    assert "OPENAI" not in names


def test_identity(sandbox: Sandbox) -> None:
    program = """
        import os
        def f():
            try: os.setuid(0)
            except OSError: refused = True
            else: refused = False
            status = refused, os.getresuid(), os.getresgid(), os.getgroups()
            return status
    """
    refused, uids, gids, groups = eval(answer(sandbox, program))
    assert refused
    assert 0 not in uids + gids
    if os.getuid() == 0:
        assert groups == []
        assert uids[0] != os.getuid()


def test_candidate_and_judge_are_strangers(sandbox: Sandbox) -> None:
    if os.getuid() != 0:
        pytest.skip("an ordinary user has only one identity")
    tests = "import os\nassert candidate() != os.getuid()"
    assert judge(sandbox, "def f():\n    import os\n    return os.getuid()", tests).passed


def test_inherited_pipes_are_the_two_of_the_conversation(sandbox: Sandbox) -> None:
    program = """
        import os
        def f():
            found = []
            for fd in range(64):
                try: os.fstat(fd)
                except OSError: continue
                found.append(fd)
            return len(found)
    """
    assert answer(sandbox, program) == "5", "in, out, err, calls, replies"


def test_infinite_loop_ends_at_its_processor_time(sandbox: Sandbox) -> None:
    begun = time.monotonic()
    verdict = judge(sandbox, "def f():\n    while True: pass", "candidate()", timeout=1)
    assert (verdict.passed, verdict.text) == (False, "timeout: 1 s of processor time")
    assert time.monotonic() - begun < 5


def test_a_loop_that_ignores_signals_ends_too(sandbox: Sandbox) -> None:
    program = """
        import signal
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        def f():
            while True: pass
    """
    assert judge(sandbox, program, "candidate()", timeout=1).text.startswith("timeout")


def test_a_loop_while_the_program_is_read(sandbox: Sandbox) -> None:
    assert judge(sandbox, "while True: pass", "candidate()", timeout=1).text.startswith("timeout")


def test_sleep_ends_on_the_wall(sandbox: Sandbox) -> None:
    begun = time.monotonic()
    program = "import time\ndef f():\n    time.sleep(60)"
    verdict = judge(sandbox, program, "candidate()", timeout=0.4)
    assert verdict.text == "timeout: 2 s on the wall"
    assert 2 <= time.monotonic() - begun < 6


def test_a_regex_that_holds_the_interpreter(sandbox: Sandbox) -> None:
    program = "import re\ndef f():\n    return re.match('(a+)+$', 'a' * 60 + 'b')"
    assert judge(sandbox, program, "candidate()", timeout=1).text.startswith("timeout")


USES = {
    "memory": "bytearray(3 << 29)",
    "one large file": "open('large', 'wb').write(bytes(17 << 20))",
    "many files": "[open(f'file{{n}}', 'wb').write(bytes(1 << 20)) for n in range(40)]",
    "many empty files": "[open(f'file{{n}}', 'wb').close() for n in range(5000)]",
    "many processes": (
        "for _ in range(300):\n"
        "    if os.fork() == 0:\n"
        "        import time; time.sleep(3); os._exit(0)"
    ),
}


@pytest.mark.parametrize("name", USES)
def test_resources_are_capped(sandbox: Sandbox, name: str, tmp_path: Path) -> None:
    if name == "many processes" and os.getuid() != 0:
        pytest.skip("processes are counted per identity; an ordinary user has only one")
    program = _try(USES[name].replace("{{", "{").replace("}}", "}"))
    assert answer_outside(program, tmp_path) == "'done'", "the control"
    assert answer(sandbox, program) in {"'MemoryError'", "'OSError'", "'BlockingIOError'"}


def test_too_much_output_ends_it(sandbox: Sandbox) -> None:
    program = "def f():\n    while True: print('x' * 4096)"
    verdict = judge(sandbox, program, "candidate()")
    assert (verdict.passed, verdict.text) == (False, "printed more than 1 MiB")
    quiet = "def f():\n    print('x' * 1000)\n    return 1"
    assert judge(sandbox, quiet, "assert candidate() == 1").passed is True


def test_deep_recursion_and_crash(sandbox: Sandbox) -> None:
    deep = "import sys\nsys.setrecursionlimit(10**9)\ndef f():\n    return f()"
    assert judge(sandbox, deep, "candidate()").passed is False
    crash = "def f():\n    import ctypes\n    ctypes.string_at(0)"
    assert judge(sandbox, crash, "candidate()").text == "the other side ended"


def test_a_daemon_does_not_outlive_its_program(sandbox: Sandbox) -> None:
    program = f"""
        import os, time
        def f():
            if os.fork() == 0:
                os.setsid()
                if os.fork() == 0:
                    {naming("a-daemon")}
                    time.sleep(60)
                os._exit(0)
            time.sleep(2)
            return 1
    """
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(judge, sandbox, program, "assert candidate() == 1")
        wait_for(lambda: named("a-daemon"))
        assert verdict.result().passed is True
    assert not named("a-daemon")


@pytest.mark.parametrize("body", ["time.sleep(60)", "while True: pass"])
def test_closing_ends_what_runs_at_once(body: str) -> None:
    program = f"{naming('a-long-one')}\nimport time\ndef f():\n    {body}"
    sandbox = Sandbox.open(2)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(judge, sandbox, program, "candidate()", 60) for _ in range(4)]
        wait_for(lambda: len(named("a-long-one")) == 2)
        begun = time.monotonic()
        sandbox.close()
        assert time.monotonic() - begun < 5
        assert not named("a-long-one")
        responses = [call.result(timeout=5) for call in calls]
    assert {response.passed for response in responses} == {None}, "nobody failed a test"
    assert {response.error for response in responses} == {
        "sandbox: closed while the program ran",
        "sandbox: closed",
    }
    assert judge(sandbox, program, "candidate()").error == "sandbox: closed"
    sandbox.close()


def test_a_child_that_keeps_the_pipes_open_blocks_nobody(sandbox: Sandbox) -> None:
    program = """
        import os, time
        if os.fork() == 0:
            time.sleep(50)
        def f():
            os._exit(0)
    """
    begun = time.monotonic()
    assert judge(sandbox, program, "candidate()", timeout=1).passed is False
    assert time.monotonic() - begun < 8


@pytest.mark.slow
def test_soak_leaves_nothing_behind(sandbox: Sandbox) -> None:
    """300 programs of all kinds: no descriptor, thread, zombie or file stays."""
    programs = [
        "def f(): return 1",
        "def f(): return 2",
        "import os\ndef f(): os._exit(3)",
        "import os\ndef f():\n    open('a', 'w').write('x'); os.fork(); return 1",
        "def f(:",
    ]
    before = _inventory()
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(
            pool.map(
                lambda n: judge(sandbox, programs[n % 5], "assert candidate() == 1").passed,
                range(300),
            )
        )
    assert verdicts[::5] == [True] * 60
    assert verdicts[1::5] == verdicts[2::5] == verdicts[4::5] == [False] * 60
    assert _inventory() == before


def _inventory() -> tuple[int, int, int, set[str]]:
    children = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            children += int(path.read_text().rpartition(")")[2].split()[1]) == os.getpid()
        except OSError:
            continue
    return (
        len(os.listdir("/proc/self/fd")),
        threading.active_count(),
        children,
        {"work", "python"} & set(os.listdir("/tmp")),
    )


def test_the_layers_are_named(sandbox: Sandbox) -> None:
    present, _, missing = sandbox.isolation.partition("; missing: ")
    assert "network" in present
    assert "private root" in present
    assert "split judge" in present
    assert {"landlock", "seccomp", "cgroup"} <= set(missing.split(", "))


def test_a_machine_that_cannot_contain_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With more identities than the machine knows, giving up root fails: no program is run."""
    if os.getuid() != 0:
        pytest.skip("an ordinary user gives up nothing")
    monkeypatch.setattr("qwen_eval.sandbox.sandbox._FIRST_UID", 0xFFFFFFFF)
    with pytest.raises(RefusedError, match="cannot be contained") as refused:
        Sandbox.open()
    assert refused.value.exit_code == 3


def test_a_layer_that_fails_is_an_error_not_a_wrong_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox = Sandbox(1)
    monkeypatch.setattr("qwen_eval.sandbox.sandbox._START", "import sys; sys.exit('no such layer')")
    response = sandbox.judge(JudgeRequest("def f(): pass", "def check(c): c()", "f"))
    assert response.passed is None
    assert response.error == "sandbox: no such layer"


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [("{}", "not known how on"), ("{os.uname().machine: 9999}", "function not implemented")],
)
def test_a_root_that_cannot_be_left_is_refused(
    monkeypatch: pytest.MonkeyPatch, numbers: str, complaint: str
) -> None:
    """No step of the way is left out in silence, least of all the one that lets the machine go."""
    before = (
        f"import os; from qwen_eval.sandbox import confine; confine._SYS_PIVOT_ROOT = {numbers}"
    )
    imports, start = _START.rsplit("; ", 1)
    monkeypatch.setattr("qwen_eval.sandbox.sandbox._START", f"{imports}; {before}; {start}")
    with pytest.raises(RefusedError, match=f"own root folder: {complaint}"):
        Sandbox.open()


def test_an_ordinary_user_is_contained_as_well(tmp_path: Path) -> None:
    """Without root there is a user namespace instead of an identity of one's own."""
    python = shutil.which("python3.11", path="/usr/bin:/usr/local/bin")
    if os.getuid() != 0 or python is None or not os.stat(ROOT).st_mode & 0o005:
        pytest.skip("needs root, a python3.11 all can read, and a folder all can read")
    program = f"""
import os, sys
os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
sys.path.insert(0, {str(ROOT)!r})
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.types import JudgeRequest
sandbox = Sandbox.open()
print(sandbox.isolation)
for body in ("return x + 1", "return 0", "import os; os.kill(-1, 9); return 2",
             "import socket; socket.create_connection(('127.0.0.1', 1)); return 2",
             "open({str(tmp_path)!r} + '/left', 'w'); return 2",
             "open('/etc/passwd').read(); return 2",
             "import os; return 0 if {{'etc', 'home', 'root', 'var'}} & {{*os.listdir('/')}} "
             "else x + 1",
             "import ctypes, ssl, sqlite3; ctypes.CDLL(None).unshare(0x10020000); "
             "open('/usr/left', 'w'); return 2"):
    request = JudgeRequest("def f(x): " + body,
                           "def check(c):\\n    assert c(1) == 2", "f")
    print(sandbox.judge(request).passed)
"""
    tmp_path.chmod(0o777)
    done = subprocess.run(
        [python, "-c", program], capture_output=True, text=True, cwd="/", timeout=60
    )
    if "namespaces" in done.stderr and "permitted" in done.stderr:
        pytest.skip("this machine gives ordinary users no namespaces")
    assert done.stderr == ""
    first, *verdicts = done.stdout.splitlines()
    assert "missing: own uid" in first
    assert verdicts == ["True", *4 * ["False"], "False", "True", "False"]
    assert not (tmp_path / "left").exists()
