"""Languages other than Python: what compiles and runs them, and what of this machine it needs.

A program that holds its own tests could end with status 0 before it reaches them. So a secret line
is printed where the tests are over: by their last statement, as `main` is left, or by what called
it. That line must be the last of the output.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qwen_eval.errors import MissingToolError
from qwen_eval.sandbox.layout import Layout
from qwen_eval.sandbox.namespaces import WORK_FOLDER
from qwen_eval.types import JudgeRequest

COMPILE_SECONDS = 30
_MAIN = re.compile(r"\bmain\s*\([^)]*\)\s*\{")
_LOADERS = ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": WORK_FOLDER,
    "TMPDIR": WORK_FOLDER,
    "LANG": "C.UTF-8",
}
# A virtual machine takes what it sees of the machine: it is told what it has.
_JAVA_MEMORY = (
    *("-Xmx512m", "-XX:ReservedCodeCacheSize=64m", "-XX:CompressedClassSpaceSize=64m"),
    *("-XX:+UseSerialGC", "-XX:-UsePerfData"),
)


@dataclass(frozen=True)
class Toolchain:
    """One language's. Commands lie where `shown` puts them."""

    tools: tuple[str, ...]
    """commands that must be on this machine's path"""
    shown: Callable[[], Mapping[str, str]]
    """place -> this machine's folder or file, as in a Layout"""
    files: Callable[[JudgeRequest, str], dict[str, str]]
    """(request, secret line) -> source texts by name"""
    commands: Callable[[], tuple[list[str], ...]]
    """what to start, one after the other; the last runs the program"""
    sample: JudgeRequest
    """a right program: where it does not pass, the toolchain does not work in here"""
    libraries: Callable[[], str] = str
    """a folder of shared libraries that they find through /proc elsewhere; empty for none"""


def toolchain(language: str) -> Toolchain:
    """Raises MissingToolError where the sandbox runs no such programs, or this machine lacks what
    does."""
    if language not in TOOLCHAINS:
        known = ", ".join(["Python", *TOOLCHAINS])
        raise MissingToolError(f"programs in {language}, and the sandbox runs {known} only")
    found = TOOLCHAINS[language]
    for tool in found.tools:
        if shutil.which(tool) is None:
            raise MissingToolError(
                f"programs in {language}, and {tool} is not on the PATH here: install it"
            )
    return found


def with_toolchain(base: Layout, language: str) -> Layout:
    """A program's file system with what its language needs, and the loader of programs."""
    shown, links = dict(base["shown"]), dict(base["links"])
    wanted = dict(toolchain(language).shown())
    for loader in filter(os.path.exists, _LOADERS):
        top, name = os.path.split(loader)
        if os.path.islink(top):
            links[top] = os.readlink(top)
            top = os.path.realpath(top)
        wanted[f"{top}/{name}"] = os.path.realpath(loader)
    for place, path in wanted.items():
        if not any(place == known or place.startswith(known + "/") for known in shown):
            shown[place] = path
    return {"shown": shown, "links": links, "covered": base["covered"]}


def job(request: JudgeRequest, seconds: int, wall_factor: int) -> dict[str, Any]:
    """What build.build is to do for a request, with a secret of its own."""
    found, token = toolchain(request.language), secrets.token_hex(16)
    *before, last = found.commands()
    limits = [*((argv, COMPILE_SECONDS) for argv in before), (last, seconds)]
    environment = dict(_ENVIRONMENT)
    if folder := found.libraries():
        environment["LD_LIBRARY_PATH"] = folder
    steps = [
        {"argv": argv, "environment": environment, "seconds": each, "wall": wall_factor * each}
        for argv, each in limits
    ]
    return {"files": found.files(request, token), "steps": steps, "token": token}


# --- JavaScript ------------------------------------------------------------------------------

# console.assert, which the tests are written with, only prints.
_ASSERT = """
console.assert = (holds, ...said) => {
  if (!holds) throw new Error(["an assertion failed", ...said].join(": "));
};
"""


def _node() -> Mapping[str, str]:
    return {"/usr/bin/node": _real("node")}


def _javascript(request: JudgeRequest, token: str) -> dict[str, str]:
    last = f'\nprocess.stdout.write("\\n{token}\\n");\n'
    return {"main.js": request.candidate + "\n" + _ASSERT + request.tests + last}


def _run_node() -> tuple[list[str], ...]:
    return (["/usr/bin/node", "--max-old-space-size=512", "main.js"],)


