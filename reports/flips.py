"""Answers that changed between two runs, with both replies and a word-by-word difference."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

from qwen_eval.compare import Flip
from qwen_eval.results import SampleRecord

MOST = 8  # shown of a task; all of them are in the sample browser
LETTERS = 1200  # of a text
# A word, a single Chinese or Japanese character, a run of spaces, or one sign.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|\s+|[^\W\u3040-\u30ff\u3400-\u9fff]+|[^\w\s]")

Piece = tuple[str, str]
"""`same`, `lost` or `gained`, and the text."""


@dataclass(frozen=True)
class ChangedAnswer:
    """`replies` are what the two runs wrote, `pieces` the same two cut where they differ;
    `options` the log-probabilities of a choice's options in both runs."""

    flip: Flip
    question: str
    replies: tuple[str, str]
    pieces: tuple[tuple[Piece, ...], tuple[Piece, ...]]
    options: tuple[tuple[float, ...], tuple[float, ...]]


def changed_answers(
    flips: Sequence[Flip],
    baseline: Mapping[str, SampleRecord],
    candidate: Mapping[str, SampleRecord],
) -> tuple[ChangedAnswer, ...]:
    """What was lost before what was gained, what numeric noise explains last."""
    order = sorted(flips, key=lambda flip: (flip.in_noise, not flip.lost))
    return tuple(_changed(flip, baseline[flip.id], candidate[flip.id]) for flip in order[:MOST])


def _changed(flip: Flip, a: SampleRecord, b: SampleRecord) -> ChangedAnswer:
    replies = _reply(a), _reply(b)
    options = (_options(a), _options(b)) if not any(replies) else ((), ())
    return ChangedAnswer(flip, shorten(a.text), replies, difference(*replies), options)


def written_by(record: SampleRecord) -> str:
    """All that the model wrote for a sample, reply after reply."""
    return "\n".join(str(r["text"]) for r in record.responses if r.get("text"))


def shorten(text: str, most: int = LETTERS) -> str:
    """The beginning of a long text, and how much is missing."""
    return text if len(text) <= most else f"{text[:most]}… (+{len(text) - most:,})"


def difference(a: str, b: str) -> tuple[tuple[Piece, ...], tuple[Piece, ...]]:
    """Both texts in pieces: the same in both, or in one alone."""
    words = _WORDS.findall(a), _WORDS.findall(b)
    left, right = [], []
    for kind, a1, a2, b1, b2 in SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        if a2 > a1:
            left.append(("same" if kind == "equal" else "lost", "".join(words[0][a1:a2])))
        if b2 > b1:
            right.append(("same" if kind == "equal" else "gained", "".join(words[1][b1:b2])))
    return tuple(left), tuple(right)


def _reply(record: SampleRecord) -> str:
    return shorten(written_by(record))


def _options(record: SampleRecord) -> tuple[float, ...]:
    # Of a text that was only read, the tokens have log-probabilities, and there are no options.
    chosen = record.responses and record.answer is not None
    return tuple(record.responses[0].get("logprobs", ())) if chosen else ()
