"""Shares and runs are those of a plain search; what is planted is found, and nothing else."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.contamination import Overlap, Search, split_score, summarise
from qwen_eval.metrics import estimate
from qwen_eval.stats import wilson_interval
from tests.harness.toys import record

Wording = tuple[str, str]
FEW = ["one", "Two", "3", "四", "五", "six-seven", "八."]


def said(text: str) -> list[str]:
    return re.findall(r"[一-鿿]|[^\W_一-鿿]+", text.lower())


def grams(found: list[str], n: int) -> list[tuple[str, ...]]:
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]


def plain(wordings: list[Wording], texts: list[str], n: int) -> tuple[float | None, ...]:
    """Shares of the question and with the answer, and the longest run, by sets of tuples."""
    sets = [set(grams(said(text), n)) for text in texts]
    questions, wholes, longest = list[float | None](), list[float | None](), 0
    for question, answer in wordings:
        whole = grams(said(question) + said(answer), n)
        for shares, own in ((questions, grams(said(question), n)), (wholes, whole)):
            hits = [any(gram in one for one in sets) for gram in own]
            shares.append(sum(hits) / len(hits) if hits else None)
        for one in sets:
            run = 0
            for gram in whole:
                run = run + 1 if gram in one else 0
                longest = max(longest, run + n - 1 if run else 0)
    best = []
    for shares in (questions, wholes):
        known = [share for share in shares if share is not None]
        nothing = None in shares and not any(known)
        best.append(None if nothing else max(known))
    return (*best, longest)


@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 2))
@settings(max_examples=40)
def test_shares_and_runs_are_those_of_a_plain_search(seed: int, n: int, forms: int) -> None:
    rng = random.Random(seed)

    def text(most: int) -> str:
        return " ".join(rng.choices(FEW, k=rng.randrange(most)))

    items = [[(text(10), text(6)) for _ in range(forms)] for _ in range(4)]
    texts = [text(20) for _ in range(5)]
    search = Search(items, n)
    for number, one in enumerate(texts):
        search.read(one, str(number))
    for wordings, overlap in zip(items, search.overlaps(), strict=True):
        expected = plain(wordings, texts, n)
        assert (overlap.question, overlap.with_answer) == pytest.approx(expected[:2])
        assert overlap.longest == expected[2]
        assert overlap.words == len(said(" ".join(wordings[0])))
        assert (overlap.where == "") == (overlap.longest == 0)
        having = [
            str(k) for k, one in enumerate(texts) if plain(wordings, [one], n)[2] == expected[2] > 0
        ]
        assert overlap.where in (having[:1] if forms == 1 else having) or not having


def words_of(first: int, count: int) -> str:
    return " ".join(f"w{i}" for i in range(first, first + count))


def test_what_is_planted_is_found_and_nothing_else() -> None:
    questions = [words_of(1000 * k, 20) for k in range(5)]
    items = [[(question, "the answer is 7")] for question in questions]
    search = Search([*items, [("too short", "by far")]], 13)
    search.read(f"He asked: {questions[1].upper()}! Then the answer is 7.", "whole")
    search.read(words_of(2000, 13), "thirteen")
    search.read(words_of(3000, 12), "twelve")
    search.read(f"{words_of(4000, 10)} and {words_of(4010, 10)}", "halves")
    overlaps = search.overlaps()
    assert [one.question for one in overlaps] == [0, 1, 1 / 8, 0, 0, None]
    verdicts = ["clean", "contaminated", "partly", "clean", "clean", "too short"]
    assert [one.verdict for one in overlaps] == verdicts
    assert [one.longest for one in overlaps] == [0, 20, 13, 0, 0, 0]
    assert [one.where for one in overlaps] == ["", "whole", "thirteen", "", "", ""]


def test_chinese_is_cut_into_signs() -> None:
    question = "小明有十二个苹果，他给了小红五个，请问小明现在还剩下几个苹果？"
    search = Search([[(question, "七个")]], 13)
    search.read("问题" + question.replace("，", " ") + "答案", "a")
    (overlap,) = search.overlaps()
    assert (overlap.words, overlap.question, overlap.longest) == (30, 1.0, 28)


def test_an_item_that_is_too_short_in_one_form_is_not_called_clean() -> None:
    long, short = words_of(0, 13), words_of(0, 9)
    search = Search([[(long, ""), (short, "")], [(long, "")]], 13)
    assert [one.verdict for one in search.overlaps()] == ["too short", "clean"]
    search.read(long, "a")
    assert [one.verdict for one in search.overlaps()] == ["contaminated", "contaminated"]


def test_no_words_are_no_ngrams() -> None:
    with pytest.raises(ValueError, match="at least one word"):
        Search([], 0)
    search = Search([], 13)
    search.read("anything at all", "a")
    assert search.overlaps() == []


@pytest.mark.parametrize(
    ("question", "whole", "verdict"),
    [
        (0.0, 0.0, "clean"),
        (None, 0.0, "clean"),
        (0.0, 0.1, "partly"),
        (0.69, 0.3, "partly"),
        (0.7, 0.3, "contaminated"),
        (0.5, 0.7, "contaminated"),
        (None, 0.9, "contaminated"),
        (None, None, "too short"),
    ],
)
def test_the_verdict_is_by_either_share(
    question: float | None, whole: float | None, verdict: str
) -> None:
    assert Overlap(40, question, whole, 0, "").verdict == verdict


def test_short_items_are_counted_and_are_no_part_of_the_share() -> None:
    shares = [(None, None), (None, 0.0), (0.0, 0.0), (0.5, 0.8), (1.0, 0.6)]
    found = summarise([Overlap(9, question, whole, 0, "") for question, whole in shares])
    question, whole = found.question, found.with_answer
    assert (question.items, question.short, question.hit, question.over) == (5, 2, 2, 1)
    assert (whole.items, whole.short, whole.hit, whole.over) == (5, 1, 2, 1)
    assert question.estimate is not None
    assert (question.estimate.low, question.estimate.high) == wilson_interval(1, 3)
    assert found.verdicts == {"clean": 2, "partly": 0, "contaminated": 2, "too short": 1}
    assert summarise([Overlap(1, None, None, 0, "")]).question.estimate is None


def test_a_score_is_split_by_verdict() -> None:
    values = {"a": 1.0, "b": 1.0, "c": 0.0, "d": 1.0, "e": 0.0}
    verdicts = dict(
        zip("abcdef", ["contaminated"] * 2 + ["clean"] * 2 + ["partly"] * 2, strict=True)
    )
    records = {key: record(0, value, id=key) for key, value in values.items()}
    records["f"] = record(0, 0.0, id="f", status="error")
    parts = split_score("accuracy", records, verdicts)  # type: ignore[arg-type]
    assert parts["all"] == estimate([1, 1, 0, 1, 0])
    assert parts["contaminated"] == estimate([1, 1])
    assert parts["clean"] == estimate([0, 1])
    assert parts["partly"] == estimate([0])
    assert parts["too short"] is None
    assert parts["without contaminated"] == estimate([0, 1, 0])
