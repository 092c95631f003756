"""The shape of an answer: white space that says nothing of its writer, and what is counted for the
covariates of votes. Knows nothing of HTML."""

from __future__ import annotations

import re

from .characters import visible
from .parser import parse

_TRAILING = re.compile(r"[^\S\n]+$", re.MULTILINE)
_BLANK = re.compile(r"\n{4,}")
_COUNTED = {"heading_open", "list_item_open", "strong_open", "code_inline", "code_block", "fence"}


def normalise(text: str) -> str:
    """The text as `visible` leaves it, without white space at the ends of lines, without blank
    lines at its ends, and with two blank lines in a row at most. Idempotent."""
    lines = _TRAILING.sub("", visible(text))
    # The first line may be indented: only line ends go.
    return _BLANK.sub("\n\n\n", lines).strip("\n")


def length(text: str) -> int:
    """Characters of the normalised text, as votes hold it."""
    return len(normalise(text))


def markdown_elements(text: str) -> int:
    """Headings, list items, bold parts, code spans and code blocks, as votes count them. 0 for a
    text that `to_html` shows without its Markdown."""
    tokens = parse(normalise(text)) or []
    every = [*tokens, *(child for token in tokens for child in token.children or ())]
    return sum(token.type in _COUNTED for token in every)
