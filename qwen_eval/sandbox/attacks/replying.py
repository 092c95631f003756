"""What a program says: to the judge over the pipe, and in words that people will read."""

from __future__ import annotations

from qwen_eval.sandbox.attacks.attack import PRELUDE, Attack, forging, trick
from qwen_eval.sandbox.attacks.ground import Ground
from qwen_eval.sandbox.cells import VALUE_LIMIT
from qwen_eval.sandbox.text import LINE_LIMIT


def _unprintable(ground: Ground, text: str) -> str:
    """What of a program's words came through to a report as it was."""
    del ground
    if not text.isprintable():
        return f"not printable: {text!r}"
    return "" if len(text) <= 2 * LINE_LIMIT else f"{len(text)} letters"


def _long(ground: Ground, text: str) -> str:
    """How much more came through than a session may show."""
    del ground
    return f"{len(text)} letters" if len(text) > 2 * VALUE_LIMIT else ""


_BY_THE_PIPE: tuple[Attack, ...] = (
    forging(
        65,
        "write the verdict into the judge's own pipe",
        """
        import glob, os
        def f(x):
            for path in glob.glob("/proc/[0-9]*/fd/6"):
                try: status = open(path[:-4] + "status").read()
                except OSError: continue
                if f"PPid:\\t{os.getppid()}\\n" in status:
                    with open(path, "w") as pipe: pipe.write('["passed", "passed"]\\n')
            return 0
        """,
        stopped_by=("identity", "namespaces", "landlock"),
        weaker="fewer layers",
    ),
    forging(
        16,
        "answer before the question",
        """
        import os, struct, json
        for pipe in range(3, 64):
            for value in (2, 11):
                body = json.dumps(["0" * 16, "returned", ["i", hex(value)]]).encode()
                try: os.write(pipe, struct.pack(">I", len(body)) + body)
                except OSError: pass
        def f(x): return 0
        """,
        weaker="guessable numbers",
    ),
    forging(
        16,
        "answer twice",
        f"""{PRELUDE}
def f(x):
    for value in (2, 11):
        os.write(sys._getframe(1).f_locals["replies"], answer(["i", hex(value)]))
    return 0
        """,
        weaker="guessable numbers",
    ),
    trick(
        32,
        "an answer over the limit",
        "return 'x' * (20 << 20)",
        weaker="own process",
        tests="def check(candidate):\n    assert len(candidate()) == 20 << 20\n",
    ),
    trick(
        32,
        "an answer nested a hundred thousand deep",
        "value = []\nfor _ in range(10**5): value = [value]\nreturn value",
        weaker="own process",
        tests=(
            "def check(candidate):\n    value, depth = candidate(), 0\n"
            "    while value: value, depth = value[0], depth + 1\n    assert depth == 10**5\n"
        ),
    ),
    *(
        trick(
            54,
            f"a frame that is {name}",
            f"os.write(sys._getframe(1).f_locals['replies'], {data})\nos._exit(0)",
            weaker="none known",
        )
        for name, data in {
            "a number of 10^5 digits": "b'\\0\\1\\x86\\xa0' + b'9' * 10**5",
            "nested a million deep": "b'\\0\\x0f\\x42\\x40' + b'[' * 10**6",
            "full of keys that are the same": "b'\\0\\0\\0\\x0e' + b'{\"a\":1,\"a\":2}'",
            "not of this world": "b'\\xff' * 10**4",
            "an object where a value should be": "answer({'i': '0x2'})",
            "a key that cannot be one": "answer(['m', [[['l', []], True]]])",
            "a text where a list should be": "answer(['m', 'passed'])",
            "a name where an exception should be": (
                "answer(None).replace(b'returned', b'raised  ').replace(b'null', b'[[]]')"
            ),
        }.items()
    ),
    trick(
        55,
        "close the pipes, and tie them together",
        "for pipe in range(3, 64):\n"
        "    try: os.dup2(1, pipe); os.dup2(5, 1); os.close(pipe)\n"
        "    except OSError: pass",
        weaker="none known",
    ),
    trick(
        56,
        "an exception named as what ends an interpreter",
        "raise type('SystemExit', (Exception,), {})('passed')",
        weaker="none known",
    ),
)

# What a session may say in place of its own answer: done, with no value and no figure.
_SAYS = """
import json, struct
reply = {"outcome": "done", "value": None, "error": "", "figures": []}
body = json.dumps(%s).encode()
body = struct.pack(">I", len(body)) + body
while body: body = body[os.write(5, body):]
time.sleep(1)
"""
_FROM_SESSIONS: tuple[Attack, ...] = (
    *(
        trick(
            54,
            f"a session's answer that is {name}",
            _SAYS % said,
            weaker="none known",
            profile="interpreter",
        )
        for name, said in {
            "a list": "[reply]",
            "a number in place of each of its parts": "dict.fromkeys(reply, 10**4000)",
            "of an outcome that there is not": "reply | {'outcome': ['done']}",
            "a figure of nothing": "reply | {'figures': [[], None, '%%%%']}",
        }.items()
    ),
    trick(
        66,
        "a session's value over the limit",
        _SAYS % "reply | {'value': 'x' * (10 << 20)}",
        weaker="none known",
        profile="interpreter",
        aftermath=_long,
    ),
)

_FOR_READERS: tuple[Attack, ...] = (
    *(
        forging(
            48,
            f"{name} in an exception's words",
            f"def f(x):\n    raise ValueError({text!r} * {times})",
            weaker="raw text",
            aftermath=_unprintable,
        )
        for name, text, times in (
            ("escape sequences", "\x1b[31m\x1b]0;title\x07\x1b[2J", 1),
            ("nulls and controls", "\0\x08\x7f\x9b31m\r\n", 1),
            ("a line of a megabyte", "y", 2**20),
            ("turned writing", "\u202e\u2066passed\u2069", 1),
        )
    ),
    forging(
        48,
        "lone surrogates in an exception's words",
        "def f(x): raise ValueError('\\ud800')",
        weaker="crash",
        aftermath=_unprintable,
    ),
)

REPLYING = (*_BY_THE_PIPE, *_FROM_SESSIONS, *_FOR_READERS)
