"""Ask for the Python that does an instruction with given tools, once or turn after turn.

The three scores are those of transformers 4.30, tools/evaluate_agent.py (gone since): which tools
the explanation names, which the code names, and what the code comes to. Tools say what they would
do (interpreter/tools.py), so a chain of calls is told by its answer; that one is compared here, and
the right one never enters the session.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from qwen_eval.types import (
    ExecuteRequest,
    GenerateRequest,
    Item,
    Message,
    Row,
    Score,
    Session,
    Solver,
)

from ..interpreter import module_cell

TOOLS = (
    *("document_qa", "image_captioner", "image_qa", "image_segmenter", "image_generator"),
    *("image_transformer", "summarizer", "text_classifier", "text_downloader", "text_qa"),
    *("text_reader", "transcriber", "translator", "video_generator"),
)
RIGHT, IN_STATE, ELSE = 1.0, 0.75, 0.3
WRONG_TOOL = 0.25
SECONDS = 10.0
_FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n?(.*?)(?:```|\Z)", re.DOTALL)
_SCORES = ("tool_selection", "tool_used", "code")


@dataclass(frozen=True)
class _Turn:
    """What one reply was worth; `coded`: whether it held any code."""

    tool_selection: float
    tool_used: float
    code: float
    coded: bool


def hf_agent(item: Item) -> Solver:
    """One request, and one cell, for each of the row's turns.

    Every score is the mean over the turns. Variables are kept from turn to turn;
    the model sees its own replies, and nothing of what they came to.
    """
    turns: Sequence[Row] = item.sample.row["turns"]
    inputs = item.sample.row["inputs"]
    session = Session(setup=module_cell("tools") + f"import tools; tools.begin({inputs!r})")
    prompt, found = item.prompt, list[_Turn]()
    for index, turn in enumerate(turns):
        if index:
            prompt = replace(prompt, messages=(*prompt.messages, Message("user", turn["ask"])))
        reply = yield GenerateRequest(prompt, item.decoding, turn["reference"])
        prompt = replace(prompt, messages=(*prompt.messages, Message("assistant", reply.text)))
        explanation, code = explained(reply.text)
        worth = ELSE
        if code:
            ran = yield ExecuteRequest(session, f"import tools; tools.perform({code!r})", SECONDS)
            if ran.passed:
                told = yield ExecuteRequest(session, "import tools; print(tools.told())", SECONDS)
                worth = code_worth(told.text, turn["answers"])
        named = {tool for tool in TOOLS if f"`{tool}`" in explanation}
        used = {tool for tool in TOOLS if tool in code}
        wanted = turn["tools"]
        found.append(
            _Turn(tools_worth(named, wanted), tools_worth(used, wanted), worth, bool(code))
        )
    values = {name: sum(getattr(one, name) for one in found) / len(found) for name in _SCORES}
    answered = any(one.coded for one in found)
    return Score(
        values,
        status="scored" if answered else "no_answer",
        detail={name: [getattr(one, name) for one in found] for name in _SCORES},
    )


def explained(reply: str) -> tuple[str, str]:
    """The words before the code, and the code: what stands in the first triple backticks, without
    any what follows `Answer:`, else nothing."""
    if fenced := _FENCED.search(reply):
        return reply[: fenced.start()], fenced[1].strip()
    explanation, _, code = reply.partition("Answer:")
    return explanation, code.strip()


def tools_worth(named: Collection[str], wanted: Collection[str]) -> float:
    """1, less a quarter for each tool that is missing and for each that is too much."""
    return max(0.0, 1.0 - WRONG_TOOL * len({*named} ^ {*wanted}))


def code_worth(told: str, answers: Collection[str]) -> float:
    """1 where the code's last value is a right answer, 0.75 where a variable holds one, 0.3 for
    everything else, as for code that fails and for none."""
    try:
        found = json.loads(told)
        answer, state = found["answer"], found["state"]
        if answer in answers:
            return RIGHT
        return IN_STATE if any(value in answers for value in state) else ELSE
    except (ValueError, KeyError, TypeError, RecursionError):
        return ELSE  # the session had nothing to tell, or tells what the model wants it to
