"""A session keeps its state, loses nothing that was printed, and holds what it starts."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from qwen_eval.errors import RefusedError
from qwen_eval.sandbox.interpreter import OUTPUT_LIMIT, Cell, Interpreter
from qwen_eval.sandbox.layers import LAYERS
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox
from tests.sandbox.programs import named, naming, wait_for


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        if "namespaces" not in opened.layers:
            pytest.skip("no namespaces here, so no sessions")
        yield opened


@pytest.fixture
def session(sandbox: Sandbox) -> Iterator[Interpreter]:
    with sandbox.interpreter(files={"table.csv": b"a,b\n1,2\n"}) as opened:
        yield opened


def test_state_is_kept_and_the_last_expression_is_the_value(session: Interpreter) -> None:
    assert session.run("x = 20\ndef twice(n):\n    return 2 * n").value is None
    cell = session.run("print('so far')\ntwice(x) + 2")
    assert (cell.outcome, cell.output, cell.value) == ("done", "so far\n", "42")
    assert session.run("x = 1;").value is None
    assert session.run("").outcome == "done"


def test_files_are_there_and_new_ones_stay(session: Interpreter) -> None:
    assert session.run("open('table.csv').read()").value == r"'a,b\n1,2\n'"
    session.run("open('new', 'w').write('kept')")
    assert session.run("open('new').read()").value == "'kept'"
    assert session.run("import os; os.getcwd(), sorted(os.listdir('.'))").value == (
        "('/tmp/work', ['new', 'table.csv'])"
    )


def test_an_error_names_the_line_of_the_cell_and_keeps_the_state(session: Interpreter) -> None:
    session.run("y = 3\ndef f(n):\n    return n / 0")
    cell = session.run("z = 4\nf(y)")
    assert cell.outcome == "raised"
    assert cell.error.splitlines()[0] == '  File "<cell>", line 2, in <module>'
    assert cell.error.splitlines()[-1] == "ZeroDivisionError: division by zero"
    assert session.run("y + z").value == "7"
    assert session.run("def (").error.splitlines()[-1] == "SyntaxError: invalid syntax"
    assert session.run("raise SystemExit(3)").error == (
        '  File "<cell>", line 1, in <module>\nSystemExit: 3\n'
    )
    assert session.run("y").value == "3", "leaving is an error of the cell, not of the session"


def test_a_late_cell_is_stopped_and_what_it_printed_is_there(session: Interpreter) -> None:
    session.run("kept = 1")
    cell = session.run("import time\nprint('begun')\nkept = 2\ntime.sleep(60)", 0.5)
    assert (cell.outcome, cell.output, cell.error) == ("timeout", "begun\n", "stopped after 0.5 s")
    assert session.run("kept").value == "2"


def test_another_thread_may_close_a_session_whose_cell_runs(sandbox: Sandbox) -> None:
    session = sandbox.interpreter()
    assert session.run("1").value == "1"
    cells = list[Cell]()
    worker = threading.Thread(
        target=lambda: cells.append(session.run("print('in', flush=True)\nwhile True: pass", 600))
    )
    worker.start()
    while not worker.is_alive() or not session._running.locked():
        time.sleep(0.01)
    session.close()
    worker.join(60)
    assert [(cell.outcome, cell.error) for cell in cells] == [("ended", "closed")]
    assert session.run("1") == Cell("ended", error="closed")
    session.close()
    assert not session._worker.lives


@pytest.mark.parametrize(
    "code",
    [
        "import signal; signal.signal(signal.SIGALRM, signal.SIG_IGN)\nwhile True: pass",
        "sum(range(10**12))",  # in C, and it looks at no signal
    ],
)
def test_a_cell_that_cannot_be_stopped_costs_the_state(session: Interpreter, code: str) -> None:
    session.run("kept = 1")
    begun = time.monotonic()
    cell = session.run("print('begun')\n" + code, 0.5)
    assert (cell.outcome, cell.output, cell.error) == ("ended", "begun\n", "stopped after 0.5 s")
    assert time.monotonic() - begun < 20
    assert session.run("kept").error.endswith("NameError: name 'kept' is not defined\n")
    assert session.run("open('table.csv').read()").outcome == "done", "the files are there again"


@pytest.mark.parametrize("code", ["import os; os._exit(0)", "import ctypes; ctypes.string_at(0)"])
def test_a_session_that_ends_is_begun_anew(session: Interpreter, code: str) -> None:
    cell = session.run(f"print('last words')\n{code}")
    assert (cell.outcome, cell.output, cell.error) == ("ended", "last words\n", "the session ended")
    assert session.run("1 + 1").value == "2"


def test_it_may_fork(session: Interpreter) -> None:
    code = """
