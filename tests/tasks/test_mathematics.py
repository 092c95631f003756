"""Answers to MATH: what is read, what is equal, and that nothing takes forever."""

from __future__ import annotations

import importlib.util
import threading
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl
from qwen_eval.tasks.scorers import guarded
from qwen_eval.tasks.scorers.boxes import last_boxed
from qwen_eval.tasks.scorers.guarded import Guard, UndecidedError, guard
from qwen_eval.tasks.scorers.mathematics import (
    equal,
    find_answer,
    lm_eval_minerva,
    math_answer,
    written_alike,
)


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{12}", "12"),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\fbox{x}", "x"),
        ("$\\boxed 7$ or so", "7"),
        ("\\boxed{a} and \\boxed{b", "a"),
        ("\\boxed{\\boxed{3}}", "3"),
        ("\\boxedly", None),
        ("none", None),
    ],
)
def test_the_last_box_that_is_closed(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ("Final Answer: The final answer is $[2,5)$. I hope it is correct.", "[2,5)"),
        ("The answer is 3.5. And 7", "3.5"),
        ("the answer is $\\$15.48$", "\\$15.48"),
        ("**Answer:** x + 1\nmore", "x + 1"),
        ("所以答案是$\\frac{1}{2}$。", "\\frac{1}{2}"),
        ("we get $a$ and so $b$", "b"),
        ("that makes 12 apples", "12"),
        ("so \\boxed{4}. The answer is 5.", "4"),
        ("The answer is \\[\\frac{1}{2}\\]", "\\frac{1}{2}"),
        ("so \\(a\\), that is\n\\[\nx = 2\n\\]", "x = 2"),
        ("that is\n$$\nx = \\frac{1}{2}\n$$", "x = \\frac{1}{2}"),
        ("The answer is 12 square inches.", "12"),
        ("The answer is 5 or 6.", "5 or 6"),
        ("The answer is 5 million.", "5 million"),
        ("nothing", None),
    ],
)
def test_replies_as_models_write_them(reply: str, answer: str | None) -> None:
    assert find_answer(reply) == answer


@pytest.mark.parametrize(
    ("gold", "found", "same"),
    [
        ("\\frac{625}{648}", "625/648", True),
        ("p - q", "-q+p", True),
        ("\\left( 3, \\frac{\\pi}{2} \\right)", "(3,\\pi/2)", True),
        ("\\text{Evelyn}", "evelyn", True),
        ("90^\\circ", "90", True),
        ("\\$32,348", "32348", True),
        ("\\dfrac12", "0.5", True),
        ("10\\%", "10", True),
        ("x=5", "5", True),
        ("2\\sqrt{2}", "\\sqrt{8}", True),
        ("(2,5]", "(2,5)", False),
        ("12", "13", False),
        ("x+1", "x+2", False),
        ("\\frac{1}{2}", "\\frac{1}{3}", False),
    ],
)
def test_answers_that_are_the_same_and_those_that_are_not(
    gold: str, found: str, same: bool
) -> None:
    assert equal(gold, found) is same


def test_every_solution_of_math_is_right_and_its_neighbours_is_not(mirror: Path) -> None:
    rows = list(read_jsonl(mirror / "math" / "test.jsonl.gz"))
    assert all(last_boxed(row["chain_of_thought"]) == row["answer"] for row in rows)
    for row, other in pairwise(rows[:200]):
        assert math_answer(row["chain_of_thought"], row["answer"], "m").values == {"m": 1.0}
        if (
            row["answer"].isdigit()
            and other["answer"].isdigit()
            and row["answer"] != other["answer"]
        ):
            assert math_answer(other["chain_of_thought"], row["answer"], "m").values == {"m": 0.0}


def test_a_gold_may_be_a_whole_solution() -> None:
    assert math_answer("\\boxed{0.5}", "so it is $\\boxed{\\frac12}$", "m").values == {"m": 1.0}


HOSTILE = [
    "9^{9^{9^{9}}}", "9^9^9^9", "10^{1000000000}", "(10^{10})!", "100000000!", "((((" * 400,
    "\\sqrt{" * 60, "{" * 5000, "\\frac" * 70, "1" * 100_000, "\\sum_{i=1}^{10^{12}} i^{2}",
    "\\int_0^1 x^{x^{x}} dx", "x" * 300, "\\boxed{" * 10_000, "$" * 50_000,
    "$\\" * 50_000, "answer is " * 5000,
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("answer", HOSTILE, ids=lambda text: text[:12])
def test_hostile_answers_are_wrong_and_soon(answer: str) -> None:
    for reply in (f"The answer is ${answer}$", f"\\boxed{{{answer}}}", answer):
        assert math_answer(reply, "3", "m").values == {"m": 0.0}


def test_a_call_that_does_not_end_is_undecided_and_the_next_one_is_answered() -> None:
    with pytest.raises(UndecidedError, match="too"):
        guard().call("math_equal", "3", "((10^{8})!)!")
    assert guard().call("math_equal", "1/2", "0.5") is True


def test_any_thread_may_ask() -> None:
    answers: list[bool] = []
    threads = [
        threading.Thread(target=lambda: answers.append(equal("x+1", "1+x"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [True] * 4


def test_libraries_that_are_not_there_are_no_wrong_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    start = "import sys; sys.modules['math_verify'] = None; " + guarded._START
    monkeypatch.setattr(guarded, "_START", start)
    alone = Guard()
    with pytest.raises(UserError, match="math_equal: a scorer's libraries do not work"):
        alone.call("math_equal", "1", "x")
    alone.close()


@given(st.text(max_size=80), st.sampled_from(["", "\\boxed{", "The answer is $", "答案是"]))
@settings(max_examples=60)
def test_no_text_is_too_strange(text: str, before: str) -> None:
    score = math_answer(before + text, "\\text{never}", "m")
    assert score.values == {"m": 0.0} or written_alike(score.answer or "") == "never"


# --- lm-evaluation-harness's reading -----------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> ModuleType:
    import lm_eval

    path = Path(lm_eval.__path__[0]) / "tasks" / "minerva_math" / "utils.py"
    spec = importlib.util.spec_from_file_location("their_minerva", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("reply", "target"),
    [
        ("Final Answer: The final answer is $\\frac12$. I hope it is correct.", "\\frac{1}{2}"),
        ("Final Answer: The final answer is $x+1$. I hope it is correct.", "1+x"),
        ("Final Answer: The final answer is $5$ dollars. I hope it is correct.", "\\$5"),
        ("Final Answer: The final answer is $1,000$. I hope it is correct.", "1000"),
        ("Final Answer: The final answer is 7", "7"),
        ("Final Answer: The final answer is $(1,2)$. I hope it is correct.", "(2,1)"),
        ("The answer is \\boxed{7}", "7"),
        ("", "7"),
    ],
)
def test_minerva_is_lm_evals_own_result(theirs: ModuleType, reply: str, target: str) -> None:
    document = {"answer": theirs.normalize_final_answer(target), "solution": f"${target}$"}
    expected = float(theirs.process_results(document, [reply])["exact_match"])
    score = lm_eval_minerva(reply, target, "m")
    assert score.values == {"m": expected}
    assert lm_eval_minerva(reply, f"Thus $\\boxed{{{target}}}$.", "m").values == {"m": expected}
    unread = theirs.get_unnormalized_answer(reply) == "[invalidanswer]"
    assert (score.status == "no_answer") == unread
