"""Training shows a model tools as the harness does, and never teaches what a tool returned."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.cli.tool_prompts import tool_prompts
from qwen_eval.datasets import open_data
from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl
from qwen_eval.model.bundled import folder
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.prompts import Renderer
from qwen_eval.tasks.scorers.tool_calls import react
from qwen_eval.tasks.solvers.code_interpreter import code_interpreter
from qwen_eval.taskspec import find_task
from qwen_eval.train.conversations import Turns, learnt
from qwen_eval.train.tool_use import fireact_turns, tool_turns
from qwen_eval.types import ExecuteRequest, GenerateRequest, Response

DATA = Path(os.environ.get("QWEN_EVAL_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the data mirror is absent")
WEATHER = {
    "name": "weather",
    "description": "Says the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
CALL = {
    "conversations": [
        {"from": "human", "value": "Is it cold in 哈尔滨?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "哈尔滨"}}'},
        {"from": "observation", "value": '{"celsius": -20}'},
        {"from": "gpt", "value": "Yes, -20 °C."},
        {"from": "human", "value": "Thanks!"},
        {"from": "gpt", "value": "You are welcome."},
    ],
    "tools": json.dumps([WEATHER]),
}
CODE = {
    "conversations": [
        {"from": "human", "value": "How much is 17 * 23?"},
        {
            "from": "function_call",
            "value": json.dumps(
                {"name": "code_interpreter", "arguments": {"code": "print(17 * 23)"}}
            ),
        },
        {"from": "observation", "value": "391"},
        {"from": "gpt", "value": "391"},
    ],
    "tools": [{"name": "code_interpreter"}],
}


def spoken(turns: Turns) -> list[str]:
    """What the assistant's turns hold, each with its observations."""
    found: list[str] = []
    before = ""
    for role, content in turns:
        if role == "observation" or (role == "assistant" and before == "observation"):
            found[-1] += content
        elif role == "assistant":
            found.append(content)
        before = role
    return found


def test_a_call_is_written_as_the_react_prompt_asks() -> None:
    turns = tool_turns(CALL, "here", tool_prompts())
    assert [role for role, _ in turns] == [
        *("system", "user", "assistant", "observation", "assistant", "user", "assistant")
    ]
    assert spoken(turns) == [
        "Thought: I need to call weather\n"
        'Action: weather\nAction Input: {"city": "哈尔滨"}\n'
        'Observation: {"celsius": -20}\n'
        "Thought: I now know the final answer\nFinal Answer: Yes, -20 °C.",
        "Thought: I now know the final answer\nFinal Answer: You are welcome.",
    ]
    assert turns[3] == ("observation", ' {"celsius": -20}\nThought:')
    assert turns[5] == ("user", "Thanks!")


def test_the_harness_reads_the_call_that_is_learnt() -> None:
    turns = tool_turns(CALL, "here", tool_prompts())
    reading = react(turns[2][1].removesuffix("\nObservation:"), True)
    assert reading.is_for("weather")
    assert json.loads(reading.arguments) == {"city": "哈尔滨"}


@needs_data
def test_the_prompt_is_the_harness_own_for_the_same_question() -> None:
    spec, _ = find_task("bfcl_tools")
    data = open_data(spec, DATA)
    renderer = Renderer(data, "strict")
    for sample in list(data.samples())[:40]:
        row = sample.row
        asked: dict[str, Any] = {
            "tools": row["function"],
            "conversations": [
                {"from": "human", "value": row["question"][0][0]["content"]},
                {"from": "gpt", "value": "No."},
            ],
        }
        turns = tool_turns(asked, "here", tool_prompts())
        prompt = renderer.render(sample).prompt
        assert list(turns[:-1]) == [(m.role, m.content) for m in prompt.messages]