import multiprocessing
with multiprocessing.get_context("fork").Pool(2) as pool:
    found = pool.map(abs, range(-3, 0))
found
"""
    assert session.run(code, 30).value == "[3, 2, 1]"
    assert session.run("import subprocess; subprocess.run(['/bin/sh'])").outcome == "raised"


def test_a_child_that_reaches_the_end_of_its_cell_answers_nothing(session: Interpreter) -> None:
    code = """
import os, time
child = os.fork()
time.sleep(0.3 if child else 0)
"parent" if child else "child"
"""
    assert session.run(code).value == "'parent'"
    assert session.run("1 + 1").value == "2"


def test_where_memory_runs_out_sessions_go_first(session: Interpreter) -> None:
    session.run(naming("goes-first"))
    (found,) = named("goes-first")
    assert (found.parent / "oom_score_adj").read_text().strip() == "1000"


def test_what_it_started_ends_with_it(sandbox: Sandbox) -> None:
    with sandbox.interpreter() as session:
        cell = session.run(f"""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        {naming("a-daemon")}
        time.sleep(600)
    os._exit(0)
os.wait()[1]
""")
        assert cell.value == "0"
        wait_for(lambda: named("a-daemon"))
        assert session.run("1").value == "1", "it runs beside the session"
    assert not named("a-daemon")


def test_a_child_that_holds_the_pipes_blocks_nobody(session: Interpreter) -> None:
    begun = time.monotonic()
    code = "import os, time\nif os.fork() == 0:\n    time.sleep(600)\n    os._exit(0)\n"
    assert session.run(f"{code}1").value == "1"
    assert session.run(f"{code}os._exit(0)").outcome == "ended"
    assert time.monotonic() - begun < 20


def test_processes_are_counted(session: Interpreter) -> None:
    cell = session.run(
        """
import os, time
started = 0
try:
    while started < 500:
        if os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        started += 1
except OSError as error:
    print(type(error).__name__)
started < 100
""",
        60,
    )
    assert (cell.output, cell.value) == ("BlockingIOError\n", "True")


def test_a_flood_is_cut(session: Interpreter) -> None:
    cell = session.run("for _ in range(20): print('x' * (1 << 20))", 60)
    assert cell.outcome == "done"
    assert len(cell.output) < OUTPUT_LIMIT + 100
    assert cell.output.endswith("\n[the rest of the output was cut]")
    assert session.run("'x' * (20 << 20)").outcome == "done"


HOSTILE = r"""'\x1b[31mred\x1b[0m \x1b]0;title\x07\x00 \ud800 \u202e <script> \x9b2J &amp;'"""


def test_hostile_text_is_made_harmless(session: Interpreter) -> None:
    cells = [
        session.run(
            f"import sys; sys.stdout.reconfigure(errors='surrogatepass'); print({HOSTILE})"
        ),
        session.run(f"class C:\n    def __repr__(self): return {HOSTILE}\nC()"),
        session.run(f"raise ValueError({HOSTILE})"),
        session.run(f"import os; os.write(2, {HOSTILE}.encode('utf-8', 'replace') + bytes([255]))"),
    ]
    for text in (cells[0].output, cells[1].value, cells[2].error, cells[3].output):
        assert text
        assert all(letter.isprintable() or letter in "\n\t" for letter in text)
        assert "<script>" in text, "it is text, not markup: who writes pages escapes it"
        assert "red " in text


@pytest.mark.parametrize(
    "reply",
    [
        '{"outcome": "done", "value": 3, "error": "", "figures": []}',
        '{"outcome": "done", "value": "x", "error": "", "figures": ["PHN2Zz4="]}',
        '{"outcome": "passed", "value": "x", "error": "", "figures": []}',
        "[]",
        '{"outcome": ' + "[" * 100_000,
        "1" * 100_000,
    ],
)
def test_a_forged_reply_is_none(session: Interpreter, reply: str) -> None:
    code = f"""