# --- C++ -------------------------------------------------------------------------------------


@cache
def _gcc() -> Mapping[str, str]:
    """The driver, what it starts, and the headers, in the places where it looks for them."""
    shown = {"/usr/bin/g++": _real("g++"), "/usr/include": "/usr/include"}
    for part in (_asked("-print-prog-name=cc1plus"), _asked("-print-file-name=crtbegin.o")):
        folder = os.path.dirname(part)
        shown[folder] = os.path.realpath(folder)
    for tool in ("as", "ld"):
        shown[f"/usr/bin/{tool}"] = _real(_asked(f"-print-prog-name={tool}"))
    return shown


def _asked(question: str) -> str:
    done = subprocess.run(["g++", question], capture_output=True, text=True, check=True)
    return os.path.normpath(done.stdout.strip())


def _cpp(request: JudgeRequest, token: str) -> dict[str, str]:
    # An object of main's is destroyed as main is left, however that is; exit() destroys none.
    guard = f'struct At_{token} {{ ~At_{token}() {{ std::puts("\\n{token}"); }} }} at_{token};'
    tests = _MAIN.sub(lambda found: f"{found[0]} {guard}", request.tests, count=1)
    return {"main.cpp": f"{request.candidate}\n#include <cstdio>\n{tests}\n"}


def _run_gcc() -> tuple[list[str], ...]:
    compiler = ["/usr/bin/g++", "-std=c++17", "-w", "-pipe", "-o", "main", "main.cpp"]
    return compiler, [f"{WORK_FOLDER}/main"]


# --- Java ------------------------------------------------------------------------------------


@cache
def _java_home() -> str:
    return os.path.dirname(os.path.dirname(_real("javac")))


@cache
def _jdk() -> Mapping[str, str]:
    """The whole of its folder, and what links in there lead to outside of it (Debian: /etc)."""
    home = _java_home()
    shown = {home: home}
    for path in Path(home).rglob("*"):
        target = os.path.realpath(path)
        if path.is_symlink() and target.startswith("/etc/") and os.path.exists(target):
            shown[target] = target
    return shown


def _java(request: JudgeRequest, token: str) -> dict[str, str]:
    """A class of ours calls the tests' Main, and has the last word."""
    started = f"""
public class Started {{
    public static void main(String[] arguments) throws Throwable {{
        Main.main(arguments);
        System.out.println("\\n{token}");
        System.out.flush();
    }}
}}
"""
    return {"Main.java": f"{request.candidate}\n{request.tests}\n", "Started.java": started}


def _run_jdk() -> tuple[list[str], ...]:
    tools = f"{_java_home()}/bin"
    compiler = [f"{tools}/javac", *(f"-J{each}" for each in _JAVA_MEMORY)]
    compiler += ["-encoding", "UTF-8", "-proc:none", "-nowarn", "Main.java", "Started.java"]
    return compiler, [f"{tools}/java", *_JAVA_MEMORY, "-ea", "-cp", ".", "Started"]


def _real(tool: str) -> str:
    return os.path.realpath(shutil.which(tool) or tool)


TOOLCHAINS: Mapping[str, Toolchain] = {
    "JavaScript": Toolchain(
        ("node",),
        _node,
        _javascript,
        _run_node,
        JudgeRequest(
            "const twice = (x) => {\n  return 2 * x\n}\n",
            "console.assert(twice(21) === 42)",
            "twice",
            timeout=10.0,
            language="JavaScript",
        ),
    ),
    "Java": Toolchain(
        ("javac", "java"),
        _jdk,
        _java,
        _run_jdk,
        JudgeRequest(
            "class Solution {\n    int twice(int x) {\n        return 2 * x;\n    }\n}\n",
            "public class Main {\n    public static void main(String[] a) {\n"
            "        assert new Solution().twice(21) == 42;\n    }\n}\n",
            "twice",
            timeout=10.0,
            language="Java",
        ),
        lambda: f"{_java_home()}/lib",
    ),
    "C++": Toolchain(
        ("g++",),
        _gcc,
        _cpp,
        _run_gcc,
        JudgeRequest(
            "#include <vector>\nint twice(int x) {\n    return 2 * x;\n}\n",
            "#include <assert.h>\nint main() {\n    assert(twice(21) == 42);\n}\n",
            "twice",
            timeout=10.0,
            language="C++",
        ),
    ),
}
