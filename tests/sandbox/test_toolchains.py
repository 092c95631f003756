"""Programs in JavaScript, Java and C++: compiled, run, judged and held in the real sandbox."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.cli.setup import load_task, load_tasks
from qwen_eval.datasets import TaskData
from qwen_eval.errors import MissingToolError, RefusedError
from qwen_eval.runner import Runner
from qwen_eval.sandbox.layers import LAYERS
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox, _plan
from qwen_eval.sandbox.toolchains import TOOLCHAINS
from qwen_eval.sandbox.trial import WEAKER
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.taskspec import find_task
from qwen_eval.types import Item, JudgeRequest, Response
from tests.sandbox.programs import named, wait_for

KEYS = {"js": "JavaScript", "java": "Java", "cpp": "C++"}
EACH = pytest.mark.parametrize("key", ["js", pytest.param("java", marks=pytest.mark.slow), "cpp"])


def needs(language: str) -> None:
    for tool in TOOLCHAINS[language].tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox(1) as opened:
        if "namespaces" not in opened.layers:
            pytest.skip(f"no namespaces here: {opened.isolation}")
        yield opened


def items(key: str) -> list[Item]:
    needs(KEYS[key])
    return load_task(TaskData(find_task(f"humanevalpack_{key}")[0], "sample"), "strict").items


def request(item: Item, body: str) -> JudgeRequest:
    assert item.program is not None
    return replace(item.program, candidate=item.program.candidate + body)


def cpp(sandbox: Sandbox, body: str, check: str = "f() == 0", timeout: float = 10.0) -> Response:
    """Judge a program in C++ whose function is `int f()`."""
    needs("C++")
    include = [
        *("stdio", "stdlib", "string", "unistd", "errno", "fcntl", "signal", "sys/prctl"),
        *("sys/resource", "sys/socket", "sys/stat", "sys/syscall", "sys/wait"),
    ]
    head = "".join(f"#include <{name}.h>\n" for name in include)
    tests = f"#include <assert.h>\nint main() {{\n    assert({check});\n}}\n"
    program = f"{head}int f() {{\n{body}\n}}\n"
    return sandbox.judge(JudgeRequest(program, tests, "f", timeout=timeout, language="C++"))


@pytest.mark.parametrize("language", TOOLCHAINS)
def test_the_known_program_passes(language: str, sandbox: Sandbox) -> None:
    needs(language)
    known = TOOLCHAINS[language].sample
    assert sandbox.judge(known).passed
    wrong = replace(known, candidate=known.candidate.replace("2 * x", "3 * x"))
    assert sandbox.judge(wrong).passed is False


@EACH
def test_right_programs_pass_and_wrong_ones_fail(key: str, sandbox: Sandbox) -> None:
    for item in items(key):
        right = sandbox.judge(request(item, item.sample.row["canonical_solution"]))
        assert right.passed, right
        assert right.text.endswith(f"({WEAKER})"), "no split judge holds the tests"
        wrong = sandbox.judge(request(item, item.sample.row["buggy_solution"]))
        assert wrong.passed is False, wrong
        assert "ssert" in wrong.text


CLOSED = {"js": "}\n", "java": "return 0;\n}\n}", "cpp": "}\n"}


@EACH
def test_what_follows_the_function_is_neither_compiled_nor_run(key: str, sandbox: Sandbox) -> None:
    asked = items(key)[:1]
    row = asked[0].sample.row
    rambling = row["canonical_solution"] + "\n\n" + row["prompt"] + row["buggy_solution"]
    asked = [replace(asked[0], reference=rambling)]
    backend = open_backend("mock", "oracle", BackendOptions())
    (done,) = Runner(backend, SOLVERS["code"], sandbox).run(asked)
    assert done.score.values == {"pass@1": 1.0}, done


LEAVES = {
    "js": ["process.exit(0);\n", "return 0;\n}\nreturn;\n{\n", "process.reallyExit(0);\n"],
    "java": ["System.exit(0);\n", "Runtime.getRuntime().halt(0);\n"],
    "cpp": ["std::exit(0);\n", "std::_Exit(0);\n", "std::quick_exit(0);\n"],
}


@EACH
def test_a_program_that_leaves_with_status_0_has_not_passed(key: str, sandbox: Sandbox) -> None:
    item = items(key)[0]
    for body in LEAVES[key]:
        ended = sandbox.judge(request(item, body + CLOSED[key]))
        assert ended.passed is False, (body, ended)
        assert ended.text.startswith("ended before its tests did"), (body, ended)


def test_a_program_that_does_not_compile_says_where(sandbox: Sandbox) -> None:
    failed = cpp(sandbox, "return undefined_name;")
    assert failed.passed is False
    assert failed.text.startswith("does not compile: main.cpp:")
    assert "undefined_name" in failed.text


@EACH
def test_a_program_that_never_ends_is_stopped(key: str, sandbox: Sandbox) -> None:
    item = items(key)[0]
    body = "for (int i = 1; i > 0; i = i % 7 + 1) {}\n"  # of which javac believes that it ends
    body = body.replace("int", "let") if key == "js" else body
    stopped = sandbox.judge(replace(request(item, body + CLOSED[key]), timeout=1.0))
    assert stopped.passed is False
    assert stopped.text.startswith("timeout: 1 s of processor time"), stopped


@pytest.mark.slow
def test_a_program_that_only_waits_is_stopped(sandbox: Sandbox) -> None:
    stopped = cpp(sandbox, "sleep(600); return 0;", timeout=1.0)
    assert stopped.text.startswith("timeout: 5 s on the wall"), stopped


def test_a_program_that_prints_without_end_is_stopped(sandbox: Sandbox) -> None:
    flood = cpp(sandbox, 'for (;;) puts("line after line");')
    assert flood.passed is False
    assert flood.text.startswith("printed more than 1 MiB"), flood


# --- what holds it: an assertion inside says what the kernel answered -------------------------


def test_no_network_in_javascript(sandbox: Sandbox) -> None:
    needs("JavaScript")
    program = """
