"""Beginnings of Python functions, and four lines that could be the next: the same line in four
places, or four keywords in the same place. One of them fits."""

from __future__ import annotations

import random

from .draw import Question, Rows, distinct, placed

NAMES = ("count", "total", "result", "value", "size", "index", "name", "key", "data", "text")
CLASSES = ("Reader", "Counter", "Parser", "Account", "Window", "Node", "Table", "Server")
FUNCTIONS = ("read", "update", "check", "find", "parse", "load", "convert", "remove", "build")
ERRORS = ("ValueError", "KeyError", "TypeError", "OSError", "IndexError")
DEEPEST = 4
STEP = " " * 4


def _body(rng: random.Random) -> str:
    name = rng.choice(NAMES)
    return rng.choice((f"return {name}", f"{name} = 0", f"print({name})", f"{name} += 1",
                       f"self.{name} = {name}", f"raise {rng.choice(ERRORS)}({name})"))  # fmt: skip


def _opened(rng: random.Random, blocks: int) -> list[str]:
    """Lines that each open a block: a function or method, then so many conditions and loops."""
    first, second = rng.sample(NAMES, 2)
    function = rng.choice(FUNCTIONS)
    lines = [f"def {function}({first}, {second}):"]
    if rng.random() < 0.3:
        lines = [f"class {rng.choice(CLASSES)}:", f"def {function}(self, {first}):"]
    for _ in range(blocks):
        lines.append(
            rng.choice(
                (
                    f"if {rng.choice(NAMES)} is None:",
                    f"for {rng.choice(NAMES)} in {rng.choice(NAMES)}:",
                    f"while {rng.choice(NAMES)} > 0:",
                    f"with open({rng.choice(NAMES)}) as file:",
                )
            )
        )
    return lines


def _written(lines: list[str]) -> str:
    return "".join(STEP * level + line + "\n" for level, line in enumerate(lines))


def _in_places(rng: random.Random, text: str, line: str, level: int) -> Question:
    places = [place for place in range(DEEPEST + 1) if place != level]
    wrong = [STEP * place + line + "\n" for place in rng.sample(places, 3)]
    return text, STEP * level + line + "\n", wrong


def _block(rng: random.Random) -> Question:
    """Behind a colon: one step further in."""
    lines = _opened(rng, rng.randint(0, 2))
    return _in_places(rng, _written(lines), _body(rng), len(lines))


def _else(rng: random.Random) -> Question:
    """`else:` and `except`: below the only line that they can belong to."""
    lines = _opened(rng, 0)
    if rng.random() < 0.5:
        lines += ["try:", f"{rng.choice(NAMES)} = int({rng.choice(NAMES)})"]
        end = f"except {rng.choice(ERRORS)}:"
    else:
        lines += [f"if {rng.choice(NAMES)} > {rng.choice(NAMES)}:", _body(rng)]
        end = "else:"
    return _in_places(rng, _written(lines), end, len(lines) - 2)


def _keyword(rng: random.Random) -> Question:
    """Which word goes on with what was begun."""
    name, error = rng.choice(NAMES), rng.choice(ERRORS)
    opening, right, wrong = rng.choice(
        (
            ("try:", (f"except {error}:", "finally:"), (f"elif {name}:", "else:", "case 0:")),
            (f"if {name} == 0:", (f"elif {name} == 1:", "else:"),
             (f"except {error}:", "finally:", "case 0:")),
        )
    )  # fmt: skip
    text = _written([f"def {rng.choice(FUNCTIONS)}({name}):", opening, _body(rng)])
    return text, f"{STEP}{rng.choice(right)}\n", [f"{STEP}{line}\n" for line in wrong]


KINDS = {"block": (_block, 100), "else and except": (_else, 80), "keyword": (_keyword, 60)}


def rows() -> Rows:
    """So many of every kind."""
    return [
        row
        for kind, (make, count) in KINDS.items()
        for row in placed(kind, distinct(make, count, f"lines {kind}"), f"lines {kind}")
    ]
