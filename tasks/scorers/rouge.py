"""Rouge-L (Lin 2004, "ROUGE: a package for automatic evaluation of summaries"): how much of two
texts is the same, in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

Tokenise = Callable[[str], Sequence[str]]
"""A text → the texts of its tokens."""

_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\u3400-\u9fff]+|[^\w\s]")


def words(text: str) -> list[str]:
    """Chinese characters, runs of other letters and digits, and signs, each for itself."""
    return _WORD.findall(text)


def rouge_l(wanted: str, given: str, tokenise: Tokenise) -> float:
    """The F-measure of the longest common subsequence of two texts' tokens; 0 where one is empty.

    As in the released evaluate_plugin.py: the tokens are joined by spaces and split at white space
    again, so that the space before a word is no part of it.
    """
    first, second = (" ".join(tokenise(text)).split() for text in (wanted, given))
    common = _common(first, second)
    return 2 * common / (len(first) + len(second)) if common else 0.0


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, row by row."""
    row = [0] * (len(second) + 1)
    for a in first:
        diagonal = 0
        for column, b in enumerate(second, 1):
            above = row[column]
            row[column] = diagonal + 1 if a == b else max(above, row[column - 1])
            diagonal = above
    return row[-1]
