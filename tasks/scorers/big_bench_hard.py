"""Reading the answer of a worked solution to a task of BIG-Bench Hard.

Its answers are of five kinds, which the gold one shows: an option's letter, one of two words, a
number, a row of brackets, and a list of words.
"""

from __future__ import annotations

import re

from qwen_eval.types import Score

from .numbers import find_number, parse_number

_MARK = re.compile(r"answer\s*(?:is|:)\s*:?\s*", re.IGNORECASE)
_OPTION = re.compile(r"\(([A-Za-z])\)")
_BARE = re.compile(
    r"(?:[^\w\\]|\\\(|\\(?:boxed|text)\{|(?i:option |choice ))*([A-Z])(?![\w']| [a-z])"
)
_ALONE = re.compile(r"\W*([A-Z])\W*")
_WORD = re.compile(r"[^\s,;:.*`\"“”\[\]]+")
_BULLET = re.compile(r"^\s*(?:[-*•]|\d+[.)])\s+", re.MULTILINE)
_PAIRS = (("yes", "no"), ("true", "false"), ("valid", "invalid"))
_BRACKETS = re.compile(r"[][(){}<>]")


def bbh_answer(text: str, target: str, metric: str) -> Score:
    """Right if what stands behind the last "answer is" is the target; without that mark, the
    reply's last answer of its kind is read.

    Case, a final dot and the signs around a word say nothing; a letter right behind the mark may
    lack its brackets.
    """
    marks = list(_MARK.finditer(text))
    said = text[marks[-1].end() :].partition("\n\n")[0] if marks else text
    found = _read(said, target, first=bool(marks))
    if found is None:
        return Score({metric: 0.0}, status="no_answer")
    gold = _read(target, target, first=True)
    return Score({metric: float(found == gold)}, answer=found)


def _read(said: str, target: str, *, first: bool) -> str | None:
    """The answer of the target's kind in a text, its first or its last one."""
    if re.fullmatch(r"\([A-Z]\)", target):
        bare = _BARE.match(said) if first else _ALONE.fullmatch(said)
        letters = [bare[1]] if bare else _OPTION.findall(said)
        return _one([f"({letter.upper()})" for letter in letters], first)
    for pair in _PAIRS:
        if target.casefold() in pair:
            return _one(re.findall(rf"\b(?:{'|'.join(pair)})\b", said.casefold()), first)
    if parse_number(target) is not None:
        found = find_number(f"answer is {said}" if first else said)
        value = None if found is None else parse_number(found)
        return None if value is None else str(value)
    lines = said.strip().splitlines() or [""]
    line = lines[0] if first else lines[-1]
    if not re.search(r"\w", target):
        return " ".join(_BRACKETS.findall(line)) or None
    listed = [_BULLET.sub("", each).strip() for each in lines]
    if first and len(listed) > 1 and all(len(each.split()) == 1 for each in listed):
        line = " ".join(listed)  # one word a line
    return " ".join(_WORD.findall(line.rpartition(": ")[2].casefold())) or None


def _one(found: list[str], first: bool) -> str | None:
    return found[0 if first else -1] if found else None


def lm_eval_get_answer(text: str, target: str, metric: str) -> Score:
    """lm-evaluation-harness, bbh_cot_fewshot, filter get-answer: behind the first `the answer is `
    all of the line but its last character, which is meant to be a dot, compared as it stands."""
    found = re.findall(r"(?<=the answer is )(.*)(?=.)", text)
    if not found:
        return Score({metric: 0.0}, status="no_answer")
    answer = found[0].strip()
    return Score({metric: float(answer == target)}, answer=answer)
