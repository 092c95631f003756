"""Which call a reply makes: by our reader, and by the released script's, worked out by hand."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.tasks.scorers import CALL_READERS, find_call_reader
from qwen_eval.tasks.scorers.tool_calls import qwen_react, react


class Case(NamedTuple):
    """A reply; name and arguments by `react` (None: no call), and by `qwen_react`, which may read
    arguments where nothing is called."""

    reply: str
    name: str | None
    arguments: str
    qwen_name: str | None
    qwen_arguments: str


INPUT = 'Action Input: {"n": 1}'
N = '{"n": 1}'
CASES = {
    "plain": Case(
        'Thought: t\nAction: w\nAction Input: {"b": 2.0, "a": "北京"}',
        *("w", '{"a": "北京", "b": 2.0}', "w", '{"a": "北京", "b": 2.0}'),
    ),
    "an invented observation, and another call": Case(
        f'T\nAction: a\n{INPUT}\nObservation: ok\nThought: u\nAction: b\nAction Input: {{"n": 2}}',
        *("a", N, "a", N),
    ),
    "two calls without an observation": Case(
        f'T\nAction: a\n{INPUT}\nAction: b\nAction Input: {{"n": 2}}', "a", N, "a", ""
    ),
    "two actions, one input": Case(f"T\nAction: a\nAction: b\n{INPUT}", "a", "", "a\nAction: b", N),
    "no input": Case("T\nAction: a", "a", "", "a", ""),
    "no input but an answer": Case(
        "T\nAction: a\nFinal Answer: 7", "a", "", "a\nFinal Answer: 7", ""
    ),
    "broken JSON": Case('T\nAction: a\nAction Input: {"n": 1', "a", "", "a", ""),
    "a bare word": Case("T\nAction: a\nAction Input: Beijing", "a", "", "a", ""),
    "an empty input": Case("T\nAction: a\nAction Input:", "a", "", "a", ""),
    "a fence": Case(f"T\nAction: a\nAction Input: ```json\n{N}\n```", "a", N, "a", ""),
    "a fence and JSON5": Case("T\nAction: a\nAction Input:\n```\n{n: 1}\n```", "a", N, "a", ""),
    "full-width colons": Case(f"T\nAction：a\nAction Input：{N}", "a", N, None, ""),
    "Chinese quotation marks": Case("T\nAction: a\nAction Input: {“n”：1}", "a", "", "a", ""),
    "nested braces": Case(
        'T\nAction: a\nAction Input: {"f": {"g": [1, {"h": "}"}]}}',
        *("a", '{"f": {"g": [1, {"h": "}"}]}}', "a", '{"f": {"g": [1, {"h": "}"}]}}'),
    ),
    "words behind the input": Case(f"T\nAction: a\n{INPUT} as asked", "a", N, "a", ""),
    "single quotes and a last comma": Case("T\nAction: a\nAction Input: {'n': 1,}", *("a", N) * 2),
    "the input on its own line": Case(f"T\nAction: a\nAction Input:\n{N}", *("a", N) * 2),
    "the name on its own line": Case(f"T\nAction:\na\n{INPUT}", "a", N, None, N),
    "the reply begins with the action": Case(f"Action: a\n{INPUT}", "a", N, None, N),
    "bold labels": Case(
        f"**Thought:** t\n**Action:** `a`\n**Action Input:** {N}", "a", N, None, ""
    ),
    "a name in brackets": Case(f"T\nAction: [a]\n{INPUT}", "a", N, "[a]", N),
    "Observation: in a thought": Case(
        f"Thought: no Observation: yet\nAction: a\n{INPUT}", "a", N, "a", ""
    ),
    "None is no tool": Case(
        "T\nAction: None\nFinal Answer: 7", None, "", "None\nFinal Answer: 7", ""
    ),
    "无 is no tool": Case(
        "T\nAction: 无。\nFinal Answer: 好", None, "", "无。\nFinal Answer: 好", ""
    ),
    "a list": Case("T\nAction: a\nAction Input: [1, 2]", "a", "", "a", "[1, 2]"),
    "an answer": Case("Thought: I now know the final answer\nFinal Answer: 7", None, "", None, ""),
    "talk of an action": Case("The best Action: to wait and see.", None, "", None, ""),
    "an answer with a number at the 13th letter": Case("Remember 7: 42", None, "", None, "42"),
    "deep": Case(
        "T\nAction: a\nAction Input: " + '{"a": ' * 5000, "a", "", "a", ""
    ),
    "a number too long": Case("T\nAction: a\nAction Input: {n: " + "9" * 5000, "a", "", "a", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_reply_is_read(case: Case) -> None:
    ours, released = react(case.reply, True), qwen_react(case.reply, True)
    assert (ours.name if ours.called else None, ours.arguments) == (case.name, case.arguments)
    assert (released.name if released.called else None) == case.qwen_name
    assert released.arguments == case.qwen_arguments
    assert ours.decided
    assert released.decided


def test_what_needed_a_lenient_reading_is_told() -> None:
    lenient = {name for name, case in CASES.items() if react(case.reply, True).lenient}
    assert lenient == {"a fence and JSON5", "single quotes and a last comma"}
    assert all(qwen_react(case.reply, True).lenient is None for case in CASES.values())


def test_a_name_has_its_own_letters_but_not_for_the_released_script() -> None:
    reply = f"T\nAction: Weather\n{INPUT}"
    assert react(reply, True).is_for("Weather")
    assert not react(reply, True).is_for("weather")
    assert qwen_react(reply, True).is_for("weather")
    assert not qwen_react(reply, True).is_for("weather_now")


@pytest.mark.parametrize(
    ("reply", "ended", "decided"),
    [
        ("", True, False),
        (" \n", True, False),
        ("It rains.", True, True),
        ("It rains and rains and", False, False),
        ("Thought: hm, hm, hm, hm", False, False),
        ("Thought: hm\nFinal Answer: It rains and", False, True),
        ("Thought: hm\nAction: a\nAction Input: {", False, True),
        ("Thought: hm\nAction: None\nAction Input: None", False, False),
    ],
)
def test_a_reply_that_ends_too_early_decides_nothing(
    reply: str, ended: bool, decided: bool
) -> None:
    assert react(reply, ended).decided is decided


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("No tool needed.", False),
        ("N/A (no tool required)", False),
        ("Final Answer", False),
        ("不需要任何工具", False),
        ("none_such", True),
        ("notes.add", True),
        ("no.op", True),
    ],
)
def test_words_that_name_no_tool(name: str, called: bool) -> None:
    assert react(f"Thought: hm\nAction: {name}\nFinal Answer: 7", True).called is called


PIECES = st.sampled_from(
    ["\n", " ", "Action:", "Action Input:", "Observation:", "Thought:", "Final Answer:", "a",
     "{", "}", "[", "]", '"', "'", ":", "：", ",", "1", "-", "e", "\\", "\\u", "/*", "```",
     "\ud800", "NaN", "None", "“", "\0"]
)  # fmt: skip


@pytest.mark.parametrize("name", CALL_READERS)
@given(reply=st.lists(PIECES, max_size=40).map("".join), ended=st.booleans())
def test_no_reply_is_too_hostile(name: str, reply: str, ended: bool) -> None:
    reading = find_call_reader(name)(reply, ended)
    assert reading.decided or not reading.called
    if reading.arguments:
        assert json.dumps(
            json.loads(reading.arguments), ensure_ascii=False, sort_keys=True
        ) == reading.arguments  # fmt: skip
