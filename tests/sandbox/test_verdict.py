"""A verdict cannot be forged: every attack fails, and does its trick where it is not contained."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from qwen_eval.sandbox.codec import read_frame, write_frame
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.roles import ROLES
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.sandbox.trial import WEAKER
from qwen_eval.sandbox.worker import memory_file
from qwen_eval.types import JudgeRequest, Response
from tests.sandbox.programs import judge
from tests.sandbox.published import humaneval, mbpp

RIGHT = "def f(x):\n    return x + 1\n"
TESTS = "assert candidate(1) == 2\nassert candidate(10) == 11\n"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened


def judged(sandbox: Sandbox, requests: dict[Any, JudgeRequest]) -> dict[Any, Response]:
    with ThreadPoolExecutor(2) as pool:
        return dict(zip(requests, pool.map(sandbox.judge, requests.values()), strict=True))


@pytest.mark.slow
def test_every_canonical_humaneval_program_passes(sandbox: Sandbox) -> None:
    verdicts = judged(sandbox, humaneval())
    assert len(verdicts) == 164
    assert {name: one for name, one in verdicts.items() if not one.passed} == {}


@pytest.mark.slow
def test_a_stub_passes_no_humaneval_test(sandbox: Sandbox) -> None:
    verdicts = judged(sandbox, humaneval("    return None\n"))
    assert [name for name, one in verdicts.items() if one.passed is not False] == []


# Tests that build a Node or a Pair, pass a type, or ask for the size of an object of the program.
SHARED = (367, 533, 596, 601, 927)


@pytest.mark.slow
def test_mbpp_programs_pass_but_for_those_that_share_objects_with_their_tests(
    sandbox: Sandbox,
) -> None:
    requests = mbpp()
    verdicts = judged(sandbox, requests)
    assert len(verdicts) == 974
    assert [name for name, one in verdicts.items() if not one.passed] == list(SHARED)
    assert not any(one.error for one in verdicts.values())
    alone = judged(sandbox, {name: replace(requests[name], alone=True) for name in SHARED})
    for verdict in alone.values():
        assert (verdict.passed, verdict.text) == (True, f"passed ({WEAKER})")


def test_right_and_wrong(sandbox: Sandbox) -> None:
    assert judge(sandbox, RIGHT, TESTS).passed is True
    wrong = judge(sandbox, "def f(x):\n    return 2\n", TESTS)
    assert (wrong.passed, wrong.error) == (False, None)
    assert wrong.text == "AssertionError"


def test_the_text_says_what_went_wrong(sandbox: Sandbox) -> None:
    assert judge(sandbox, "def f(x):\n    return y\n", TESTS).text.startswith("NameError: name 'y'")
    assert judge(sandbox, "def f(x)\n    return 1", TESTS).text.startswith("SyntaxError")
    assert judge(sandbox, "def g(x):\n    return 1", TESTS).text.endswith("defines no f")
    assert judge(sandbox, "f = lambda x: object()", TESTS).text.startswith("TypeError: a value of")
    text = judge(
        sandbox, "def f(x):\n    raise ValueError('\\x1b[31m\\0\\n' + 'y' * 10**6)", TESTS
    ).text
    assert text.isprintable()
    assert len(text) < 400


def test_exceptions_cross_as_themselves(sandbox: Sandbox) -> None:
    tests = """
        try:
            candidate(0)
        except ZeroDivisionError:
            return
        raise AssertionError("no exception")
    """
    assert judge(sandbox, "def f(x):\n    return 1 / x", tests).passed is True
    own = "class E(Exception): pass\ndef f(x):\n    raise E('mine')"
    assert judge(sandbox, own, TESTS).text == "RuntimeError: mine"


def test_tests_that_call_nothing_pass_nothing(sandbox: Sandbox) -> None:
    assert judge(sandbox, RIGHT, "pass").text == "the tests called no function"


def test_the_preamble_is_the_prompts_own(sandbox: Sandbox) -> None:
    preamble = "def helper(x):\n    return x + 1\n"
    candidate = "def helper(x):\n    return 0\ndef f(x):\n    return 0\n"
    tests = "def check(candidate):\n    assert candidate(1) == helper(1)\n"
    verdict = Sandbox.judge(sandbox, JudgeRequest(candidate, tests, "f", preamble))
    assert verdict.passed is False, "the candidate's helper must not be the tests' helper"


FORGERIES = {
    "exit at import": "import sys\nsys.exit(0)\n",
    "exit in the call": "import sys\ndef f(x):\n    sys.exit(0)\n",
    "hard exit": "import os\ndef f(x):\n    os._exit(0)\n",
    "raise SystemExit": "def f(x):\n    raise SystemExit(0)\n",
    "equal to all": """
        class Yes:
            def __eq__(self, other): return True
            __hash__ = None
        def f(x): return Yes()
    """,
    "int that lies": """
        class Yes(int):
            def __eq__(self, other): return True
            def __ne__(self, other): return False
            __hash__ = int.__hash__
        def f(x): return Yes(0)
    """,
    "list that lies": """
        class Yes(list):
            def __eq__(self, other): return True
        def f(x): return Yes()
    """,
    "print the verdict": """
        import json, sys
        def f(x):
            print(json.dumps(["passed", "passed"]), flush=True)
            print("passed", file=sys.stderr, flush=True)
            return 0
    """,
    "write a verdict to every pipe": """
        import json, os
        def f(x):
            for fd in range(3, 256):
                try: os.write(fd, b'["passed", "passed"]\\n')
                except OSError: pass
            return 0
    """,
    "write a frame to every pipe": """
        import json, os, struct
        body = json.dumps(["0", "returned", ["i", "0x2"]]).encode()
        for fd in range(3, 256):
            try: os.write(fd, struct.pack(">I", len(body)) + body)
            except OSError: pass
        def f(x): return 0
    """,
    "walk the frames": """
        import sys
        def f(x):
            frame = sys._getframe()
            while frame:
                for name, value in list(frame.f_locals.items()):
                    if isinstance(value, list): value.append("passed")
                    if name in ("passed", "failure", "fault"): frame.f_locals[name] = "passed"
                frame = frame.f_back
            return 0
    """,
    "hunt the heap": """
        import gc
        def f(x):
            for thing in gc.get_objects():
                if isinstance(thing, dict) and "passed" in thing: thing["passed"] = True
            return 0
    """,
    "redefine what tests use": """
        import builtins, math
        builtins.abs = lambda x: 0
        builtins.AssertionError = ZeroDivisionError
        math.isclose = lambda *a, **k: True
        builtins.isinstance = lambda *a: True
        def check(candidate): pass
        def f(x): return 0
    """,
    "trace and exit hooks": """
        import atexit, os, sys
        atexit.register(lambda: os._exit(0))
        sys.excepthook = lambda *a: os._exit(0)
        sys.settrace(lambda *a: None)
        def f(x): return 0
    """,
    "poison modules and the folder": """
        import sys, types
        open("sitecustomize.py", "w").write("import os; os._exit(0)")
        sys.modules["qwen_eval.sandbox.codec"].encode = lambda *a: ["i", "0x2"]
        def f(x): return 0
    """,
    "swallow everything": """
        def f(x):
            while True:
                try:
                    raise SystemExit
                except BaseException:
                    return 0
    """,
    "kill the neighbours": """
        import os, signal
        def f(x):
            for target in (-1, 0, os.getppid()):
                try: os.kill(target, signal.SIGKILL)
                except OSError: pass
            return 0
    """,
    "nest the answer": """
        def f(x):
            value = []
            for _ in range(100_000): value = [value]
            return value
    """,
    "an answer over the limit": "def f(x):\n    return 'x' * (20 << 20)\n",
    "hide in a cycle": "def f(x):\n    value = []\n    value.append(value)\n    return value\n",
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forgery_fails(sandbox: Sandbox, name: str) -> None:
    verdict = judge(sandbox, FORGERIES[name], TESTS)
    assert verdict.error is None
    assert verdict.passed is False


def test_a_reply_before_its_question_is_no_answer(sandbox: Sandbox) -> None:
    """Two answers to one call: the second must not be taken for the answer to the next."""
    program = """
        import sys
        from qwen_eval.sandbox import codec
        frame = sys._getframe(2)
        def f(x):
            replies, number = frame.f_locals["replies"], sys._getframe(1).f_locals["number"]
            for value in (x + 1, 11):
                codec.write_frame(replies, [number, "returned", ["i", hex(value)]])
            return 0
    """
    once = "assert candidate(1) == 2"
    assert judge(sandbox, program, once).passed is True, "the control: the trick itself works"
    verdict = judge(sandbox, program, TESTS)
    assert (verdict.passed, verdict.text) == (False, "an answer to no question")


def test_a_broken_conversation_fails_even_where_tests_catch_everything(sandbox: Sandbox) -> None:
    tests = """
        for x in (1, 2):
            try:
                candidate(x)
            except BaseException:
                pass
    """
    verdict = judge(sandbox, "import os\ndef f(x):\n    os._exit(0)\n", tests)
    assert (verdict.passed, verdict.text) == (False, "the other side ended")


def test_changing_an_argument_does_not_reach_the_tests(sandbox: Sandbox) -> None:
    program = "def f(values):\n    values.clear()\n    return values\n"
    tests = "given = [3, 1]\nassert candidate(given) == given"
    assert judge(sandbox, program, tests).passed is False


def test_the_tests_are_not_to_be_found(sandbox: Sandbox) -> None:
    """The expected answer is in the judge's process only."""
    program = """
        import gc, glob
        def f(x):
            seen = [str(thing) for thing in gc.get_objects() if isinstance(thing, (str, dict))]
            return any("secret_" + "answer" in text for text in seen) or bool(glob.glob("/proc/*"))
    """
    tests = "secret_answer = 5\nassert candidate(1) is False"
    assert judge(sandbox, program, tests).passed is True


def test_no_line_of_a_program_runs_before_its_judge_has_started() -> None:
    """Else a program could make its judge fail to start, and so turn a failure of its own into a
    failure of the sandbox, which no score counts."""
    program = "def f(x):\n    return x\nimport os\nos.write(1, b'ran')\n"
    printed, out = os.pipe()
    call_end, call_start = os.pipe()
    reply_end, reply_start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(out, 1)
            job = memory_file({"program": program, "entry_point": "f"})
            ROLES["candidate"](job, call_end, reply_start)
        finally:
            os._exit(0)
    try:
        assert read_frame(reply_end) == "ready"
        assert select.select([printed], [], [], 0.5)[0] == []
        write_frame(call_start, "begin")
        assert select.select([printed], [], [], 20.0)[0] == [printed]
        assert os.read(printed, 10) == b"ran"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        for fd in (printed, out, call_end, call_start, reply_end, reply_start):
            os.close(fd)
