"""Reading the answer to a mathematical problem and holding it against the gold one.

`math_answer` is ours and the default: the last box, or what a sentence names as the answer, equal
to the gold answer by its text, by its number, or by math-verify. `lm_eval_minerva` is
lm-evaluation-harness's own reading.
"""

from __future__ import annotations

import re

from qwen_eval.types import Score

from .boxes import last_boxed
from .guarded import UndecidedError, guard
from .numbers import NUMBER, find_number, parse_number

LONGEST = 400  # letters of an answer; MATH's longest has 81
_MARK = re.compile(r"(?:answer\s*(?:is|:|=)|答案\s*(?:是|为|：|:))\s*:?\s*", re.IGNORECASE)
_DOLLARS = re.compile(r"\$\$?((?:\\.|[^$\\\n]){1,400}+)\$")
_DELIMITERS = re.compile(
    r"\\\(\s*([^$\n]{1,400}?)\s*\\\)|(?:\\\[|\$\$)\s*([^$\n]{1,400}?)\s*(?:\\\]|\$\$)"
)
_UNIT = re.compile(r"(?!(?:and|or|to|more|less|thousand|million|billion)\b)[a-z]{2,}( [a-z]{2,})?")
_END = re.compile(r"\n|\.(?!\d)|。|(?<=\s)I hope")
# Powers and factorials that no answer of the field needs and that take a library forever.
_ENDLESS = re.compile(r"\^\s*\{?\s*[-+(]*\d{6}|\^\s*\{[^{}]*\^|\^\s*\w\s*\^|\d{4}\s*\)*\s*!|\d{60}")
_LOOKS = re.compile(
    r"\\left(?![a-z])|\\right(?![a-z])|\\[!,;: ]|\\quad|\$|\\displaystyle|\^\{?\\circ\}?|\\%|%|\s"
)
_WORDS = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\{([^{}]*)\}")


def find_answer(text: str) -> str | None:
    """The last box's content; else, behind the last "answer is" (or 答案是), the formula between
    dollars (or \\(…\\), \\[…\\]) or the rest of the sentence, of 12 dollars the 12; else the last
    formula, else the last number."""
    boxed = last_boxed(text)
    if boxed is not None and boxed.strip():
        return boxed.strip()
    text = _DELIMITERS.sub(lambda found: f"${found[1] or found[2]}$", text)
    marks = list(_MARK.finditer(text))
    if marks:
        behind = text[marks[-1].end() : marks[-1].end() + 2 * LONGEST]
        if formula := _DOLLARS.match(behind):
            return formula[1].strip()
        sentence = _END.split(behind)[0].strip(" *:：")
        amount, _, unit = sentence.partition(" ")
        if NUMBER.fullmatch(amount) and _UNIT.fullmatch(unit):
            return amount
        if sentence:
            return sentence
    formulas = _DOLLARS.findall(text[-10 * LONGEST :])
    return formulas[-1].strip() if formulas else find_number(text)


def written_alike(text: str) -> str:
    """An answer without what only changes its look: spaces, degrees, percent, and the signs of
    text, size and display."""
    text = re.sub(r"\\[dt]frac", r"\\frac", _WORDS.sub(r"\1", text))
    text = _LOOKS.sub("", text.replace("\\$", ""))
    return text.strip(".,").casefold()


def equal(gold: str, found: str) -> bool:
    """Whether two answers are the same. Raises UndecidedError where that takes too long to say."""
    alike = written_alike(gold), written_alike(found)
    if alike[0] == alike[1]:
        return True
    numbers = parse_number(alike[0]), parse_number(alike[1])
    if numbers[0] is not None and numbers[1] is not None:
        return numbers[0] == numbers[1]
    if len(found) > LONGEST or (_ENDLESS.search(found) and not _ENDLESS.search(gold)):
        raise UndecidedError("longer, or a larger number, than any answer is")
    return bool(guard().call("math_equal", gold, found))


def math_answer(text: str, target: str, metric: str) -> Score:
    """Right if the answer read is the target, or what its last box holds."""
    found = find_answer(text)
    if found is None:
        return Score({metric: 0.0}, status="no_answer")
    shown = found[:LONGEST]
    try:
        right = equal(last_boxed(target) or target, found)
    except UndecidedError as reason:
        return Score({metric: 0.0}, answer=shown, detail={"undecided": str(reason)})
    return Score({metric: float(right)}, answer=shown)


def lm_eval_minerva(text: str, target: str, metric: str) -> Score:
    """lm-evaluation-harness, minerva_math, exact_match: what stands between `The final answer is`
    and ` I hope it is correct`, normalised after Lewkowycz et al. 2022, as text or by sympy.

    A reply without both of them is no answer.
    """
    try:
        answer, right = guard().call("minerva", text, target)
    except UndecidedError as reason:
        return Score({metric: 0.0}, detail={"undecided": str(reason)})
    if answer is None:
        return Score({metric: float(right)}, status="no_answer")
    return Score({metric: float(right)}, answer=answer[:LONGEST])
