"""Final numbers in Chinese, in LaTeX, with percent and powers of ten."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.fileio import read_jsonl
from qwen_eval.tasks.scorers import find_scorer
from qwen_eval.tasks.scorers.written_numbers import chinese_number, gold_number, read_number
from tests.tasks.test_numbers import PIECES


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("答案是１２个。", "12"),
        ("一共有 20 页，答：还剩9页。", "9"),
        ("答案是十二。", "12"),
        ("答案：三分之二", "2/3"),
        ("答：一共十二页", "12"),
        ("答：3个小朋友一共有18个苹果。", "18"),
        ("答：5天可以修18米。（18÷5=3.6）", "18"),
        ("答：9×2=18（个）", "18"),
        ("答案是18元，每人2元", "18"),
        ("答：占$\\frac12$", "1/2"),
        ("答：他一共用了3.5元", "7/2"),
        ("答案是：99-90=9（页）。", "9"),
        ("答案是 1又2/3 米", "5/3"),
        ("答案是3分之2", "2/3"),
        ("出勤率是百分之95", "19/20"),
        ("答案是二〇二三年", "2023"),
        ("答案为48.1。", "481/10"),
        ("\\boxed{\\frac{2}{6}}", "1/3"),
        ("so \\boxed{x = 12 \\text{ cm}^2}, not 7", "12"),
        ("\\boxed{1{,}000}", "1000"),
        ("that is 2\\frac{1}{2}", "5/2"),
        ("1.98\\times10^{8}", "198000000"),
        ("about 5 × 10^-3", "1/200"),
        ("1.5e3", "1500"),
        ("The answer is 12%.", "3/25"),
        ("The answer is $20,800.", "20800"),
        ("The answer is 5 x 3 = 15.", "15"),
        ("we get 7", "7"),
        ("答案", None),
        ("无", None),
    ],
)
def test_replies_as_models_write_them(reply: str, expected: str | None) -> None:
    assert read_number(reply) == (None if expected is None else Fraction(expected))


@pytest.mark.parametrize(
    ("numeral", "value"),
    [("零", 0), ("十", 10), ("二十", 20), ("三百零五", 305), ("一万二千三百四十五", 12345),
     ("两千万", 20_000_000), ("一亿零三", 100_000_003), ("一九四九", 1949)],
)  # fmt: skip
def test_chinese_numerals(numeral: str, value: int) -> None:
    assert chinese_number(numeral) == value


@given(st.integers(0, 9999))
def test_numerals_of_four_digits_are_read_back(number: int) -> None:
    parts = zip(f"{number:04}", "千百十 ", strict=True)
    written = "".join("零一二三四五六七八九"[int(d)] + u.strip() for d, u in parts if d != "0")
    assert chinese_number(written or "零") == number
    assert read_number(f"答案是{written or '零'}。") == number


@pytest.mark.parametrize(
    ("gold", "value"),
    [("12%", "3/25"), ("1(1/2)", "3/2"), ("((3)/(4))", "3/4"), ("-0.8531", "-8531/10000")],
)
def test_golds_as_the_sets_write_them(gold: str, value: str) -> None:
    assert gold_number(gold) == Fraction(value)


@pytest.mark.parametrize(
    ("reply", "target", "value"),
    [("0.1928", "0.1928", 1.0), ("0.1927", "0.1928", 1.0), ("0.1938", "0.1928", 0.0),
     ("=4", "4", 1.0), ("12.566", "12.5660", 1.0),
     (" 2, 5+9=14", "2", 1.0), ("1+1=2", "2", 1.0), ("-6", "6", 0.0)],
)  # fmt: skip
def test_math401_is_right_within_a_thousandth(reply: str, target: str, value: float) -> None:
    assert find_scorer("thousandth_first")(reply, target, "m").values == {"m": value}


def test_every_gold_of_cmath_is_read(mirror: Path) -> None:
    for row in read_jsonl(mirror / "cmath" / "test.jsonl.gz"):
        for reply in (f"答案是{row['answer']}。", f"所以\\boxed{{{row['answer']}}}"):
            score = find_scorer("written_number")(reply, row["answer"], "m")
            assert score.values == {"m": 1.0}, row


MORE = st.sampled_from(
    ["\\boxed{", "}", "\\frac{", "{", "答案是", "分之", "百", "一", "%", "×10^", "e"]
)


@given(st.lists(PIECES | MORE, max_size=12).map("".join))
def test_no_text_is_too_strange(text: str) -> None:
    for name in ("written_number", "thousandth", "thousandth_first"):
        score = find_scorer(name)(text, "18", "m")
        assert score.values["m"] in (0.0, 1.0)
        assert (score.answer is None) == (score.status == "no_answer")
