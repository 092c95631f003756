"""Reading the final number, against lm-evaluation-harness's own filters and replies as written."""

from __future__ import annotations

import re
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers import find_scorer
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
