"""Reading the letters that a written reply chooses: of one question, or of several in a row.

A target is one answer for each question, separated by spaces: `C`, `BD` where several letters are
right, `C A D` for three questions.
"""

from __future__ import annotations

import re
from itertools import chain

from qwen_eval.types import Score

from .boxes import last_boxed
from .letters import WRONG
from .mathematics import math_answer

_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
# What names an answer; then what a reply that names none says of a choice.
_MARKS = (
    re.compile(r"【答案】|答案|故选|\banswers?\b\s*(?:choice|option)?|\\boxed", re.IGNORECASE),
    re.compile(r"应选择?|选择"),
)
# Letters that stand for themselves: no part of a word, no article, and not said to be wrong.
_AFTER = (
    r"(?![A-Za-z'])(?!(?<=A) (?!is\b|was\b|because\b|as\b|since\b|and\b)[a-z])"
    rf"(?!{WRONG})"
)
_NEXT = r"(?=[A-H](?![A-Za-z]))"
_GROUP = re.compile(
    rf"(?<![A-Za-z\\])(?<!不是)(?<!not )(?:(?:[A-H](?:(?:[\s,、和与&]|\band\b)+{_NEXT})?)++{_AFTER}"
    # A comma may also begin what is said of the next letter: 答案是C，A项错误.
    rf"|(?:[A-H](?:[\s、和与&]+{_NEXT})?)++{_AFTER})"
)
_BEHIND = 40  # characters between a mark and the first answer
MARKS = 50  # that are tried


def read_letters(text: str, questions: int) -> list[str]:
    """The answers to so many questions, fewer if fewer are there. A single question may have
    several letters, which come in order; one of several has one.

    Read behind the last mark, such as 【答案】 or "answer", that letters follow; without one, from
    the reply's beginning for several questions, at its end for a single one. Letters that are said
    to be wrong are passed over.
    """
    text = text.translate(_WIDE)
    chosen: list[str] = []
    marks = (list(kind.finditer(text))[-MARKS:] for kind in _MARKS)
    for mark in chain.from_iterable(map(reversed, marks)):
        behind = text[mark.end() :]
        first = _GROUP.search(behind[: _BEHIND + 2])
        if first:
            chosen = [group[0] for group in _GROUP.finditer(behind)]
            break
    else:
        chosen = [group[0] for group in _GROUP.finditer(text)]
        chosen = chosen[-1:] if questions == 1 else chosen
    groups = [re.sub(r"[^A-H]", "", group) for group in chosen]
    if questions == 1:
        return ["".join(sorted(set(groups[0])))] if groups else []
    return list("".join(groups))[:questions]


def letters(text: str, target: str, metric: str) -> Score:
    """The share of questions whose letters are right; half a question for some, and no wrong one,
    of several right letters, as the examination counts (GAOKAO-Bench, arXiv 2305.12474)."""
    golds = target.split(" ")
    found = read_letters(text, len(golds))
    if not found:
        return Score({metric: 0.0}, status="no_answer")
    pairs = zip(found, golds, strict=False)
    credit = sum(1.0 if f == g else 0.5 * (set(f) < set(g)) for f, g in pairs)
    return Score({metric: credit / len(golds)}, answer=" ".join(found))


def letters_or_formula(text: str, target: str, metric: str) -> Score:
    """AGIEval: all letters of a choice, and no others, or the formula of a cloze, and of one with
    several gaps all of them, in order, with semicolons between them."""
    if not re.fullmatch(r"[A-H]+", target):
        golds = target.split(";")
        return _gaps(text, golds, metric) if len(golds) > 1 else math_answer(text, target, metric)
    found = read_letters(text, 1)
    if not found:
        return Score({metric: 0.0}, status="no_answer")
    return Score({metric: float(found[0] == target)}, answer=found[0])


def _gaps(text: str, golds: list[str], metric: str) -> Score:
    boxed = last_boxed(text) or ""
    parts = re.split("[;；]", boxed if re.search("[;；]", boxed) else text)[-len(golds) :]
    if len(parts) < len(golds):
        one = math_answer(text, golds[-1], metric)
        return Score({metric: 0.0}, answer=one.answer, status=one.status, detail=one.detail)
    read = [math_answer(part, gold, metric) for part, gold in zip(parts, golds, strict=True)]
    if any(one.answer is None for one in read):
        return Score({metric: 0.0}, status="no_answer")
    right = all(one.values[metric] == 1.0 for one in read)
    return Score({metric: float(right)}, answer="; ".join(str(one.answer) for one in read))
