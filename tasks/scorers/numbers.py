"""Reading the final number of a worked solution.

`number` is ours and the default: it understands signs, thousands separators, decimals, fractions
and currency, and compares by value. The others keep what two projects' own scripts do.
"""

from __future__ import annotations

import re
from fractions import Fraction

from qwen_eval.types import Score

# A minus is a sign only where no digit, letter or bracket stands right before it: 16-3 holds no -3.
_SIGN = r"(?:(?<![\w)])[-−])?"
_WHOLE = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)"
_NUMBER = rf"{_SIGN}\$?(?:{_WHOLE} \d+/\d+|{_WHOLE}(?:\.\d+)?(?:/\d+)?|\.\d+)"
NUMBER = re.compile(_NUMBER)
"""Numbers as people write them; parse_number reads what it finds."""
_MIXED = re.compile(r"(-?\d+) (\d+/\d+)")
# What stands between a calculation's first number and its result: `18 / 3 = 6`, `1/2 of 10 = 5`.
_CALCULATION = r"(?:[\d $%+*/×÷·^()x−-]|[.,]\d|of|times)*"
_BEFORE = r"[^\d\n.]{0,20}?"
_MARKED = re.compile(
    rf"answer(?: is|\s*[:=]){_BEFORE}({_NUMBER})(?:{_CALCULATION}={_BEFORE}({_NUMBER}))*",
    re.IGNORECASE,
)
TOLERANCE = Fraction(1, 10_000)


def parse_number(text: str) -> Fraction | None:
    """The exact value of a number as people write it, None if it is none (or too long for Python).

    -$1,250.50 is -2501/2, and so is −1250 1/2.
    """
    cleaned = re.sub(r"[$,]", "", text.replace("−", "-")).strip().rstrip(".")
    try:
        if mixed := _MIXED.fullmatch(cleaned):
            whole, part = Fraction(mixed[1]), Fraction(mixed[2])
            return whole - part if mixed[1].startswith("-") else whole + part
        above, _, below = re.sub(r"\s", "", cleaned).partition("/")
        return Fraction(above) / Fraction(below or 1)
    except (ValueError, ZeroDivisionError):
        return None


def find_number(text: str) -> str | None:
    """The number after the first "answer is" (or `answer:`, `answer =`), else the text's last one.

    - Where that number opens a calculation on the same line, its result counts: after
      "answer is 18 / 3 = 6" that is 6.
    - A number may have a sign (- or −), a dollar, thousands separators (also {,}), decimals (also
      .5), or be a fraction (1/2) or a mixed number (3 1/2).
    - A minus right behind a letter, digit or bracket is a difference, not a sign.
    """
    text = text.replace("{,}", ",")
    marked = _MARKED.search(text)
    if marked:
        return marked.group(2) or marked.group(1)
    found = NUMBER.findall(text)
    return found[-1] if found else None


def number(text: str, target: str, metric: str) -> Score:
    """Right if the number read is within 1e-4 of the target."""
    found = find_number(text)
    value = None if found is None else parse_number(found)
    if found is None or value is None:
        return Score({metric: 0.0}, status="no_answer")
    gold = parse_number(target)
    assert gold is not None, f"target {target!r} is not a number"
    return Score({metric: float(abs(value - gold) <= TOLERANCE)}, answer=found.strip())


def qwen_last_number(text: str, target: str, metric: str) -> Score:
    """The released evaluate_chat_gsm8k.py: the last number with its sign, thousands separators and
    decimals, right within 1e-4.

    A number with leading zeros is no answer, because Python evaluates none; `16-3` ends in -3.
    """
    pattern = r"([+-])?(?=([0-9]|\.[0-9]))(0|([1-9](\d{0,2}(,\d{3})*)|\d*))?(\.\d*)?(?=\D|$)"
    found = [match[0] for match in re.finditer(pattern, text, re.ASCII)]
    last = found[-1].replace(",", "").replace("+", "") if found else ""
    value = None if re.match(r"-?0\d", last) else parse_number(last)
    if value is None:
        return Score({metric: 0.0}, status="no_answer")
    gold = parse_number(target)
    assert gold is not None, f"target {target!r} is not a number"
    return Score({metric: float(abs(value - gold) <= TOLERANCE)}, answer=last)


def lm_eval_strict_match(text: str, target: str, metric: str) -> Score:
    """lm-evaluation-harness, gsm8k_cot, filter strict-match: first `The answer is N.`

    The final dot of its pattern is unescaped and must consume a character, so a number at the very
    end of the text loses its last digit.
    """
    found = re.findall(r"The answer is (\-?[0-9\.\,]+).", text)
    return _lm_eval_exact(found[0].strip() if found else None, target, metric)


def lm_eval_flexible_extract(text: str, target: str, metric: str) -> Score:
    """lm-evaluation-harness, gsm8k_cot, filter flexible-extract: the last number-like run."""
    found = re.findall(r"(-?[$0-9.,]{2,})|(-?[0-9]+)", text)
    last = next((part for part in found[-1] if part), None) if found else None
    return _lm_eval_exact(last.strip() if last else None, target, metric)


def _lm_eval_exact(found: str | None, target: str, metric: str) -> Score:
    if found is None:
        return Score({metric: 0.0}, status="no_answer")
    same = lm_eval_normal(found) == lm_eval_normal(target)
    return Score({metric: float(same)}, answer=found)


def lm_eval_normal(text: str) -> str:
    """What lm-evaluation-harness compares of an answer."""
    for pattern in (",", r"\$", "(?s).*#### ", r"\.$"):
        text = re.sub(pattern, "", text)
    return text.lower()


def qwen_last_digits(text: str, target: str, metric: str) -> Score:
    """The released evaluate_gsm8k.py: the last run of digits, as a Python integer.

    "1,000" becomes 0, "$18.00" becomes 0, a sign is lost, and "05" is no answer, because Python
    takes no integer with a leading zero; nor does it take one of more than 4,300 digits.
    """
    found = re.findall(r"\d+", text)
    last = found[-1] if found else ""
    value = parse_number(last)
    if value is None or (last[0] == "0" and last.strip("0")):
        return Score({metric: 0.0}, status="no_answer")
    return Score({metric: float(value == parse_number(target))}, answer=last)
