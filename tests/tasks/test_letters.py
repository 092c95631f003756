"""Readings of a chosen letter: ours, and what the released chat scripts make of the replies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers import read
from qwen_eval.tasks.scorers.letters import find_letter
from qwen_eval.types import Item, Prompt, Sample, Score

OPTIONS = ["Paris", "Lyon", "Rome", "Bonn"]


def scored(reply: str, scorer: str, options: list[str] = OPTIONS, gold: int = 1) -> Score:
    sample = Sample("x", "toy", {"question": "法国的首都是____。"})
    item = Item(sample, "toy", Prompt(), "B", scorer, "accuracy", tuple(options), gold)
    return read(reply, item)


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(B) Lyon", "B"),
        ("**B**", "B"),
        ("Ｂ", "B"),
        ("The answer is B.", "B"),
        ("The answer is (C), since A is wrong.", "C"),
        ("At first I thought the answer is A. But the answer is D", "D"),
        ("The correct answer would be: **C**", "C"),
        ("Answer: option B", "B"),
        ("The answer is not A. The answer is B.", "B"),
        ("答案是C。", "C"),
        ("答案：D", "D"),
        ("综上，故选B。", "B"),
        ("应该选择 A 选项", "A"),
        ("B选项正确", "B"),
        ("Thus \\boxed{B}", "B"),
        ("Thus $\\boxed{\\text{(C)}}$.", "C"),
        ("I would choose D", "D"),
        ("Option C", "C"),
        ("B is correct", "B"),
        ("Lyon", "B"),
        ("  lyon.", "B"),
        ("A big city lies in the south.", None),
        ("Be careful", None),
        ("It is a city in France", None),
        ("The answer is Athens", None),
        ("The answer is E", None),
        ("", None),
        ("I do not know", None),
        ("A、B都不对", None),
        # An explanation behind the answer speaks of other options.
        ("答案是C。选项A不正确。", "C"),
        ("答案是C。选项A是1，选项B是2。", "C"),
        ("选C，选项A错误", "C"),
        ("The correct option is B: Lyon. Choice A is incorrect.", "B"),
        ("The answer is not A but B.", "B"),
        ("The answer must be B.", "B"),
        ("The answer is the letter B", "B"),
        ("The answer is $B$.", "B"),
        ("The answer is \\(B\\).", "B"),
        ("The answer is 'B'", "B"),
        ("The answer is B's neighbour", None),
        ("A and C are wrong, so B is the answer.", "B"),
        ("【答案】C", "C"),
        ("答案是『C』", "C"),
        ("说法不正确的是C", "C"),
        ("C、罗马", "C"),
        ("正确答案不是B，是D", "D"),
        ("D.\n\nExplanation: A is correct in other cases, option B in none.", "D"),
        ("A. too far north\nB. too small\nI choose C", "C"),
        ("A. Paris lies in France.\nB. So does Lyon.\n\n**B**", "B"),
    ],
)
def test_what_is_chosen(reply: str, letter: str | None) -> None:
    assert find_letter(reply, OPTIONS) == letter


def test_no_choice_is_no_answer() -> None:
    assert scored("who knows", "letter").status == "no_answer"
    assert scored("The answer is B", "letter").values == {"accuracy": 1.0}
    assert scored("The answer is C", "letter").values == {"accuracy": 0.0}


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        # Each of the four stages, and the options that become letters before them.
        ("The answer is (C)", "C"),
        ("I choose D", "D"),
        ("C would be correct", "C"),
        ("B. because", "B"),
        ("perhaps C, perhaps D", "C"),
        ("It is Rome.", "C"),
        ("it is rOME", "C"),
        # "answer … not" is passed over, and the first letter is then taken all the same.
        ("The answer is not A", "A"),
        # An option inside a word is replaced there.
        ("The Parisian one is right", "A"),
        # What is left is matched fuzzily.
        ("Lyom", "B"),
        ("", "A"),
    ],
)
def test_the_released_mmlu_script_finds_a_letter_in_anything(reply: str, letter: str) -> None:
    found = scored(reply, "qwen_chat_mmlu")
    assert (found.answer, found.status) == (letter, "scored")


@pytest.mark.parametrize(
    ("reply", "letter"),
    [
        ("答案是C。", "C"),
        ("应该选B", "B"),
        ("D选项正确", "D"),
        ("A。", "A"),
        ("也许是 C 吧", "C"),
        # The question becomes 答案是, the option a letter.
        ("法国的首都是巴黎", "A"),
        ("罗马吗", "C"),
    ],
)
def test_the_released_ceval_script_reads_a_repeated_question(reply: str, letter: str) -> None:
    options = ["巴黎", "里昂", "罗马", "波恩"]
    assert scored(reply, "qwen_chat_ceval", options).answer == letter


@given(st.text(max_size=200))
def test_any_reply_is_read(reply: str) -> None:
    assert find_letter(reply, OPTIONS) in {"A", "B", "C", "D", None}
    for scorer in ("qwen_chat_mmlu", "qwen_chat_ceval"):
        assert scored(reply, scorer).answer in {"A", "B", "C", "D"}
