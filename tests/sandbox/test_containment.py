"""A sandbox in use: identities, limits, closing, and what it says where it cannot be had."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from bench.sandbox import soak
from qwen_eval.errors import RefusedError
from qwen_eval.sandbox import worker
from qwen_eval.sandbox.cgroup import own_groups
from qwen_eval.sandbox.kernel import ConfineError
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox
from tests.sandbox.programs import answer, judge, named, naming, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened


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


def test_no_program_finds_flags_that_another_left() -> None:
    program = """
        import fcntl, os
        def f():
            flags = fcntl.fcntl(0, fcntl.F_GETFL)
            fcntl.fcntl(0, fcntl.F_SETFL, flags | os.O_APPEND | os.O_NONBLOCK)
            return flags & (os.O_APPEND | os.O_NONBLOCK)
    """
    with open_sandbox(1) as own:
        assert [answer(own, program) for _ in range(2)] == ["0", "0"]


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


@pytest.mark.parametrize("body", ["time.sleep(60)", "while True: pass"])
def test_closing_ends_what_runs_at_once(body: str) -> None:
    program = f"{naming('a-long-one')}\nimport time\ndef f():\n    {body}"
    sandbox = open_sandbox(2)
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


def test_a_worker_outlives_the_thread_that_started_it(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = worker._start

    def count(control: socket.socket) -> subprocess.Popen[bytes]:
        started.append(control)
        return start(control)

    monkeypatch.setattr(worker, "_start", count)
    with Sandbox(1) as sandbox:
        for _ in range(3):
            with ThreadPoolExecutor(1) as pool:
                verdict = pool.submit(judge, sandbox, "def f(): return 1", "candidate()")
                assert verdict.result().passed
    assert len(started) == 1


def test_an_interrupted_call_ends_its_program() -> None:
    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def strike() -> None:
        wait_for(lambda: named("interrupted"))
        os.kill(os.getpid(), signal.SIGUSR1)

    program = f"{naming('interrupted')}\nimport time\ndef f():\n    time.sleep(60)"
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with open_sandbox(1) as sandbox, ThreadPoolExecutor(1) as pool:
            struck = pool.submit(strike)
            with pytest.raises(KeyboardInterrupt):
                judge(sandbox, program, "candidate()", 60)
            struck.result()
            assert not named("interrupted")
            assert judge(sandbox, "def f(): return 1", "candidate()").passed
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_worker_that_was_killed_costs_no_sample() -> None:
    with open_sandbox(1) as sandbox:
        assert judge(sandbox, "def f(): return 1", "candidate()").passed
        slot = sandbox._slots.queue[0]
        assert slot.worker is not None
        assert slot.worker._process is not None
        slot.worker._process.kill()
        slot.worker._process.wait()
        assert judge(sandbox, "def f(): return 1", "candidate()").passed


KILLED = """
import signal, sys, threading
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.types import JudgeRequest
sandbox = open_sandbox()
session = sandbox.interpreter()
program = JudgeRequest(sys.argv[1] + "; f = __import__('time').sleep", "f(600)", "f", timeout=600)
threading.Thread(target=sandbox.judge, args=(program,)).start()
endless = sys.argv[1] + "; import time; time.sleep(600)"
threading.Thread(target=session.run, args=(endless, 600)).start()
signal.pause()
"""


def test_nothing_outlives_a_harness_that_is_killed(tmp_path: Path) -> None:
    name = f"left-{os.getpid()}"
    harness = subprocess.Popen(
        [sys.executable, "-c", KILLED, naming(name)],
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    try:
        wait_for(lambda: len(named(name)) == 2)
    finally:
        harness.kill()
        harness.wait()
    wait_for(lambda: not named(name))
    assert list(tmp_path.iterdir()) == []
    with open_sandbox(1):
        pass  # the next one sweeps up the control groups
    groups = {group for parent in own_groups().values() for group in parent.glob("qwen-eval-*")}
    assert not [group for group in groups if f"-{harness.pid}-" in group.name]


@pytest.mark.slow
def test_a_soak_leaves_nothing_behind() -> None:
    """Good, failing, hanging and hostile programs in a mixture, and then a look around."""
    found = soak(300)
    assert found["wrong_verdicts"] == {}
    assert set(found["left"].values()) == {0}, found["left"]
    assert found["memory_growth"] < 16 * 2**20


def test_more_identities_than_the_machine_knows_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Giving up root fails: no program is run, on whichever rung."""
    if os.getuid() != 0:
        pytest.skip("an ordinary user gives up nothing")
    monkeypatch.setattr("qwen_eval.sandbox.sandbox._FIRST_UID", 0xFFFFFFFF)
    with pytest.raises(RefusedError, match=r"cannot be contained here .*doctor") as refused:
        open_sandbox()
    assert refused.value.exit_code == 3


