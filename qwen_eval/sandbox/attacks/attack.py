"""What an attack is: a program, the tests it is judged by, and what is to stop it.

An attack succeeds where its verdict is "passed", or where its aftermath finds what it left behind.
Programs may name what the proving ground offers ($secret, $folder, ...: see ground.py) and use the
names of `PRELUDE`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from qwen_eval.sandbox.attacks.ground import Ground
from qwen_eval.sandbox.layers import Layer, Profile

Weaker = Literal[
    "fewer layers",
    "own process",
    "plain process",
    "printed verdict",
    "raw text",
    "crash",
    "end of file",
    "no clock",
    "guessable numbers",
    "none known",
]
"""What falls for an attack, so that a control can show that the trick itself works:

- fewer layers: the sandbox without those that stop it
- own process: tests that run in the program's own process (JudgeRequest.alone)
- plain process: no sandbox at all, and the exit status as the verdict
- printed verdict: the same, with the verdict read from what is printed
- raw text: a reader that shows a program's words as they are
- crash: a judge that runs the program in its own interpreter
- end of file: a reader that waits for the end of the output
- no clock: a judge with patience
- guessable numbers: a judge whose questions have numbers that can be known before
- none known: the attack would break the sandbox's own code, if anything
"""

# Tests of x + 1, in earnest.
HONEST = "def check(candidate):\n    assert candidate(1) == 2\n    assert candidate(10) == 11\n"
DID_IT = "def check(candidate):\n    assert candidate() is True\n"

PRELUDE = '''
import ctypes, os, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
NUMBERS = $numbers

def call(name, *arguments):
    """A system call by its number, past what Python and the C library would refuse."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result = libc.syscall(ctypes.c_long(NUMBERS[name]), *wide)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result

def reached(name, *arguments):
    """Whether the kernel went so far as to look at the arguments."""
    try:
        call(name, *arguments)
    except OSError as error:
        return error.errno not in (1, 13, 38)  # EPERM, EACCES, ENOSYS
    return True

def place():
    """A folder that this program can write to: its own, or else one outside."""
    for folder in (".", $folder, "/dev/shm"):
        try:
            os.close(os.open(folder + "/probe", os.O_CREAT | os.O_WRONLY))
            os.unlink(folder + "/probe")
        except OSError:
            continue
        return folder
    raise PermissionError("nothing can be written")

def answer(value):
    """The bytes that a right reply to the call in progress would be."""
    import json, struct
    frame = sys._getframe()
    while "number" not in frame.f_locals:
        frame = frame.f_back
    body = json.dumps([frame.f_locals["number"], "returned", value]).encode()
    return struct.pack(">I", len(body)) + body
'''


def nothing_left(ground: Ground, text: str) -> str:
    """The aftermath of an attack whose verdict says all."""
    del ground, text
    return ""


@dataclass(frozen=True)
class Attack:
    """One way to try it. `number`: 1 to 48 as in the list that the sandbox was specified with,
    where several ways may share one; from 49 on, others."""

    number: int
    name: str
    program: str
    tests: str = HONEST
    stopped_by: tuple[Layer, ...] = ()
    """the layers each of which stops it, whichever others are there"""
    weaker: Weaker = "own process"
    profile: Profile = "score"
    timeout: float = 2.0
    """seconds of processor time"""
    waits: bool = False
    """it goes on until time is up"""
    before: str = ""
    """a program that is judged first, in the same place"""
    aftermath: Callable[[Ground, str], str] = nothing_left
    """what the attack left behind, given the text of the response; "" for nothing"""
    quick: bool = False

    @property
    def title(self) -> str:
        """Its number and its name: no two attacks have both."""
        return f"{self.number} {self.name}"


def forging(number: int, name: str, program: str, **more: Any) -> Attack:
    """A program that does not compute x + 1 and wants to pass for one that does."""
    return Attack(number, name, textwrap.dedent(program), **more)


def trick(number: int, name: str, body: str, *stopped_by: Layer, **more: Any) -> Attack:
    """A program whose f() returns True where its trick worked."""
    text = textwrap.indent(textwrap.dedent(body).strip("\n"), "    ")
    program = f"{PRELUDE}\ndef f():\n{text}\n    return True\n"
    more.setdefault("weaker", "fewer layers")
    more.setdefault("tests", DID_IT)
    return Attack(number, name, program, stopped_by=stopped_by, **more)


def endless(number: int, name: str, program: str, **more: Any) -> Attack:
    """A program that does not come to an end by itself."""
    more.setdefault("timeout", 0.2)
    program = textwrap.dedent(program)
    return Attack(number, name, program, weaker="no clock", waits=True, **more)
