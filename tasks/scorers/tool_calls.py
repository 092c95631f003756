"""Reading which tool a reply in the ReAct format calls, and with what arguments.

A reader takes (reply, whether the model ended it by itself). `react` is ours and the default;
`qwen_react` keeps what the released evaluate_plugin.py does. Arguments are handed on as JSON text
with sorted keys, as that script compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import json5


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reply does. `called`: it calls a tool, `name`. `arguments`: JSON text with sorted
    keys, empty where none can be read; `lenient`: they are no standard JSON, None where the reader
    does not tell. `any_case`: a name is its own in capitals, too. `decided`: it calls a tool or
    answers; else it holds nothing that could be read."""

    called: bool = False
    name: str = ""
    arguments: str = ""
    lenient: bool | None = False
    any_case: bool = False
    decided: bool = True

    def is_for(self, tool: str) -> bool:
        """Whether the tool of this name is called."""
        same = self.name.lower() == tool.lower() if self.any_case else self.name == tool
        return self.called and same


CallReader = Callable[[str, bool], Reading]

_LABEL = re.compile(
    r"^[ \t>*#]*(Thought|Action Input|Action|Observation|Final Answer)[ \t*]*[:：][ \t*]*",
    re.MULTILINE,
)
_AROUND_NAME = " \t*`\"'“”‘’「」[]【】().。,，"
_NO_TOOL = re.compile(
    r"(?:none|n/a|null|nothing|not?|final answer)(?![\w.])|[无不没]", re.IGNORECASE
)
_FENCE = re.compile(r"\s*(?:```\w*\s*)?")


def react(reply: str, ended: bool) -> Reading:
    """The first Action that names something, with the Action Input right behind it.

    - Labels begin a line; Markdown's bold and a full-width colon are part of them. Quotation marks
      and brackets around a name are not; its case is. "None", "No tool
      needed" and the like name nothing.
    - The input is the JSON object that it begins with, in a code fence or not, whatever follows;
      else all of it up to the next label, read as JSON5: single quotes, trailing commas, comments.
    - A reply without an Action that is blank, or was cut off before a Final Answer, decides
      nothing.
    """
    labels = list(_LABEL.finditer(reply))
    for index, label in enumerate(labels):
        if label[1] != "Action":
            continue
        behind = labels[index + 1] if index + 1 < len(labels) else None
        name = reply[label.end() : behind.start() if behind else None].strip().partition("\n")[0]
        name = name.strip(_AROUND_NAME)
        if not name or _NO_TOOL.match(name):
            continue
        if behind is None or behind[1] != "Action Input":
            return Reading(called=True, name=name)
        end = labels[index + 2].start() if index + 2 < len(labels) else len(reply)
        arguments, lenient = _object(reply, behind.end(), end)
        return Reading(called=True, name=name, arguments=arguments, lenient=lenient)
    answered = any(label[1] == "Final Answer" for label in labels)
    return Reading(decided=answered or (ended and bool(reply.strip())))


def qwen_react(reply: str, ended: bool) -> Reading:
    """The released evaluate_plugin.py, flaws included.

    - A tool is called where "\\nAction: " stands anywhere, so not by a reply that begins with it.
    - The parts lie between the first "Action:", "Action Input:" and "Observation:". One that is
      missing is found at -1: without "Action Input:" the input begins at the reply's 13th letter.
    - Any JSON5 is an input, a bare number as well, whether a tool is called or not.

    Where it says nothing, of a blank reply, this one does: nothing is decided.
    """
    text = reply + "\n"
    called = "\nAction: " in reply
    arguments = ""
    with suppress(ValueError, RecursionError):
        arguments = sorted_json(json5.loads(_between(text, "Action Input:", "Observation:")))
    return Reading(
        called=called,
        name=_between(text, "Action:", "Action Input:"),
        arguments=arguments,
        lenient=None,
        any_case=True,
        decided=called or bool(reply.strip()),
    )


def sorted_json(value: Any) -> str:
    """The JSON text of a value in which the order of keys says nothing."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _between(text: str, begin: str, end: str) -> str:
    return text[text.find(begin) + len(begin) : text.find(end)].strip()


def _object(text: str, start: int, end: int) -> tuple[str, bool]:
    """The arguments that stand at `start`, and whether they needed a lenient reading."""
    opening = _FENCE.match(text, start)
    assert opening is not None, "the pattern matches nothing, too"
    with suppress(ValueError, RecursionError):
        found = json.JSONDecoder().raw_decode(text, opening.end())[0]
        return (sorted_json(found), False) if isinstance(found, dict) else ("", False)
    with suppress(ValueError, RecursionError):
        found = json5.loads(text[opening.end() : end].strip().removesuffix("```"))
        if isinstance(found, dict):
            return sorted_json(found), True
    return "", False
