"""Reading the final number, against lm-evaluation-harness's own filters and replies as written."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers import SCORERS, find_scorer
from qwen_eval.tasks.scorers.numbers import find_number, number, parse_number


def value(text: str) -> Fraction | None:
    found = find_number(text)
    return None if found is None else parse_number(found)


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (" 16 - 3 - 4 = 9. The answer is 9.", 9),
        ("The answer is $1,250.50.", Fraction(2501, 2)),
        ("The answer is -5", -5),
        ("so $\\boxed{20{,}800}$", 20800),
        ("The answer is 18\n\nQ: next 44", 18),
        ("so x = 3.  Answer: 42", 42),
        ("The answer is **7**.", 7),
        ("The answer is \\boxed{12}.", 12),
        ("she keeps 16-3 eggs, that is 13", 13),
        ("It is 20,800 in total", 20800),
        ("about .5 of them", Fraction(1, 2)),
        ("The answer is 1/2.", Fraction(1, 2)),
        ("costs $18.00", 18),
        ("The final answer is 3, not 4.", 3),
        ("The answer is −5.", -5),
        ("The answer is -.5", Fraction(-1, 2)),
        ("It falls by −.25", Fraction(-1, 4)),
        ("The answer is 3 1/2.", Fraction(7, 2)),
        ("The answer is -1,250 1/2 in all", Fraction(-2501, 2)),
        ("The answer is 1.5/2.", Fraction(3, 4)),
        ("The answer is 18 / 3 = 6.", 6),
        ("The answer is 5 x 3 = 15.", 15),
        ("The answer is 1/2 of 10 = 5", 5),
        ("The answer is $1,000 × 1.5 = $1,500.", 1500),
        ("The answer is 2 * 3 = 6 = **6**.", 6),
        ("The answer is 10 - 12 = -2", -2),
        ("The answer is 6. Check: 2 * 4 = 8", 6),
        ("The answer is 6, as x = 3", 6),
        ("The answer is 6\n= 7", 6),
        ("The answer is 1/0.", None),
        ("no number here", None),
        ("", None),
    ],
)
def test_replies_as_models_write_them(reply: str, expected: Fraction | None) -> None:
    assert value(reply) == expected


@given(st.integers(-(10**9), 10**9), st.booleans(), st.booleans())
def test_any_integer_is_read_back(n: int, commas: bool, dollar: bool) -> None:
    digits = f"{abs(n):,}" if commas else str(abs(n))
    written = ("-" if n < 0 else "") + ("$" if dollar else "") + digits
    assert value(f"Thus 7 x 3 = 21. The answer is {written}.") == n
    assert value(f"We add 7 and 3 and get {written}") == n


SIGNS = st.sampled_from(["", "-", "−"])
SENTENCES = st.sampled_from(
    ["The answer is {}.", "The answer is {}", "The answer: **{}**", "Answer = {} in all, not 7."]
)


@given(SENTENCES, SIGNS, st.booleans(), st.integers(0, 10**12), st.text("0123456789", max_size=6))
def test_any_decimal_is_read_back(
    sentence: str, sign: str, dollar: bool, whole: int, decimals: str
) -> None:
    point = f".{decimals}" if decimals else ""
    expected = Fraction(f"{whole}{point}") * (-1 if sign else 1)
    for digits in {str(whole), f"{whole:,}", "" if decimals and not whole else str(whole)}:
        written = f"{sign}{'$' * dollar}{digits}{point}"
        assert value(sentence.format(written)) == expected, written
        assert value(sentence.format(f"8 - 1 = {written}")) == expected, written


@given(SENTENCES, SIGNS, st.integers(0, 10**5), st.integers(0, 99), st.integers(1, 99))
def test_any_fraction_is_read_back(
    sentence: str, sign: str, whole: int, above: int, below: int
) -> None:
    part, factor = Fraction(above, below), -1 if sign else 1
    assert value(sentence.format(f"{sign}{above}/{below}")) == factor * part
    assert value(sentence.format(f"{sign}{whole:,} {above}/{below}")) == factor * (whole + part)


PIECES = st.one_of(
    st.text(max_size=5),
    st.sampled_from(["The answer is ", "-", "−", "$", ".", ",", "/", " ", "=", "0", "#### ", "٣"]),
    st.integers(1, 5000).map(lambda n: "7" * n),
    st.integers(1, 2000).map(lambda n: "1" + ",000" * n),
)


READERS = sorted(
    name
    for name, scorer in SCORERS.items()
    if scorer.__module__.endswith(("numbers", "retrieval", "answers", "verdicts"))
)


@given(st.lists(PIECES, max_size=8).map("".join))
def test_no_text_is_too_strange(text: str) -> None:
    for name in READERS:
        score = find_scorer(name)(text, "18", "m")
        assert score.status in ("scored", "no_answer")
        assert score.values["m"] in (0.0, 1.0)


# `answered` holds a reply against nothing: people judge it.
@pytest.mark.parametrize("name", sorted({*READERS} - {"answered"}))
@pytest.mark.parametrize("digits", ["9" * 5000, "0." + "3" * 5000, "1/" + "7" * 5000])
def test_more_digits_than_python_takes_are_never_right(name: str, digits: str) -> None:
    assert find_scorer(name)(f"The answer is {digits}.", "18", "m").values == {"m": 0.0}


def test_close_is_right_and_off_is_wrong() -> None:
    assert number("The answer is 2.00004", "2", "m").values == {"m": 1.0}
    assert number("The answer is 2.001", "2", "m").values == {"m": 0.0}
    assert number("I do not know", "2", "m").status == "no_answer"


# --- other projects' readings: protocols.md, "GSM8K", measured there -------------------------


@pytest.mark.parametrize(
    ("reply", "answer"),
    [("20,800", "800"), ("$18.00", "00"), ("-5", "5"), ("1/2", "2"), ("05", None), ("x", None)],
)
def test_qwens_reading_keeps_its_flaws(reply: str, answer: str | None) -> None:
    score = find_scorer("qwen_last_digits")(reply, "18", "m")
    assert score.answer == answer
    assert (score.status == "no_answer") == (answer is None)


@pytest.mark.parametrize(
    ("reply", "answer", "value"),
    [
        ("So she makes $18.", "18.", 1.0),
        ("It is 18.00005 dollars", "18.00005", 1.0),
        ("It is 18.001", "18.001", 0.0),
        ("1,018 and then -18", "-18", 0.0),
        ("16+18", "18", 1.0),
        ("no 18 but 1,000,000", "1000000", 0.0),
        ("018", None, 0.0),
        ("none", None, 0.0),
    ],
)
def test_qwens_chat_reading_takes_signs_separators_and_decimals(
    reply: str, answer: str | None, value: float
) -> None:
    score = find_scorer("qwen_last_number")(reply, "18", "m")
    assert (score.answer, score.values["m"]) == (answer, value)
    assert (score.status == "no_answer") == (answer is None)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("The answer is 18", "1"),
        ("The answer is 18.", "18"),
        ("The answer is 7", None),
        ("The answer is $18.", None),
        ("The answer is 1,234.", "1,234"),
    ],
)
def test_lm_evals_strict_match_loses_a_last_digit(reply: str, answer: str | None) -> None:
    assert find_scorer("lm_eval_strict_match")(reply, "18", "m").answer == answer


REPLIES = st.lists(
    st.sampled_from(
        [
            "The answer is ",
            "18",
            "7",
            ".",
            ",",
            "$",
            "-",
            " ",
            "\n",
            "so ",
            "1,000",
            "3.50",
            "#### ",
        ]
    ),
    max_size=10,
).map("".join)


@given(reply=REPLIES, target=st.sampled_from(["18", "7", "1000", "1,000", "-7"]))
def test_both_are_lm_evals_own_filters_and_metric(reply: str, target: str) -> None:
    import lm_eval
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    file = Path(lm_eval.__path__[0]) / "tasks" / "gsm8k" / "gsm8k-cot.yaml"
    config = yaml.safe_load(file.read_text(encoding="utf-8"))
    metric = config["metric_list"][0]
    for entry, ours in zip(
        config["filter_list"], ("lm_eval_strict_match", "lm_eval_flexible_extract"), strict=True
    ):
        settings = entry["filter"][0]
        regex = RegexFilter(
            regex_pattern=settings["regex_pattern"], group_select=settings.get("group_select", 0)
        )
        found = next(iter(regex.apply([[reply]], [{}])))[0]
        theirs = exact_match_hf_evaluate(
            predictions=[found],
            references=[target],
            regexes_to_ignore=metric["regexes_to_ignore"],
            ignore_case=metric["ignore_case"],
            ignore_punctuation=metric["ignore_punctuation"],
        )["exact_match"]
        score = find_scorer(ours)(reply, target, "m")
        assert score.values["m"] == float(theirs), (entry["name"], found)
        if found != "[invalid]":
            assert score.answer == found


def test_every_gold_of_gsm8k_is_read(mirror: Path) -> None:
    from qwen_eval.datasets import open_data
    from qwen_eval.prompts import Renderer
    from qwen_eval.taskspec import find_task

    data = open_data(find_task("gsm8k")[0], mirror)
    renderer = Renderer(data, "strict")
    large = 0
    for sample in data.samples():
        item = renderer.render(sample)
        gold = parse_number(item.target)
        assert gold is not None
        large += abs(gold) >= 1000
        assert number(item.reference, item.target, "m").values == {"m": 1.0}
        grouped = f"The answer is ${re.sub(r'(?<=[0-9])(?=(?:[0-9]{3})+$)', ',', str(gold))}.00."
        assert number(grouped, item.target, "m").values == {"m": 1.0}
    assert large == 131, "protocols.md: 131 of 1,319 golds are at least 1000 in size"
