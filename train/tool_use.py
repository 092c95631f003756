"""Conversations with tools, as the harness asks for them (paper, section 3.4): the ReAct format.

The question stands in the prompt of the harness's own task, which is handed in. What the assistant
says, up to `Observation:`, at which a harness stops it, is its own; what a tool returned, and the
`Thought:` that a harness puts behind it, is an observation. Knows nothing of tokens or files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from qwen_eval.errors import UserError

from .conversations import OBSERVATION, Turns, checked

INTERPRETER = "code_interpreter"
FINAL = "I now know the final answer\nFinal Answer: "
# FireAct's rows name their one tool only in what they do.
SEARCH = {
    "name": "search",
    "description": "Searches the web and returns the most relevant passage.",
    "parameters": {
        "type": "object",
        "properties": {"query": {"type": "string", "description": "What to look for."}},
        "required": ["query"],
    },
}
_STEP = re.compile(
    r"^Thought: ?(.*?)\nAction: ?(\w+)\[(.*?)\]\nObservation: ?(.*?)(?=\nThought:|\Z)",
    re.M | re.S,
)


@dataclass(frozen=True)
class ToolPrompts:
    """What the harness asks: a system message, and a question with its tools (name, description,
    parameters), or with a code interpreter."""

    system: str
    tools: Callable[[list[dict[str, Any]], str], str]
    interpreter: Callable[[str], str]


def tool_turns(row: dict[str, Any], where: str, prompts: ToolPrompts) -> Turns:
    """Turns of `conversations` (human, gpt, function_call, observation, system) with `tools`.

    The first question carries the prompt; without tools the row is an ordinary conversation. The
    one tool code_interpreter takes its code in triple backticks. Raises UserError naming the row.
    """
    tools = _tools(row.get("tools"), where)
    said = row.get("conversations")
    if not isinstance(said, list) or not all(isinstance(turn, dict) for turn in said):
        raise UserError(f"{where}: needs conversations, a list of from and value")
    coding = [tool.get("name") for tool in tools] == [INTERPRETER]
    turns = _Turns([], where)
    for turn in said:
        speaker, value = turn.get("from"), turn.get("value")
        if not isinstance(value, str):
            raise UserError(f"{where}: {speaker} has no value that is a text")
        if speaker == "system":
            turns.add("system", value)
        elif speaker == "human":
            if tools and not turns.asked:
                value = prompts.interpreter(value) if coding else prompts.tools(tools, value)
                turns.frame(prompts.system)
            turns.add("user", value)
        elif speaker == "gpt":
            turns.say(FINAL + value if tools and value.strip() else value, bool(tools))
        elif speaker == "function_call":
            turns.say(_call(value, coding, where), True)
        elif speaker == "observation":
            turns.observe(value)
        else:
            raise UserError(f"{where}: {speaker} is no speaker of conversations with tools")
    return checked(turns.turns, where)


def fireact_turns(row: dict[str, Any], where: str, prompts: ToolPrompts) -> Turns:
    """Turns of FireAct's rows (Chen et al. 2023, arXiv 2310.05915): `instruction`, and `output`, a
    trace of searches that ends in finish[ANSWER]. What stands before its first thought belongs to
    the question. Raises UserError naming the row."""
    question, output = row.get("instruction"), row.get("output")
    if not isinstance(question, str) or not isinstance(output, str):
        raise UserError(f"{where}: needs instruction and output")
    steps = list(_STEP.finditer(output.strip()))
    if not steps or steps[-1][2] != "finish":
        raise UserError(f"{where}: no trace of thoughts and actions that ends in finish[...]")
    asked = "\n".join(filter(None, (question, output[: steps[0].start()].strip())))
    turns = _Turns([], where)
    turns.frame(prompts.system)
    turns.add("user", prompts.tools([SEARCH], asked))
    for thought, action, given, returned in (step.groups() for step in steps):
        if action == "finish":
            turns.say(f"{thought}\nFinal Answer: {given}", True)
            break
        written = json.dumps({"query": given}, ensure_ascii=False)
        turns.say(f"{thought}\nAction: {action}\nAction Input: {written}\nObservation:", True)
        turns.observe(returned)
    return checked(turns.turns, where)


@dataclass
class _Turns:
    """Turns as they are put together."""

    turns: list[tuple[str, str]]
    where: str

    @property
    def asked(self) -> bool:
        return any(role == "user" for role, _ in self.turns)

    def frame(self, system: str) -> None:
        if not self.turns:
            self.turns.append(("system", system))

    def add(self, role: str, value: str) -> None:
        self.turns.append((role, value))

    def say(self, words: str, thinking: bool) -> None:
        """The assistant's; behind an observation stands `Thought:` already."""
        if thinking and words.strip():
            behind = bool(self.turns) and self.turns[-1][0] == OBSERVATION
            words = f" {words}" if behind else f"Thought: {words}"
        self.turns.append(("assistant", words))

    def observe(self, returned: str) -> None:
        self.turns.append((OBSERVATION, f" {returned}\nThought:"))


def _tools(value: Any, where: str) -> list[dict[str, Any]]:
    """Tools as a list, or as its JSON; each with all that a prompt names."""
    try:
        listed = json.loads(value) if isinstance(value, str) else value or []
        return [
            {"description": "", "parameters": {}, **tool, "name": str(tool["name"])}
            for tool in listed
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{where}: tools is no list of tools with names ({error})") from error


def _call(value: str, coding: bool, where: str) -> str:
    """A call without a thought of its own gets one that says no more than the call does."""
    try:
        call = json.loads(value)
        name, arguments = call["name"], call["arguments"]
        if coding:
            code = arguments["code"].strip("\n")
            return _calling(name, f"\n```py\n{code}\n```")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{where}: a function_call needs name and arguments ({error})") from error
    return _calling(name, f" {json.dumps(arguments, ensure_ascii=False)}")


def _calling(name: str, written: str) -> str:
    return f"I need to call {name}\nAction: {name}\nAction Input:{written}\nObservation:"
