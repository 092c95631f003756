"""What is made of a conversation in which a model ran code: of its words and its cells' output."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from .numbers import NUMBER, TOLERANCE, parse_number


@dataclass(frozen=True)
class Transcript:
    """`text`: all that stands in the assistant's turn, observations included; `output`: what the
    cells put out; `final`: what stands behind `Final Answer:`, None without one. `checked`: whether
    the row's own checks passed, None where it has none."""

    text: str
    output: str
    final: str | None
    checked: bool | None = None


@dataclass(frozen=True)
class Reading:
    """`correct`: None where nothing tells. `answer`: what was taken for the answer."""

    correct: bool | None
    answer: str | None


def outcome(transcript: Transcript, target: str) -> Reading:
    """Right where the row's checks passed; without checks, where the gold answer stands both in the
    output and in the final answer: the paper's rule for its math problems."""
    final = transcript.final
    if transcript.checked is not None:
        return Reading(transcript.checked, final)
    if not target:
        return Reading(None, final)
    return Reading(holds(transcript.output, target) and holds(final or "", target), final)


def holds(text: str, gold: str) -> bool:
    """Whether a text holds a number within 1e-4 of the gold one; for a gold answer that is no
    number, whether it holds the words, however they are spaced and in whichever case."""
    value = parse_number(gold)
    if value is None:
        return _folded(gold) in _folded(text)
    found = map(parse_number, NUMBER.findall(text))
    return any(abs(one - value) <= TOLERANCE for one in found if one is not None)


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


_RELEASED = re.compile(
    r"(?<=[\s$%#{])[+-]?(?=\S)"
    r"(?:0|[1-9](?:\d*|\d{0,2}(?:,\d{3})*))?(?:\.\d*[1-9])?"
    r"(?=[\s.,}]|$)"
)


def qwen_last_number(transcript: Transcript, target: str) -> Reading:
    """The released metrics/gsm8k.py of the code-interpreter benchmark: the last number of the whole
    turn, observations included, wherever it stands.

    A number counts only behind a space or one of $ % # { and before a space or one of . , }. Line
    ends count as letters, so a number that begins or ends a line is not seen; nor is a decimal that
    ends in 0. A full stop may match as an empty number, which is no answer.
    """
    found = _RELEASED.findall(transcript.text.strip(".").replace("\n", "\\n"))
    last = found[-1].replace(",", "").lstrip("+") if found else ""
    value = None if last in ("", "-") else Fraction(last)
    return Reading(value is not None and value == parse_number(target), last or None)
