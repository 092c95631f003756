"""Where a completed program ends.

A base model writes on after the function it was asked for. A cut takes (prompt, completion) and
returns the completion's part that belongs to the program.
"""

from __future__ import annotations

import ast
import re

_NEW_STATEMENT = re.compile(r"^(?=[^\s#)\]}])", re.MULTILINE)


def indentation(prompt: str, completion: str) -> str:
    """Up to the first line that starts in column 0 and begins something new.

    Blank lines, comments and closing brackets in column 0 end nothing; neither does a line inside
    a triple-quoted string: a place counts only if the program parses when it is cut there. A line
    that continues an `else` or `except` of column 0 cannot belong to a function body.
    """
    places = [match.start() for match in _NEW_STATEMENT.finditer(completion) if match.start() > 0]
    for place in places:
        if _parses(prompt + completion[:place]):
            return completion[:place]
    if places and not _parses(prompt + completion):
        return completion[: places[0]]
    return completion


def whole(prompt: str, completion: str) -> str:
    """Everything the stop strings left, as lm-evaluation-harness takes it."""
    return completion


def qwen_blank_line(prompt: str, completion: str) -> str:
    """The released evaluate_humaneval.py: up to the first blank line and the first `def `."""
    return completion.partition("\n\n")[0].partition("def ")[0]


def _parses(program: str) -> bool:
    try:
        ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
