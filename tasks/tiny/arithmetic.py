"""Counting on and small sums, each with four numbers (or names) to choose from."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from .draw import Question, Rows, of_kinds

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
         "twelve")  # fmt: skip
HAN = "一二三四五六七八九十"
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September",
          "October", "November", "December")  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def _next(rng: random.Random, names: Sequence[str], between: str, shown: int, gap: str) -> Question:
    """The name behind some that follow one another; the wrong ones are of the same list."""
    start = rng.randrange(len(names) - shown)
    seen, right = names[start : start + shown], names[start + shown]
    others = [name for name in names if name not in (*seen, right)]
    return (
        between.join(seen) + between.rstrip(),
        gap + right,
        [gap + name for name in rng.sample(others, 3)],
    )


def _words(rng: random.Random) -> Question:
    return _next(rng, WORDS, ", ", rng.randint(2, 6), " ")


def _han(rng: random.Random) -> Question:
    return _next(rng, HAN, "、", rng.randint(2, 6), "")


def _names(rng: random.Random) -> Question:
    names = rng.choice((DAYS, MONTHS))
    return _next(rng, names, ", ", rng.randint(2, 3), " ")


def _letters(rng: random.Random) -> Question:
    return _next(rng, LETTERS, ", ", rng.randint(3, 6), " ")


def _numbers(rng: random.Random) -> Question:
    start, shown, step = rng.randint(1, 20), rng.randint(3, 5), rng.choice((1, 1, 2, 10))
    seen = [start + step * i for i in range(shown)]
    return ", ".join(map(str, seen)) + ",", *_among(rng, seen[-1] + step, seen, ",")


def _sum(rng: random.Random) -> Question:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    return f"1 + 1 = 2\n{a} + {b} =", *_among(rng, a + b, (), "\n")


def _difference(rng: random.Random) -> Question:
    a, b = rng.randint(1, 10), rng.randint(1, 10)
    return f"2 - 1 = 1\n{a + b} - {a} =", *_among(rng, b, (), "\n")


def _among(rng: random.Random, right: int, seen: Sequence[int], end: str) -> tuple[str, list[str]]:
    """The right number and three others near it; `end` ends each, so that 1 does not begin 12."""
    near = [n for n in range(max(right - 9, 1), right + 10) if n != right and n not in seen]
    return f" {right}{end}", [f" {n}{end}" for n in rng.sample(near, 3)]


KINDS: dict[str, tuple[Callable[[random.Random], Question], int]] = {
    "counting in words": (_words, 32),
    "counting in Chinese": (_han, 28),
    "counting in digits": (_numbers, 60),
    "days and months": (_names, 20),
    "letters": (_letters, 40),
    "sum": (_sum, 60),
    "difference": (_difference, 60),
}


def rows() -> Rows:
    """So many of every kind."""
    return of_kinds(KINDS, "sums")
