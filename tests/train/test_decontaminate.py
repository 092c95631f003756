"""Thirteen words in a row with a test set are found, twelve are not."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.fileio import read_jsonl
from qwen_eval.train.data.decontaminate import known_tests, texts_of
from tests.train.corpora import english

QUESTION = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."
)
CHINESE = "小明有十二个苹果，他给了小红五个，请问小明现在还剩下几个苹果？"


def brute_force(text: str, rows: list[list[str]], n: int) -> bool:
    def grams(one: str) -> set[tuple[str, ...]]:
        found = re.findall(r"[一-鿿]|[^\W_一-鿿]+", one.lower())
        return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}

    return any(grams(text) & grams(part) for row in rows for part in row)


def test_thirteen_words_are_enough_and_twelve_are_not() -> None:
    tests = known_tests({"a": [], "sums": [[QUESTION], [CHINESE]]})
    words = QUESTION.split()
    for start in range(len(words) - 12):
        part = " ".join(words[start : start + 13])
        assert tests.found_in(f"so: {part.upper()}!? yes") == "sums"
        assert tests.found_in(f"so {' '.join(words[start : start + 12])} yes") is None
    assert tests.found_in("问题 " + CHINESE[:14].replace("，", " ")) == "sums"
    assert tests.found_in("问题" + CHINESE[:13]) is None  # twelve signs and a comma
    assert tests.found_in("") is None


@given(st.integers(0, 10**6), st.integers(2, 6))
def test_the_answer_is_that_of_a_plain_search(seed: int, n: int) -> None:
    rng = random.Random(seed)
    few = ["one", "Two", "3", "四", "五", "six-seven"]

    def text() -> str:
        return " ".join(rng.choices(few, k=rng.randrange(0, 12)))

    rows = [[text(), text()] for _ in range(3)]
    candidate = text()
    found = known_tests({"t": rows}, n).found_in(candidate)
    assert (found == "t") == brute_force(candidate, rows, n)


def test_the_first_set_is_named_and_short_rows_are_counted() -> None:
    long = english(random.Random(0), 30)
    tests = known_tests({"x": [["too short", "a b"], [long]], "y": [[long]]})
    assert tests.found_in(long) == "x"
    assert tests.rows == {"x": 2, "y": 1}
    assert tests.short == {"x": 1, "y": 0}


def test_the_digest_says_what_would_be_found() -> None:
    one, other = (known_tests({"x": [[english(random.Random(i), 40)]]}) for i in (1, 2))
    assert one.digest() == known_tests({"x": [[english(random.Random(1), 40)]]}).digest()
    assert one.digest() != other.digest()


def test_no_tests_find_nothing() -> None:
    assert known_tests({}).found_in(QUESTION) is None


def test_texts_are_found_at_any_depth() -> None:
    row = {"q": "a", "choices": ["b", {"c": "d"}], "n": 3, "none": None}
    assert texts_of(row) == ["a", "b", "d"]


@pytest.mark.parametrize("name", ["gsm8k/test.jsonl.gz", "gaokao_bench/test.jsonl.gz"])
def test_a_planted_test_row_is_always_found(mirror: Path, name: str) -> None:
    rows = [texts_of(row) for row in read_jsonl(mirror / name)]
    tests = known_tests({name: rows})
    missed = [
        text
        for row in rows
        for text in row
        if tests.found_in(f"Please answer.\n{text}\nThanks") is None
        and brute_force(text, [row], 13)
    ]
    assert missed == []


def test_instructions_made_of_test_questions_are_found(mirror: Path) -> None:
    """gaokao_analysis_zh was made of the questions of gaokao_bench (the mirror's note 4)."""
    tests = known_tests(
        {"gaokao": [texts_of(row) for row in read_jsonl(mirror / "gaokao_bench/test.jsonl.gz")]}
    )
    made = [
        row["instruction"] for row in read_jsonl(mirror / "instruct/gaokao_analysis_zh.jsonl.gz")
    ]
    others = [row["instruction"] for row in read_jsonl(mirror / "instruct/dolly_200_en.jsonl.gz")]
    long = [text for text in made if len(text) > 60]
    assert sum(tests.found_in(text) is not None for text in long) / len(long) > 0.99
    assert sum(tests.found_in(text) is not None for text in others) == 0
