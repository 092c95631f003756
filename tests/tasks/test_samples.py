"""The bundled sample questions: complete, balanced, their own, and arithmetically right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.fileio import read_jsonl
from qwen_eval.taskspec import find_task

TASKS = Path(__file__).parents[2] / "tasks"
OVERLAP = 13  # words in a row that two texts must not share


def mmlu(split: str) -> list[dict[str, Any]]:
    return list(read_jsonl(TASKS / "mmlu" / "sample" / f"{split}.jsonl"))


def gsm8k() -> list[dict[str, Any]]:
    return list(read_jsonl(TASKS / "gsm8k" / "sample" / "test.jsonl"))


def runs(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Every run of OVERLAP words."""
    found: set[tuple[str, ...]] = set()
    for text in texts:
        words = re.findall(r"\w+", text.lower())
        found.update(zip(*(words[i:] for i in range(OVERLAP)), strict=False))
    return found


@pytest.mark.parametrize(("split", "count"), [("dev", 5), ("test", 3)])
def test_mmlu_has_every_subject(split: str, count: int) -> None:
    spec, _ = find_task("mmlu")
    subjects = [subject for group in spec.categories.values() for subject in group]
    assert len(subjects) == 57
    assert Counter(row["subject"] for row in mmlu(split)) == dict.fromkeys(subjects, count)


def test_mmlu_rows_are_well_formed() -> None:
    rows = mmlu("dev") + mmlu("test")
    for row in rows:
        assert set(row) == {"question", "subject", "choices", "answer"}
        assert row["answer"] in range(4)
        assert len({choice.strip().lower() for choice in row["choices"]}) == 4
        assert row["question"] == row["question"].strip() != ""
        assert not re.search(r"\b(all|none|both) of the above\b", str(row["choices"]).lower())
    assert len({row["question"] for row in rows}) > 0.98 * len(rows)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_mmlu_letters_are_balanced(split: str) -> None:
    """Always the same letter, or always the longest option, gets about a quarter."""
    rows = mmlu(split)
    letters = Counter(row["answer"] for row in rows)
    assert all(0.2 < letters[i] / len(rows) < 0.3 for i in range(4)), letters
    longest = sum(
        max(range(4), key=lambda i, row=row: len(row["choices"][i])) == row["answer"]  # type: ignore[misc]
        for row in rows
    )
    assert longest / len(rows) < 0.4


def test_mmlu_shares_nothing_with_the_benchmark(mirror: Path) -> None:
    theirs = runs(
        f"{row['question']} {' '.join(row['choices'])}"
        for split in ("dev", "validation", "test")
        for row in read_jsonl(mirror / "mmlu" / f"{split}.jsonl.gz")
    )
    for row in mmlu("dev") + mmlu("test"):
        text = f"{row['question']} {' '.join(row['choices'])}"
        assert not runs([text]) & theirs, row["question"]


def test_gsm8k_problems_compute() -> None:
    rows = gsm8k()
    assert len(rows) == 30
    assert len({row["question"] for row in rows}) == 30
    for row in rows:
        steps = re.findall(r"<<([^<>=]+)=([^<>=]+)>>", row["answer"])
        assert steps, row
        for expression, value in steps:
            assert re.fullmatch(r"[\d+\-*/(). ]+", expression)
            numbers = re.sub(r"\d+(\.\d+)?|\.\d+", lambda m: f"Fraction('{m[0]}')", expression)
            assert eval(numbers, {"Fraction": Fraction}) == Fraction(value), (expression, value)
        solution, _, final = row["answer"].rpartition("\n#### ")
        assert Fraction(final.replace(",", "")) == Fraction(steps[-1][1])
        assert solution


def test_gsm8k_shares_nothing_with_the_benchmark(mirror: Path) -> None:
    files = sorted((mirror / "gsm8k").glob("*.jsonl.gz"))
    theirs = runs(row["question"] for file in files for row in read_jsonl(file))
    assert files
    assert not runs(row["question"] for row in gsm8k()) & theirs


def test_no_question_is_another_one_again() -> None:
    questions = sorted(
        re.sub(r"\W+", " ", row["question"].lower())
        for row in [*mmlu("dev"), *mmlu("test"), *gsm8k()]
    )
    assert all(a != b for a, b in pairwise(questions))
