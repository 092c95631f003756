"""Rules that drop a sample while it is written, and when it is whole.

The paper says that samples were filtered by rules and by people, and not by which rules; these are
ours. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import json5

from .samples import Sample, Step, Tool, fault_of_arguments, labelled, writing

# Letters at least and at most; one of Chinese carries more, so fewer are enough.
QUESTION_LETTERS = {"en": (15, 600), "zh": (6, 300)}
THOUGHT_LETTERS, ANSWER_LETTERS, OBSERVATION_LETTERS = 800, 2000, 2000
# What a model copies out of the description of the format.
_PLACEHOLDERS = (
    "final answer to the original input question",
    "always think about what to do",
    "the input to the action",
    "the action to take",
    "the result of the action",
    "input question you must answer",
)


class DroppedError(Exception):
    """A sample that goes: by which filter, and why."""

    def __init__(self, filter: str, reason: str) -> None:
        super().__init__(f"{filter}: {reason}")
        self.filter, self.reason = filter, reason


def read_question(reply: str) -> tuple[str, str]:
    """The question that a reply begins with, and the rest from the first label on."""
    parts = labelled(reply)
    if not parts or parts[0][0]:
        raise DroppedError("form", "no question")
    question = parts[0][1]
    if "\n" in question:
        raise DroppedError("form", "a question of several lines")
    return question, reply[reply.index(question) + len(question) :]


def read_piece(text: str) -> Step | tuple[str, str]:
    """What an assistant writes at a time: a call, or the last thought and the final answer."""
    parts = labelled(text)
    labels = [label for label, _ in parts]
    texts = [content for _, content in parts]
    if "Observation" in labels:
        raise DroppedError("form", "an observation that no tool returned")
    if labels not in (["Thought", "Action", "Action Input"], ["Thought", "Final Answer"]):
        raise DroppedError("form", "labels are missing or out of order")
    if not all(texts):
        raise DroppedError("form", "an empty part")
    return (texts[0], texts[1]) if len(texts) == 2 else Step(texts[0], texts[1], texts[2])


def check_call(step: Step, tools: Sequence[Tool]) -> tuple[Tool, dict[str, Any]]:
    """The tool of a call and its arguments, which are read as JSON5."""
    tool = next((t for t in tools if t["name_for_model"] == step.action), None)
    if tool is None:
        raise DroppedError("call", "a tool that is not there")
    arguments = None
    with suppress(ValueError, RecursionError):
        arguments = json5.loads(step.arguments)
    if arguments is None:
        raise DroppedError("call", "arguments are not JSON")
    if fault := fault_of_arguments(tool, arguments):
        raise DroppedError("call", fault)
    return tool, dict(arguments)


def check_observation(text: str) -> None:
    """Of one that a model wrote in a tool's place."""
    if not text.strip():
        raise DroppedError("observation", "nothing")
    if len(text) > OBSERVATION_LETTERS:
        raise DroppedError("observation", "too long")
    if len(labelled(text)) > 1:
        raise DroppedError("observation", "more than an observation")


def check_whole(sample: Sample, language: str) -> None:
    """Of a sample that came to its end. language: that of the examples it was written after."""
    if sample.language != language:
        raise DroppedError("language", "a question in another language than the examples")
    if any(c.isalpha() for c in sample.answer) and writing(sample.answer) != language:
        raise DroppedError("language", "an answer in another language than the question")
    low, high = QUESTION_LETTERS[language]
    if not low <= len(sample.query) <= high:
        many = "few" if len(sample.query) < low else "many"
        raise DroppedError("length", f"a question of {many} letters")
    thoughts = [step.thought for step in sample.steps] + [sample.thought]
    if max(map(len, thoughts)) > THOUGHT_LETTERS or len(sample.answer) > ANSWER_LETTERS:
        raise DroppedError("length", "a long thought or answer")
    if len({(step.action, step.arguments) for step in sample.steps}) < len(sample.steps):
        raise DroppedError("call", "the same call twice")
    written = "\n".join([sample.query, *thoughts, sample.answer]).lower()
    if any(words in written for words in _PLACEHOLDERS):
        raise DroppedError("form", "words of the format's description")
