"""Reading the final number of a reply in English, Chinese or LaTeX.

What `numbers.number` reads of plain English is read here too, and besides it full-width digits,
Chinese numerals, \\boxed{}, \\frac{}{}, percent, and powers of ten.
"""

from __future__ import annotations

import re
from fractions import Fraction

from qwen_eval.types import Score

from .boxes import last_boxed
from .numbers import NUMBER, TOLERANCE, find_number, parse_number

THOUSANDTH = Fraction(1, 1000)
_WIDE = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: " ", 0x2044: "/"}
# Possessive, and never begun within a number: a run of digits is gone through once.
_FRACTION = re.compile(r"(?<=(\d))?\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}")
_POWER = re.compile(
    r"(?<![\d.])(\d++(?:\.\d++)?)(?:\s*(?:×|x|\*|\\times)\s*10\s*\^\s*\{?\s*|[eE])([-+]?\d{1,3})(?!\d)\}?"
)
_PERCENT = re.compile(r"(?<![\d.,])(\d++(?:,\d{3})*+(?:\.\d++)?)\s*\\?%")
_MARK = re.compile(r"(?:答案|(?P<sentence>答))\s*(?:是|为|[:=])|答案")
_DIGITS = {digit: value for value, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
_UNITS = {"十": 10, "百": 100, "千": 1000, "万": 10**4, "亿": 10**8}
_NUMERAL = "[零〇一二两三四五六七八九十百千万亿]+"
_NUMERALS = re.compile(rf"({_NUMERAL})(?:分之({_NUMERAL}))?")


def plain(text: str) -> str:
    """The text with its numbers written as `parse_number` takes them; the rest is as it was."""
    text = text.translate(_WIDE).replace("{,}", ",").replace("\\!", "").replace("\\$", "$")
    text = re.sub(r"(\\[dt]?frac)\s*(\d)\s*(\d)", r"\1{\2}{\3}", text)
    text = _FRACTION.sub(lambda m: f"{' ' if m[1] else ''}{m[2]}/{m[3]}", text)
    text = re.sub(r"\(\((\d+)\)/\((\d+)\)\)", r"\1/\2", text)
    text = re.sub(r"(?<=\d)\((\d+/\d+)\)", r" \1", text)
    text = re.sub(r"(?<=\d)\s*又\s*(?=\d)", " ", text)
    text = re.sub(r"百分之\s*(\d)", r"100分之\1", text)
    text = re.sub(r"(?<!\d)(\d++)\s*分之\s*(\d+(?:\.\d+)?)", r"\2/\1", text)
    text = _POWER.sub(_scaled, text)
    return _PERCENT.sub(lambda m: f"{m[1]}/100", text)


def chinese_number(numeral: str) -> int:
    """三百零五 is 305; 二〇二三, digits without units, is 2023."""
    if not any(sign in _UNITS for sign in numeral):
        return int("".join(str(_DIGITS[sign]) for sign in numeral))
    total = section = digit = 0
    for sign in numeral:
        if sign in _DIGITS:
            digit = _DIGITS[sign]
        elif (unit := _UNITS[sign]) < 10**4:
            section += (digit or 1) * unit
            digit = 0
        else:
            total = (total + section + digit) * unit
            section = digit = 0
    return total + section + digit


def read_number(text: str) -> Fraction | None:
    """The value of the last \\boxed{}, else of what stands behind the last mark of an answer (the
    first English one, as `find_number` has it), else of the last number. Behind 答案 the first
    number counts, and of the sentence behind 答： the last."""
    text = plain(text)
    boxed = last_boxed(text)
    if boxed is not None and (found := find_number(f"answer is {boxed}")):
        return parse_number(found)
    marks = list(_MARK.finditer(text))
    if marks:
        line = text[marks[-1].end() :].partition("\n")[0]
        if marks[-1]["sentence"]:
            # 答：3个小朋友一共有18个苹果。 repeats what was given, and ends with the answer.
            said = re.split(r"[。;(]", line)[0]
            if "=" not in said and (numbers := NUMBER.findall(said)):
                return parse_number(numbers[-1])
        if found := find_number(f"answer is {line}"):
            return parse_number(found)
        # 一共 is no number: where there are digits, they count, and else the last numeral.
        for numeral in list(_NUMERALS.finditer(line))[-1:]:
            above = chinese_number((numeral[2] or numeral[1])[:40])
            below = chinese_number(numeral[1][:40]) if numeral[2] else 1
            return Fraction(above, below) if below else None
    found = find_number(text)
    return parse_number(found) if found else None


def gold_number(target: str) -> Fraction:
    """The value of a gold answer, which Math23K may write 12%, 1(1/2) or ((3)/(4)) as well."""
    value = parse_number(plain(target).strip("()"))
    assert value is not None, f"target {target!r} is not a number"
    return value


def written_number(text: str, target: str, metric: str) -> Score:
    """Right if the final number is within 1e-4 of the target."""
    return _compared(read_number(text), target, metric, TOLERANCE)


def thousandth(text: str, target: str, metric: str) -> Score:
    """Right if the final number differs from the target by less than 1e-3: MATH 401's accuracy
    (Yuan et al. 2023, arXiv 2304.02015)."""
    return _compared(read_number(text), target, metric, THOUSANDTH)


def thousandth_first(text: str, target: str, metric: str) -> Score:
    """As `thousandth`, of a reply that continues `1+1=`: its first number, or where that opens a
    calculation, the result."""
    found = find_number(f"answer is {plain(text)}")
    return _compared(parse_number(found) if found else None, target, metric, THOUSANDTH)


def _compared(value: Fraction | None, target: str, metric: str, tolerance: Fraction) -> Score:
    if value is None:
        return Score({metric: 0.0}, status="no_answer")
    right = abs(value - gold_number(target)) < tolerance
    return Score({metric: float(right)}, answer=_shown(value))


def _shown(value: Fraction) -> str:
    """A value as it is kept: exactly, unless it is longer than anybody reads."""
    if max(value.numerator.bit_length(), value.denominator.bit_length()) < 128:
        return str(value)
    try:
        return f"{float(value):.6g}"
    except OverflowError:
        return "∞" if value > 0 else "−∞"


def _scaled(match: re.Match[str]) -> str:
    """1.5×10^3 as 1500.0: the point moved, and no rounding."""
    whole, _, decimals = match[1].partition(".")
    exponent = int(match[2])
    digits, point = whole + decimals, len(whole) + exponent
    if point <= 0:
        return f"0.{'0' * -point}{digits}"
    digits = digits.ljust(point, "0")
    return f"{digits[:point]}.{digits[point:] or '0'}"
