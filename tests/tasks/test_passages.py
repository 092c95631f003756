"""Short answers: SQuAD's words, lm-eval's exact match, and CMRC 2018 by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers.passages import (
    chinese_span,
    cmrc_segments,
    lm_eval_short_answer,
    longest_run,
    short_answer,
)


@pytest.mark.parametrize(
    ("reply", "target", "exact", "f1"),
    [
        (" The 14 December, 1972.", "14 December 1972 UTC\n14 december 1972", 1.0, 1.0),
        (" Bobby Scott\nQ: next", "Bobby Scott\nBob Russell", 1.0, 1.0),
        (" it was Bobby Scott", "Bobby Scott\nBob Russell", 0.0, 2 * 2 / (4 + 2)),
        (" scott scott", "Bobby Scott", 0.0, 2 * 1 / (2 + 2)),
        (" Ｂｏｂｂｙ Ｓｃｏｔｔ", "Bobby Scott", 1.0, 1.0),
        (" London", "Paris", 0.0, 0.0),
    ],
)
def test_short_answers_by_hand(reply: str, target: str, exact: float, f1: float) -> None:
    score = short_answer(reply, target, "exact_match")
    assert score.values == pytest.approx({"exact_match": exact, "f1": f1})
    assert score.status == "scored"


def test_no_word_is_no_answer() -> None:
    for reply in ("", " \n ", ".", " the"):
        assert short_answer(reply, "x", "exact_match").status == "no_answer"


WORDS = st.lists(
    st.sampled_from(["The ", "the ", "A ", "an ", "THE ", "Bob", " ", ".", ",", "'s", "and "]),
    max_size=6,
).map("".join)


@given(WORDS, WORDS)
def test_lm_evals_exact_match_is_its_own(reply: str, target: str) -> None:
    from lm_eval.api.metrics import exact_match_hf_evaluate

    theirs = exact_match_hf_evaluate(
        predictions=[reply.strip()],
        references=[target],
        regexes_to_ignore=["\\b(?:The |the |An |A |The |a |an )"],
        ignore_case=True,
        ignore_punctuation=True,
    )["exact_match"]
    score = lm_eval_short_answer(reply, f"no such\n{target}", "m")
    assert score.values["m"] == (float(theirs) if reply.strip() else 0.0)


def test_segments_of_two_scripts() -> None:
    assert cmrc_segments("《光荣》和ω-Force社，1998年!") == [
        *"光荣和",
        "ωforce",
        "社",
        "1998",
        "年",
        "!",
    ]


@pytest.mark.parametrize(
    ("reply", "target", "f1", "exact"),
    [
        ("光荣和ω-force", "光荣和ω-force", 1.0, 1.0),
        ("《光荣》和ω-Force。", "光荣和ω-force", 1.0, 1.0),
        ("答案是：村雨城。", "任天堂游戏谜之村雨城\n村雨城", 1.0, 1.0),
        # Three characters stand in a row in both.
        ("是村雨城吗", "任天堂游戏村雨城", 2 * 3 / (5 + 8), 0.0),
        # Shared, but not in a row: the longest run has one character.
        ("北上京海", "北京", 2 * 1 / (4 + 2), 0.0),
        ("上海", "北京", 0.0, 0.0),
    ],
)
def test_spans_by_hand(reply: str, target: str, f1: float, exact: float) -> None:
    score = chinese_span(reply, target, "f1")
    assert score.values == pytest.approx({"f1": f1, "exact_match": exact})


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_the_longest_run_is_that_of_brute_force(one: str, other: str) -> None:
    runs = [one[i:j] for i in range(len(one)) for j in range(i + 1, len(one) + 1)]
    assert longest_run(list(one), list(other)) == max(
        (len(run) for run in runs if run in other), default=0
    )


@given(st.text(max_size=60))
def test_no_text_is_too_strange(text: str) -> None:
    for read in (short_answer, lm_eval_short_answer, chinese_span):
        score = read(text, "答案\nsome words", "m")
        assert 0.0 <= score.values["m"] <= 1.0
        assert (score.answer is None) == (score.status == "no_answer")


def test_a_long_reply_is_read_at_once() -> None:
    score = chinese_span("北" * 100_000, "北" * 300 + "京", "f1")
    assert score.values["f1"] == pytest.approx(2 * 300 / (100_000 + 301))