const f = () => {
  const net = require("node:net");
  net.connect(1, "127.0.0.1").on("connect", () => process.stdout.write("connected"))
    .on("error", (error) => { if (error.code !== "EPERM") throw error; });
  return true;
};
"""
    wanted = JudgeRequest(program, "console.assert(f())", "f", timeout=10.0, language="JavaScript")
    held = sandbox.judge(wanted)
    assert held.passed, held


def test_nothing_outside_is_there(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("open to all")
    (tmp_path / "secret").chmod(0o644)
    hidden = [tmp_path / "secret", Path("/etc/passwd"), Path("/proc/self/maps"), Path("/root")]
    assert all(path.exists() for path in hidden), "a control: they are there outside"
    tries = [f'if (!access("{path}", F_OK) || errno != ENOENT) return 1;' for path in hidden]
    held = cpp(sandbox, "\n".join([*tries, "return 0;"]))
    assert held.passed, held
    needs("JavaScript")
    program = f"const f = () => require('fs').existsSync({json.dumps(str(tmp_path))});\n"
    asked = JudgeRequest(program, "console.assert(f() === false)", "f", language="JavaScript")
    assert sandbox.judge(replace(asked, timeout=10.0)).passed


def test_nothing_but_its_own_folder_can_be_written(sandbox: Sandbox) -> None:
    body = """
    const char *places[] = {"/made", "/usr/include/made", "/usr/bin/g++", "/dev/made", "/etc/made"};
    for (int n = 0; n < 5; n++) if (open(places[n], O_WRONLY | O_CREAT, 0644) >= 0) return n + 1;
    return open("/tmp/work/made", O_WRONLY | O_CREAT, 0644) < 0 ? 9 : 0;
    """
    held = cpp(sandbox, body)
    assert held.passed, held


@pytest.mark.slow
def test_what_it_starts_is_bounded_and_ends_with_it(sandbox: Sandbox) -> None:
    name = "packs-bomb"
    bomb = f"""
    prctl(PR_SET_NAME, "{name}");
    int made = 0;
    while (fork() >= 0) if (++made > 500) return 0;
    for (;;) pause();
    """
    stopped = cpp(sandbox, bomb, timeout=1.0)
    assert stopped.passed is False, stopped
    wait_for(lambda: not named(name))
    assert cpp(sandbox, "return 0;").passed, "and the next program does not see it"


def test_a_child_that_is_left_behind_holds_up_nothing(sandbox: Sandbox) -> None:
    name = "packs-orphan"
    orphan = f"""
    if (prctl(PR_SET_NAME, "{name}")) return 1;
    if (fork() == 0) {{
        setsid();
        for (;;) pause();
    }}
    return 0;
    """
    done = cpp(sandbox, orphan)
    assert done.passed, done
    wait_for(lambda: not named(name))


def test_a_verdict_cannot_be_written(sandbox: Sandbox) -> None:
    forged = """
    const char *line = "[\\"passed\\", \\"passed\\"]\\n";
    for (int fd = 0; fd < 1024; fd++) write(fd, line, strlen(line));
    _Exit(0);
    """
    held = cpp(sandbox, forged)
    assert held.passed is False, held
    assert held.text.startswith("ended before its tests did")


def test_who_judges_cannot_be_ended_or_limited(sandbox: Sandbox) -> None:
    attack = """
    for (int number = 1; number < 32; number++) kill(1, number);
    struct rlimit none = {0, 0};
    if (syscall(SYS_prlimit64, 1, RLIMIT_CPU, &none, 0) == 0 || errno != EPERM) return 1;
    return 0;
    """
    held = cpp(sandbox, attack)
    assert held.passed, held
    # It can end nothing but what it started, and that is not the one that answers for it.
    assert cpp(sandbox, "kill(-1, SIGKILL); return 0;").passed


def test_ways_out_are_refused(sandbox: Sandbox) -> None:
    attempts = [
        "syscall(SYS_unshare, 0x10000000)",
        "syscall(SYS_ptrace, 0, 0, 0, 0)",
        "syscall(SYS_mount, 0, 0, 0, 0, 0)",
        'syscall(SYS_memfd_create, "x", 0)',
        'syscall(SYS_execveat, 3, "", 0, 0, 0x1000)',
        "syscall(SYS_process_vm_writev, 1, 0, 0, 0, 0, 0)",
        "syscall(SYS_setuid, 0)",
        'chown("/tmp/work", 0, 0)',
        "socket(AF_INET, SOCK_STREAM, 0)",
        "socket(AF_UNIX, SOCK_STREAM, 0)",
    ]
    tries = "\n".join(
        f"if ({attempt} >= 0 || (errno != EPERM && errno != ENOSYS)) return {number};"
        for number, attempt in enumerate(attempts, 1)
    )
    held = cpp(sandbox, f"{tries}\nreturn 0;")
    assert held.passed, held
    # A control: such a program does fail where one of them succeeds.
    assert cpp(sandbox, f"{tries.replace(attempts[-1], 'dup(1)')}\nreturn 0;").passed is False


def test_a_file_that_asks_for_another_user_gets_none(sandbox: Sandbox) -> None:
    body = """
    if (getenv("AGAIN")) _Exit(geteuid() == getuid() && getuid() != 0 ? 7 : 8);
    if (chmod("/tmp/work/main", 06755)) return 1;
    int status, child = fork();
    char *arguments[] = {(char *)"main", 0}, *environment[] = {(char *)"AGAIN=1", 0};
    if (child == 0) _Exit(execve("/tmp/work/main", arguments, environment));
    waitpid(child, &status, 0);
    return WEXITSTATUS(status) != 7;
    """
    held = cpp(sandbox, body)
    assert held.passed, held


@pytest.mark.slow
def test_memory_has_an_end(sandbox: Sandbox) -> None:
    body = """
    for (long taken = 0; taken < (16L << 30); taken += 64 << 20) {
        char *more = (char *)malloc(64 << 20);
        if (!more) return 1;
        memset(more, 1, 64 << 20);
    }
    return 0;
    """
    held = cpp(sandbox, body)
    assert held.error is None, held
    assert held.passed is False, held


def test_a_run_says_that_no_split_judge_held_the_tests() -> None:
    needs("C++")
    with open_sandbox(1, languages=["Python", "C++"]) as opened:
        assert opened.isolation.endswith(f"; programs in C++: {WEAKER}")
    with open_sandbox(1, languages=["Python"]) as opened:
        assert WEAKER not in opened.isolation


# --- where it cannot run ----------------------------------------------------------------------


def test_nothing_less_than_namespaces_runs_them() -> None:
    with Sandbox(1, {*LAYERS} - {"namespaces", "cgroup"}) as less:
        refused = less.judge(TOOLCHAINS["JavaScript"].sample)
    assert refused.passed is None
    assert refused.error == "sandbox: namespaces: programs in JavaScript run in nothing less"


def test_a_toolchain_that_does_not_work_is_told_before_the_first_sample(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, sandbox: Sandbox
) -> None:
    (tmp_path / "node").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "node").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _plan.cache_clear()
    try:
        with pytest.raises(RefusedError, match="programs in JavaScript do not run in the sandbox"):
            open_sandbox(1, languages=["JavaScript"])
    finally:
        _plan.cache_clear()


@pytest.mark.parametrize(("key", "tool"), [("js", "node"), ("java", "javac"), ("cpp", r"g\+\+")])
def test_a_toolchain_that_is_not_there_is_named(
    key: str, tool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = f"--tasks humanevalpack_{key}: asks for programs in .*, and {tool} is not on the PATH"
    with pytest.raises(MissingToolError, match=said):
        load_tasks(f"humanevalpack_{key}", None, None)
