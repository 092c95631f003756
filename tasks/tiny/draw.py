"""Drawing distinct items and putting their options in a balanced order."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = dict[str, Any]
Rows = list[Row]
Question = tuple[str, str, Sequence[str]]
"""The text before the options, the right option, the wrong ones."""
Make = Callable[[random.Random], Question]


def of_kinds(kinds: Mapping[str, tuple[Make, int]], seed: str) -> Rows:
    """So many rows of every kind, one kind after the other."""
    return [
        row
        for kind, (make, count) in kinds.items()
        for row in placed(kind, distinct(make, count, f"{seed} {kind}"), f"{seed} {kind}")
    ]


def distinct(make: Make, count: int, seed: str) -> list[Question]:
    """So many different questions. A template that cannot make them fails an assertion."""
    rng, found = random.Random(seed), dict[tuple[str, str], Question]()
    for _ in range(200 * count):
        text, right, wrong = make(rng)
        assert right not in wrong
        assert len(set(wrong)) == len(wrong)
        found.setdefault((text, right), (text, right, wrong))
        if len(found) == count:
            return list(found.values())
    raise AssertionError(f"{seed}: {len(found)} of {count} questions")


def placed(kind: str, questions: Sequence[Question], seed: str) -> Rows:
    """Rows in which the right option stands in every place equally often, give or take one."""
    rng = random.Random(f"{seed} places")
    rows = []
    for number, (text, right, wrong) in enumerate(questions):
        choices = rng.sample(list(wrong), len(wrong))
        at = number % (len(wrong) + 1)
        choices.insert(at, right)
        rows.append({"kind": kind, "text": text, "choices": choices, "answer": at})
    return rows