def before_the_start(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Have a zygote run those lines before it does anything."""
    imports, start = worker._START.rsplit("; ", 1)
    monkeypatch.setattr(worker, "_START", f"{imports}; {lines}; {start}")


def test_a_zygote_that_ends_is_an_error_not_a_wrong_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before_the_start(monkeypatch, "import os; os._exit(1)")
    with Sandbox(1) as sandbox:
        response = judge(sandbox, "def f(): pass", "candidate()")
    assert response.passed is None
    assert response.error == "sandbox: start: the contained process ended"


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [("{}", "not known how on"), ("{os.uname().machine: 9999}", "function not implemented")],
)
def test_a_root_that_cannot_be_left_is_refused(
    monkeypatch: pytest.MonkeyPatch, numbers: str, complaint: str
) -> None:
    """No step of the way is left out in silence, least of all the one that lets the machine go."""
    lines = (
        f"import os; from qwen_eval.sandbox import namespaces as n; n._SYS_PIVOT_ROOT = {numbers}"
    )
    before_the_start(monkeypatch, lines)
    with Sandbox(1) as sandbox:
        response = judge(sandbox, "def f(): pass", "candidate()")
    assert str(response.error).startswith("sandbox: namespaces: own root folder: ")
    assert complaint in str(response.error)


def test_a_filter_that_cannot_be_loaded_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without seccomp there is no rung, whatever else is there."""
    before_the_start(
        monkeypatch, "from qwen_eval.sandbox import seccomp; seccomp.load = lambda f: 1 / 0"
    )
    with pytest.raises(RefusedError, match="cannot be contained here"):
        open_sandbox()


def test_the_highest_rung_is_taken_and_the_missing_layer_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise ConfineError("cgroup: not here")

    if os.getuid() != 0:
        pytest.skip("an ordinary user has no control group to lose")
    monkeypatch.setattr("qwen_eval.sandbox.worker.Cgroup.make", refuse)
    with open_sandbox() as sandbox:
        assert sandbox.rung == "B"
        assert sandbox.isolation.startswith("rung B: ")
        assert sandbox.isolation.endswith("; missing: cgroup")
        assert judge(sandbox, "def f(): return 1", "assert candidate() == 1").passed


def test_an_ordinary_user_is_contained_as_well(tmp_path: Path) -> None:
    """Without root there is a user namespace instead of an identity of one's own."""
    python = shutil.which("python3.11", path="/usr/bin:/usr/local/bin")
    if os.getuid() != 0 or python is None or not os.stat(ROOT).st_mode & 0o005:
        pytest.skip("needs root, a python3.11 all can read, and a folder all can read")
    program = f"""
import os, sys
os.setgroups([]); os.setresgid(12345, 12345, 12345); os.setresuid(12345, 12345, 12345)
sys.path.insert(0, {str(ROOT)!r})
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.types import JudgeRequest
sandbox = open_sandbox()
print(sandbox.isolation)
for body in ("return x + 1", "return 0", "import os; os.kill(-1, 9); return 2",
             "import socket; socket.create_connection(('127.0.0.1', 1)); return 2",
             "open({str(tmp_path)!r} + '/left', 'w'); return 2",
             "open('/etc/passwd').read(); return 2",
             "import os; return x + 1 + any(map(os.path.exists, ('/etc', '/home', '/root')))",
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
    assert first.startswith("rung B: ")
    assert verdicts == ["True", *4 * ["False"], "False", "True", "False"]
    assert not (tmp_path / "left").exists()
