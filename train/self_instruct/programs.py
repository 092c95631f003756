"""A few tools that are programs, so that what they return in a sample is true.

The seeds that come with the project use them. Whoever writes samples with other tools has a model
play them.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from datetime import date
from fractions import Fraction
from typing import Any

# A result with more digits is nobody's question.
_LARGEST = 10**30
_OPERATIONS: Mapping[type, Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def calculate(expression: str) -> str:
    """The value of + - * / and brackets, exact where six decimals are enough. Raises ValueError."""
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, ZeroDivisionError, RecursionError, MemoryError) as error:
        raise ValueError(f"cannot calculate this: {error}") from error
    if value.denominator == 1:
        return str(value.numerator)
    return f"{float(value):.6f}".rstrip("0").rstrip(".")


def _value(node: ast.expr) -> Fraction:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        found = Fraction(str(node.value))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        found = -_value(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        found = _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    else:
        raise ValueError("only numbers, + - * / and brackets")
    if abs(found) > _LARGEST:
        raise ValueError("the number is too large")
    return found


def days_between(start: str, end: str) -> str:
    """Days from one date to another, as YYYY-MM-DD. Raises ValueError."""
    return str((date.fromisoformat(end) - date.fromisoformat(start)).days)


def weekday(day: str) -> str:
    """The English name of a date's day of the week. Raises ValueError."""
    return f"{date.fromisoformat(day):%A}"


def count_in_text(text: str, what: str) -> str:
    """How often `what` stands in a text, in whichever case. Raises ValueError for an empty one."""
    if not what:
        raise ValueError("nothing to count")
    return str(text.lower().count(what.lower()))


_PROGRAMS: Mapping[str, Callable[..., str]] = {
    "arithmetic": calculate,
    "days_between": days_between,
    "weekday": weekday,
    "count_in_text": count_in_text,
}


def run(tool: str, arguments: Mapping[str, Any]) -> str | None:
    """What a tool returns; None for one that is no program of ours. A call that it cannot answer
    returns the error, as a tool would."""
    program = _PROGRAMS.get(tool)
    if program is None:
        return None
    try:
        return program(**arguments)
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        return f"Error: {error}"