import os, struct
body = {reply!r}.encode()
os.write(5, struct.pack(">I", len(body)) + body)
while True: pass
"""
    cell = session.run(code, 3)
    assert cell.outcome == "ended"
    assert cell.figures == ()
    assert session.run("1").value == "1"


def test_nothing_of_the_machine_is_seen(session: Interpreter) -> None:
    code = f"""
import os
[path for path in ("/etc/passwd", "/proc/self", "/home", {__file__!r}) if os.path.exists(path)]
"""
    assert session.run(code).value == "[]"
    assert (
        session.run("import socket; socket.socket()")
        .error.splitlines()[-1]
        .startswith("PermissionError")
    )
    assert session.run("import pytest").error.splitlines()[-1].startswith("ModuleNotFoundError")


def test_sessions_know_nothing_of_each_other(sandbox: Sandbox) -> None:
    with sandbox.interpreter() as one, sandbox.interpreter() as other:
        one.run("open('/tmp/note', 'w').write('x'); x = 1")
        assert other.run("import os; os.listdir('/tmp')").value == "['shm', 'work']"
        assert other.run("x").outcome == "raised"


def test_packages_by_name_with_what_they_require_and_no_others(sandbox: Sandbox) -> None:
    pytest.importorskip("matplotlib")
    with sandbox.interpreter(["matplotlib"]) as session:
        cell = session.run(
            "import matplotlib.pyplot as plot, numpy\n"
            "plot.plot(numpy.arange(4)); plot.figure(); plot.bar([1], [2]);",
            120,
        )
        assert (cell.outcome, cell.error) == ("done", "")
        sizes = [picture[16:24] for picture in cell.figures]
        assert sizes == [bytes.fromhex("00000280000001e0")] * 2, "640 by 480, as PNG says it"
        assert session.run("1").figures == (), "shown once"
        assert session.run("import torch").outcome == "raised"


def test_an_unknown_package_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(PackageNotFoundError, match="no-such-package"):
        sandbox.interpreter(["no-such-package"])


def test_without_namespaces_there_are_no_sessions() -> None:
    with (
        Sandbox(1, set(LAYERS) - {"namespaces"}) as sandbox,
        pytest.raises(RefusedError, match=r"rung C.*sandbox doctor") as refused,
    ):
        sandbox.interpreter()
    assert refused.value.exit_code == 3


def test_a_session_whose_worker_was_killed_is_begun_anew_and_keeps_no_pipe(
    sandbox: Sandbox,
) -> None:
    with sandbox.interpreter() as session:
        session.run("x = 1")
        before = len(os.listdir("/proc/self/fd"))
        killed = session._worker._process
        assert killed is not None
        killed.kill()
        killed.wait()
        wait_for(lambda: session.run("x").outcome == "ended")
        assert session.run("x").error.endswith("NameError: name 'x' is not defined\n")
        assert len(os.listdir("/proc/self/fd")) == before


def test_closing_twice_and_leaving_nothing(sandbox: Sandbox) -> None:
    before = len(os.listdir("/proc/self/fd"))
    session = sandbox.interpreter()
    session.run("1")
    session.close()
    session.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_example_of_the_documentation_runs(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    text = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(example, "docs/sandbox.md", "exec"), {})
    assert capsys.readouterr().out == "True passed\ndone  np.int64(3)  0\n"
