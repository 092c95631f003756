"""The five kinds of answers of BIG-Bench Hard, and lm-eval's filter."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.fileio import read_jsonl
from qwen_eval.tasks.scorers.big_bench_hard import bbh_answer, lm_eval_get_answer


@pytest.mark.parametrize(
    ("reply", "target", "value"),
    [
        ("So the answer is (B).", "(B)", 1.0),
        ("So the answer is B.", "(B)", 1.0),
        ("The answer is **(b)** Monday", "(B)", 1.0),
        ("(A) is wrong. So the answer is (C).\n\nQ: more. The answer", "(C)", 1.0),
        ("I think it is (D)", "(D)", 1.0),
        ("So the answer is (A).", "(B)", 0.0),
        ("So the answer is yes.", "Yes", 1.0),
        ("so the answer is No", "Yes", 0.0),
        ("True or False = True", "True", 1.0),
        ("So the answer is invalid.", "valid", 0.0),
        ("So the answer is invalid.", "invalid", 1.0),
        ("So the answer is 1,024.", "1024", 1.0),
        ("So the answer is -50.", "-50", 1.0),
        ("3 + 4 = 7", "7", 1.0),
        ("So the answer is ] ] >.", "] ] >", 1.0),
        ("So the answer is ]]>", "] ] >", 1.0),
        ("So the answer is ] >.", "] ] >", 0.0),
        ("So the answer is barn, damp dot.", "barn damp dot", 1.0),
        ("So the answer is damp barn dot.", "barn damp dot", 0.0),
        ("So the answer is Option B.", "(B)", 1.0),
        ("So the answer is \\boxed{B}", "(B)", 1.0),
        ("**B**", "(B)", 1.0),
        ("So the answer is a B-side.", "(B)", 0.0),
        ("So the answer is **barn damp dot**.", "barn damp dot", 1.0),
        ("So the answer is [`barn`, `damp`, `dot`].", "barn damp dot", 1.0),
        ('So the answer is "barn damp dot".', "barn damp dot", 1.0),
        ("So the answer is:\n- barn\n- damp\n- dot", "barn damp dot", 1.0),
        ("So the answer is:\n1. damp\n2. barn\n3. dot", "barn damp dot", 0.0),
        ("The sorted list is: barn damp dot", "barn damp dot", 1.0),
    ],
)
def test_kinds_of_answers(reply: str, target: str, value: float) -> None:
    assert bbh_answer(reply, target, "m").values == {"m": value}


@pytest.mark.parametrize("target", ["(B)", "Yes", "7", "] )", "True"])
def test_a_reply_without_an_answer(target: str) -> None:
    assert bbh_answer("I do not know", target, "m").status == "no_answer"


def test_every_target_is_its_own_answer_and_no_others(mirror: Path) -> None:
    rows = list(read_jsonl(mirror / "bbh" / "test.jsonl.gz"))
    for row, other in pairwise(rows):
        reply = f"Let us see. So the answer is {row['target']}."
        assert bbh_answer(reply, row["target"], "m").values == {"m": 1.0}, row
        if row["task"] == other["task"] and row["target"] != other["target"]:
            assert bbh_answer(reply, other["target"], "m").values == {"m": 0.0}, (row, other)


def test_the_authors_solutions_are_read(mirror: Path) -> None:
    """Three a task, each ends with its answer."""
    for row in read_jsonl(mirror / "bbh" / "cot_prompts.jsonl.gz"):
        for solution in row["prompt"].split("\nQ: ")[1:]:
            answer = solution.rpartition("he answer is ")[2].strip().removesuffix(".")
            assert bbh_answer(solution, answer, "m").values == {"m": 1.0}, (row["task"], answer)


PIECES = st.lists(
    st.sampled_from(["the answer is ", "The answer is ", "(A)", ".", "\n", " ", "yes", "7", "x"]),
    max_size=8,
).map("".join)


@given(PIECES, st.sampled_from(["(A)", "yes", "7"]))
def test_lm_evals_filter_is_its_own(reply: str, target: str) -> None:
    import lm_eval
    from lm_eval.filters.extraction import RegexFilter

    folder = Path(lm_eval.__path__[0]) / "tasks" / "bbh" / "cot_fewshot"
    config = yaml.safe_load((folder / "_cot_fewshot_template_yaml").read_text(encoding="utf-8"))
    pattern = config["filter_list"][0]["filter"][0]["regex_pattern"]
    found = next(iter(RegexFilter(regex_pattern=pattern).apply([[reply]], [{}])))[0]
    score = lm_eval_get_answer(reply, target, "m")
    assert score.values["m"] == float(found == target)
    assert score.answer == (None if found == "[invalid]" else found)


@given(st.text(max_size=80), st.sampled_from(["(A)", "yes", "7", "] )", "some words"]))
def test_no_text_is_too_strange(text: str, target: str) -> None:
    score = bbh_answer(f"the answer is {text}", target, "m")
    assert score.values["m"] in (0.0, 1.0)
