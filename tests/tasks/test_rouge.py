"""Rouge-L: against the package rouge-score, and against all subsequences of short texts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer

from qwen_eval.tasks.scorers.rouge import rouge_l, words

SHORT = st.lists(st.sampled_from("abc"), max_size=7).map(" ".join)


class Spaces:
    """A tokenizer in the words of rouge-score."""

    def tokenize(self, text: str) -> list[str]:
        return text.split()


def subsequences(tokens: list[str]) -> Iterator[tuple[str, ...]]:
    for size in range(len(tokens) + 1):
        yield from combinations(tokens, size)


@given(SHORT, SHORT)
def test_it_is_the_longest_of_all_common_subsequences(wanted: str, given_: str) -> None:
    first, second = wanted.split(), given_.split()
    common = max(map(len, set(subsequences(first)) & set(subsequences(second))))
    precision = common / len(second) if second else 0.0
    recall = common / len(first) if first else 0.0
    f = 2 * precision * recall / (precision + recall) if common else 0.0
    assert rouge_l(wanted, given_, str.split) == pytest.approx(f, abs=1e-12)


@given(
    st.lists(st.sampled_from(["{", '"', "北", "京", ":", "7", " ", "a b", ""]), max_size=40),
    st.lists(st.sampled_from(["{", '"', "北", "京", ":", "7", " ", "a b", ""]), max_size=40),
)
def test_it_is_that_of_the_package_rouge_score(wanted: list[str], given_: list[str]) -> None:
    scorer = rouge_scorer.RougeScorer(["rougeL"], tokenizer=Spaces())
    theirs = scorer.score(" ".join(wanted), " ".join(given_))["rougeL"].fmeasure
    tokens = {"wanted": wanted, "given": given_}
    assert rouge_l("wanted", "given", tokens.__getitem__) == pytest.approx(theirs, abs=1e-12)


def test_words_are_what_a_reader_tells_apart() -> None:
    text = '{"city": "北京", "days": 3.5, "to": "a_b@c.de"}'
    assert " ".join(words(text)) == (
        '{ " city " : " 北 京 " , " days " : 3 . 5 , " to " : " a_b @ c . de " }'
    )
