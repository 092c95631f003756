"""Letters that a written reply chooses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers.examinations import letters, letters_or_formula, read_letters


@pytest.mark.parametrize(
    ("reply", "questions", "found"),
    [
        ("C", 1, ["C"]),
        (" C。因为A不对", 1, ["C"]),
        ("C项正确，A、B、D错误", 1, ["C"]),
        ("答案是C，A项错误", 1, ["C"]),
        ("答案是A，B，D", 1, ["ABD"]),
        ("答案：C。\n\n选择A的同学忽略了条件B。", 1, ["C"]),
        ("The answer is B and D", 1, ["BD"]),
        ("正确答案不是B，是D", 1, ["D"]),
        ("The answer is (C). Option A is wrong", 1, ["C"]),
        ("1. C because A is wrong.\n2. A\n3. D", 3, ["C", "A", "D"]),
        ("【答案】 C <eoa>", 1, ["C"]),
        ("【解析】A错，B错。\n【答案】：Ｄ", 1, ["D"]),
        ("故选 B．", 1, ["B"]),
        ("正确答案是A、C。", 1, ["AC"]),
        ("【答案】DB", 1, ["BD"]),
        ("A dog runs. The answer is (B) because A is wrong.", 1, ["B"]),
        ("The answer is A.", 1, ["A"]),
        ("so $\\boxed{C}$", 1, ["C"]),
        ("答案：C A D", 3, ["C", "A", "D"]),
        ("【答案】CAD", 3, ["C", "A", "D"]),
        ("【答案】1. C 2. A 3. D", 3, ["C", "A", "D"]),
        ("C, A, D", 3, ["C", "A", "D"]),
        ("【答案】C", 3, ["C"]),
        ("不知道", 1, []),
        ("I do not know", 1, []),
    ],
)
def test_replies_as_models_write_them(reply: str, questions: int, found: list[str]) -> None:
    assert read_letters(reply, questions) == found


@pytest.mark.parametrize(
    ("reply", "target", "value"),
    [
        ("C", "C", 1.0), ("B", "C", 0.0), ("BD", "BD", 1.0), ("B", "BD", 0.5), ("AB", "BD", 0.0),
        ("ABD", "BD", 0.0), ("BD", "B", 0.0), ("C A D", "C A D", 1.0), ("C B D", "C A D", 2 / 3),
        ("C", "C A D", 1 / 3),
    ],
)  # fmt: skip
def test_points_as_the_examination_gives_them(reply: str, target: str, value: float) -> None:
    assert letters(reply, target, "m").values == pytest.approx({"m": value})


def test_agieval_takes_all_letters_or_a_formula() -> None:
    assert letters_or_formula("应选择 BD", "BD", "m").values == {"m": 1.0}
    assert letters_or_formula("应选择 B", "BD", "m").values == {"m": 0.0}
    assert letters_or_formula("答案：$\\frac12$", "0.5", "m").values == {"m": 1.0}
    assert letters_or_formula("？", "B", "m").status == "no_answer"


@given(st.text("ABCDabx 答案选、,.()\n", max_size=60), st.sampled_from(["C", "BD", "C A D"]))
def test_no_text_is_too_strange(text: str, target: str) -> None:
    score = letters(text, target, "m")
    assert 0.0 <= score.values["m"] <= 1.0
    assert (score.answer is None) == (score.status == "no_answer")


@pytest.mark.parametrize(
    "text", ["A" * 100_000 + "x", "A " * 50_000, "答案" * 50_000, "ABx" * 30_000]
)
def test_a_long_reply_is_read_at_once(text: str) -> None:
    assert letters(text, "C", "m").values == {"m": 0.0}


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("$5$;$10$", 1.0),
        ("答案是 $5$；$10$", 1.0),
        (r"所以 $\boxed{5; 10}$", 1.0),
        (r"\boxed{5}；\boxed{10}", 1.0),
        ("$5$;$11$", 0.0),
        ("$10$;$5$", 0.0),
        ("$10$", 0.0),
        ("我不知道", 0.0),
    ],
)
def test_a_cloze_of_several_gaps_is_right_if_all_are(reply: str, right: float) -> None:
    assert letters_or_formula(reply, "$5$;$10$", "accuracy").values["accuracy"] == right
