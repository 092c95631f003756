"""Beginnings of Python and JSON expressions, and four ways to close their brackets."""

from __future__ import annotations

import itertools
import random

from .draw import Question, Rows, distinct, placed

CLOSING = {"(": ")", "[": "]", "{": "}"}
CALLS = ("print", "len", "list", "sum", "sorted", "max", "min", "str", "set", "tuple", "open")
NAMES = ("x", "y", "name", "values", "items", "data", "line", "result", "key", "args")
FIELDS = ("name", "items", "value", "id", "type", "children", "path", "size", "tags", "user")


def _opened(rng: random.Random, depth: int) -> str:
    """A Python expression that ends before its last `depth` brackets are closed."""
    parts = []
    for _ in range(depth):
        name = rng.choice(NAMES)
        parts.append(
            rng.choice(
                (
                    f"{rng.choice(CALLS)}(",
                    f"{name}[",
                    f"[{name}, ",
                    f'{{"{rng.choice(FIELDS)}": ',
                    f"({name}, ",
                    f"{rng.choice(CALLS)}({name}, ",
                )
            )
        )
    return "".join(parts) + rng.choice((*NAMES, "0", "1", "2"))


def _json(rng: random.Random, depth: int) -> str:
    parts = ["{"]
    for _ in range(depth - 1):
        field = f'"{rng.choice(FIELDS)}": '
        parts.append(rng.choice((f"{field}[", f"{field}{{")) if parts[-1].endswith("{") else "{")
    last = rng.choice(("1", "2", "true", '"a"'))
    if parts[-1].endswith("{"):
        last = f'"{rng.choice(FIELDS)}": {last}'
    return "".join(parts) + last


def _question(text: str, rng: random.Random) -> Question:
    right = "".join(CLOSING[c] for c in reversed(text) if c in CLOSING)
    others = ["".join(way) for way in itertools.product(")]}", repeat=len(right))]
    # What differs in one bracket is the hardest; only so are all as likely at first sight.
    near = [o for o in others if sum(a != b for a, b in zip(o, right, strict=True)) in (1, 2)]
    near = [other for other in near if other != right]
    return text, f"{right}\n", [f"{other}\n" for other in rng.sample(near, 3)]


def _python(rng: random.Random) -> Question:
    return _question(f"{rng.choice(NAMES)} = {_opened(rng, rng.randint(2, 3))}", rng)


def _object(rng: random.Random) -> Question:
    return _question(_json(rng, rng.randint(2, 4)), rng)


def rows() -> Rows:
    """Two thirds Python, one third JSON."""
    return [
        row
        for kind, make, count in (("Python", _python, 160), ("JSON", _object, 80))
        for row in placed(kind, distinct(make, count, f"brackets {kind}"), f"brackets {kind}")
    ]
