"""Every measure against a plain count, and rules as a recipe writes them."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qwen_eval.train.data.rules import MEASURES, Bound, Page, broken_rule

WORDS = st.lists(st.sampled_from(["a", "bc", "def", "the", "#", "...", "7"]), max_size=40)


def measured(name: str, text: str) -> float:
    return MEASURES[name](Page(text))


def spans(words: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(words[i : i + n]) for i in range(len(words) - n + 1)]


@given(WORDS, st.sampled_from(range(5, 11)))
def test_repeated_ngrams_are_those_of_a_plain_count(words: list[str], n: int) -> None:
    seen, covered = set(), set()
    for i, gram in enumerate(spans(words, n)):
        if gram in seen:
            covered |= set(range(i, i + n))
        seen.add(gram)
    total = sum(map(len, words))
    expected = sum(len(words[i]) for i in covered) / total if total else 0
    assert measured(f"repeated_{n}grams", " ".join(words)) == pytest.approx(expected)


@given(WORDS, st.sampled_from([2, 3, 4]))
def test_the_top_ngram_is_that_of_a_plain_count(words: list[str], n: int) -> None:
    counts = Counter(spans(words, n))
    most = max(counts.values(), default=0)
    total = sum(map(len, words))
    allowed = {
        count * len("".join(gram)) / total for gram, count in counts.items() if count == most > 1
    }
    found = measured(f"top_{n}gram", " ".join(words))
    # Where several are the commonest, any of them will do.
    assert any(found == pytest.approx(value) for value in allowed or {0.0})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("words", "one two  three\nfour", 4),
        ("words", "学而时习之，abc def", 7),
        ("mean_word_length", "aa bbbb", 3),
        ("mean_word_length", "学习 abcd", 4),
        ("symbols_per_word", "# a ... b", 0.5),
        ("alphabetic_words", "a1 22 33 b", 0.5),
        ("stop_words", "The cat and the dog", 2),
        ("stop_words", "我的书在那里", 4),
        ("bullet_lines", "- a\n• b\nc\nd", 0.5),
        ("ellipsis_lines", "a...\nb…\nc\nd", 0.5),
        ("ended_lines", "One.\n二。\nthree\nfour", 0.5),
        ("short_lines", "short\n" + "x" * 40, 0.5),
        ("frame_lines", "Add to Cart now\n版权所有 2020\nThe sea\nA hill", 0.5),
        ("sentences", "One. Two! 三。四？ v1.5 no", 4),
        ("curly_brackets", "{a} {b}", 2),
        ("han_share", "学习 ab", 0.5),
        ("replacement_share", "ab\ufffdd", 0.25),
        ("longest_line", "ab\n abcd \nx", 4),
        ("repeated_lines", "a\nb\na\na", 0.5),
        ("repeated_line_characters", "aaa\nb\naaa", 3 / 7),
        ("repeated_paragraphs", "a\n\nb\n\na", 1 / 3),
        ("repeated_paragraph_characters", "aa\n\nb\n\naa", 2 / 5),
        ("characters", "abc", 3),
    ],
)
def test_a_measure_is_this(name: str, text: str, value: float) -> None:
    assert measured(name, text) == pytest.approx(value)


@given(st.text(max_size=300))
def test_measures_are_pure_and_finite(text: str) -> None:
    page = Page(text)
    for name, measure in MEASURES.items():
        first = measure(page)
        assert first == measure(Page(text)), name
        assert 0 <= first <= max(1, len(text)), name


def test_the_first_broken_rule_is_named() -> None:
    bounds = {"sentences": Bound(min=3), "words": Bound(min=5, max=8)}
    assert broken_rule("One. Two.", bounds) == "words < 5"
    assert broken_rule("a b c d e. f", bounds) == "sentences < 3"
    assert broken_rule("a b c d e f g h i", bounds) == "words > 8"
    assert broken_rule("A b. C d. E f!", bounds) is None


def test_a_bound_itself_is_kept() -> None:
    assert broken_rule("a b c", {"words": Bound(min=3, max=3)}) is None


def test_a_rule_must_say_something() -> None:
    with pytest.raises(ValidationError, match="give min or max"):
        Bound()