def test_a_session_with_code_is_the_text_that_the_harness_builds() -> None:
    """The solver is driven by what was learnt; each of its prompts is what stands before that."""
    spec, _ = find_task("code_interpreter_math")
    data = open_data(spec, None)
    item = Renderer(data, "strict").render(next(iter(data.samples())))
    row = {**CODE, "conversations": [*CODE["conversations"]]}
    row["conversations"][0] = {"from": "human", "value": item.sample.row["question"]}
    turns = tool_turns(row, "here", tool_prompts())
    assert list(turns[:2]) == [(m.role, m.content) for m in item.prompt.messages]
    whole = spoken(turns)[0]
    solver = code_interpreter(item)
    next(solver)
    # The harness stops a reply at `Observation:`.
    executed = solver.send(Response(turns[2][1].removesuffix("Observation:")))
    assert isinstance(executed, ExecuteRequest)
    assert executed.code.strip() == "print(17 * 23)"
    asked = solver.send(Response("391\n", passed=True))
    assert isinstance(asked, GenerateRequest)
    assert asked.prompt.messages[-1].role == "assistant"
    assert whole == asked.prompt.messages[-1].content + turns[-1][1]
    bundled = load_tokenizer(folder("tiny"))
    ids, _ = learnt(turns, bundled, "paper")
    continued = bundled.encode(asked.prompt.messages[-1].content)
    joined = [*continued, *bundled.encode(turns[-1][1])]
    assert joined == bundled.encode(whole) == ids[-len(joined) - 2 : -2]


def test_without_tools_it_is_an_ordinary_conversation() -> None:
    turns = tool_turns(
        {**CALL, "conversations": CALL["conversations"][4:], "tools": "[]"}, "", tool_prompts()
    )
    assert turns == (("user", "Thanks!"), ("assistant", "You are welcome."))


def test_a_trace_of_searches() -> None:
    row = {
        "instruction": "Who is older?",
        "output": "A. Ann\nB. Bo\nThought: I look.\nAction: search[Ann]\nObservation: born\n1900\n"
        "Thought: So it is Ann.\nAction: finish[A]\nObservation: Episode finished, reward = True\n",
    }
    turns = fireact_turns(row, "here", tool_prompts())
    assert turns[1][1].endswith("\n\nBegin!\n\nQuestion: Who is older?\nA. Ann\nB. Bo")
    assert "should be one of [search]" in turns[1][1]
    assert turns[2:] == (
        (
            "assistant",
            'Thought: I look.\nAction: search\nAction Input: {"query": "Ann"}\nObservation:',
        ),
        ("observation", " born\n1900\nThought:"),
        ("assistant", " So it is Ann.\nFinal Answer: A"),
    )


@needs_data
@pytest.mark.parametrize("name", ["glaive_toolcall_en", "glaive_toolcall_zh", "fireact_multitask"])
def test_every_row_of_the_mirror_becomes_turns_and_nothing_returned_is_learnt(name: str) -> None:
    bundled, prompts = load_tokenizer(folder("tiny")), tool_prompts()
    read = fireact_turns if name.startswith("fireact") else tool_turns
    observations = 0
    for number, row in enumerate(read_jsonl(DATA / f"tools/{name}.jsonl.gz")):
        turns = read(row, str(number), prompts)
        if number >= 60:
            continue
        ids, wanted = learnt(turns, bundled, "paper")
        kept = bundled.decode([i for i, learns in zip(ids, wanted, strict=True) if learns])
        assert kept == "".join(content for role, content in turns if role == "assistant")
        observations += sum(role == "observation" for role, _ in turns)
    assert observations > 20


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"tools": "[]"}, "row 2: needs conversations"),
        ({**CALL, "tools": "[{}]"}, "row 2: tools is no list of tools with names"),
        ({**CALL, "tools": "["}, "row 2: tools is no list of tools with names"),
        (
            {**CALL, "conversations": [{"from": "function_call", "value": "weather()"}]},
            "row 2: a function_call needs name and arguments",
        ),
        (
            {**CALL, "conversations": CALL["conversations"][:1]},
            "row 2: no answer of an assistant",
        ),
        (
            {**CALL, "conversations": [*CALL["conversations"][:1], {"from": "gpt", "value": " "}]},
            "row 2: turn 3, the assistant's, is empty",
        ),
        ({**CALL, "conversations": [{"from": "tool", "value": ""}]}, "row 2: tool is no speaker"),
    ],
)
def test_what_is_no_conversation_with_tools_is_refused(row: Any, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        tool_turns(row, "row 2", tool_prompts())


def test_a_trace_without_an_end_is_refused() -> None:
    row = {"instruction": "a", "output": "Thought: b\nAction: search[c]\nObservation: d"}
    with pytest.raises(UserError, match=r"row 2: no trace .* ends in finish"):
        fireact_turns(row, "row 2", tool_prompts())
