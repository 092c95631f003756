"""A question, the tools at hand, and how they are used: the ReAct form (Yao et al. 2022).

Tools are rows as the harness's ReAct task has them: name_for_model, name_for_human,
description_for_model, and parameters as a list of name, description, required and schema. Knows
nothing of models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from qwen_eval.fileio import canonical_json, text_hash

from ..data.language import HAN_WEIGHT

Tool = Mapping[str, Any]
_HAN = re.compile("[\u3400-\u9fff]")
LABELS = ("Thought", "Action", "Action Input", "Observation", "Final Answer")
_LABEL = re.compile(rf"^({'|'.join(sorted(LABELS, key=len, reverse=True))}):", re.MULTILINE)


@dataclass(frozen=True)
class Step:
    """A call of a tool. arguments: JSON text, as it was written. run: what the tool returned comes
    from a program, not from a model."""

    thought: str
    action: str
    arguments: str
    observation: str = ""
    run: bool = False

    def text(self) -> str:
        """The lines up to the call."""
        return f"Thought: {self.thought}\nAction: {self.action}\nAction Input: {self.arguments}"


@dataclass(frozen=True)
class Sample:
    """One question from asking to the final answer, by way of any number of calls."""

    query: str
    tools: tuple[Tool, ...]
    steps: tuple[Step, ...]
    thought: str
    answer: str

    @property
    def id(self) -> str:
        """A hash of all of it."""
        return text_hash(canonical_json([self.query, list(self.tools), self.trace]))

    @cached_property
    def language(self) -> str:
        """zh, or en for anything else."""
        return writing(self.query)

    @property
    def trace(self) -> str:
        """What stands in the assistant's turn, observations included."""
        lines = [f"{step.text()}\nObservation: {step.observation}" for step in self.steps]
        return "\n".join([*lines, f"Thought: {self.thought}\nFinal Answer: {self.answer}"])

    @property
    def turns(self) -> list[tuple[str, str]]:
        """The trace in parts: what the assistant writes up to the `Observation:` at which it is
        stopped, and as an `observation` what a tool returned with the `Thought:` behind it, which a
        harness puts there."""
        turns: list[tuple[str, str]] = []
        for step in self.steps:
            words = step.text().removeprefix("Thought:" if turns else "")
            turns.append(("assistant", f"{words}\nObservation:"))
            turns.append(("observation", f" {step.observation}\nThought:"))
        words = f" {self.thought}\nFinal Answer: {self.answer}"
        return [*turns, ("assistant", words if turns else f"Thought:{words}")]


def writing(text: str) -> str:
    """zh for a text that is mostly in Chinese letters, else en: short texts tell no more."""
    chinese = len(_HAN.findall(text))
    others = sum(map(str.isalpha, text)) - chinese
    return "zh" if HAN_WEIGHT * chinese > others else "en"


def labelled(text: str) -> list[tuple[str, str]]:
    """(label, what stands behind it) of every label that begins a line; a first entry without a
    label for what stands before."""
    found = list(_LABEL.finditer(text))
    parts = [("", text[: found[0].start()].strip())] if found else [("", text.strip())]
    for number, label in enumerate(found):
        end = found[number + 1].start() if number + 1 < len(found) else len(text)
        parts.append((label[1], text[label.end() : end].strip()))
    return parts if parts[0][1] else parts[1:]


def steps_of(trace: str) -> tuple[tuple[Step, ...], str, str] | None:
    """(steps, last thought, answer) of a whole trace; None where it is out of order."""
    parts = labelled(trace)
    steps = []
    while len(parts) >= 4 and tuple(label for label, _ in parts[:4]) == LABELS[:4]:
        thought, action, arguments, observation = (text for _, text in parts[:4])
        steps.append(Step(thought, action, arguments, observation))
        parts = parts[4:]
    if [label for label, _ in parts] != ["Thought", "Final Answer"]:
        return None
    return tuple(steps), parts[0][1], parts[1][1]


def tool_of(schema: Mapping[str, Any]) -> Tool:
    """A tool from a function's JSON schema: name, description, parameters."""
    parameters = schema.get("parameters") or {}
    required = parameters.get("required") or []
    return {
        "name_for_human": schema["name"],
        "name_for_model": schema["name"],
        "description_for_model": schema.get("description", ""),
        "parameters": [
            {
                "name": name,
                "description": of.get("description", ""),
                "required": name in required,
                "schema": {key: value for key, value in of.items() if key != "description"},
            }
            for name, of in (parameters.get("properties") or {}).items()
        ],
    }


def fault_of_arguments(tool: Tool, arguments: Any) -> str | None:
    """What is wrong with a call's arguments: no object, one that is missing or that the tool does
    not know, or one that does not fit its schema."""
    if not isinstance(arguments, dict):
        return "arguments are no object"
    known = {parameter["name"]: parameter for parameter in tool["parameters"]}
    for name, parameter in known.items():
        if parameter["required"] and name not in arguments:
            return "an argument is missing"
    for name, value in arguments.items():
        if name not in known:
            return "an argument that the tool does not know"
        if not fits(value, known[name].get("schema") or {}):
            return "an argument that does not fit its schema"
    return None


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def fits(value: Any, schema: Mapping[str, Any]) -> bool:
    """Whether a value is what a JSON schema asks for: type, enum, items, properties, required and
    the bounds of numbers. Other words of schemas are not read."""
    wanted = schema.get("type")
    names = [wanted] if isinstance(wanted, str) else wanted or []
    if names and not any(_is_a(value, name) for name in names):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        return bool(low <= value <= high)
    if isinstance(value, list):
        return all(fits(entry, schema.get("items") or {}) for entry in value)
    if isinstance(value, dict):
        properties = schema.get("properties") or {}
        return all(name in value for name in schema.get("required") or []) and all(
            fits(entry, properties.get(name) or {}) for name, entry in value.items()
        )
    return True


def _is_a(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return name not in _TYPES or isinstance(value, _TYPES[name])


def tool_lines(tools: Sequence[Tool]) -> str:
    """The tools for a prompt that asks for new samples: a line each."""
    return "\n".join(
        f"- {tool['name_for_model']}: {tool['description_for_model']} Parameters: "
        + json.dumps(tool["parameters"], ensure_ascii=False)
        for tool in tools
    )
