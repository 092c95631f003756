"""Markdown as tokens: CommonMark with tables and strikethrough, without raw HTML and without
reference definitions, whose lines would vanish from view; formulas stay as they are written.
Knows nothing of how tokens are shown."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from .characters import visible

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token

# What is beyond these is not read as Markdown: it would take seconds, or vanish from view.
LONGEST = 20_000  # characters
DEEPEST = 20  # blocks within blocks; the parser drops what is deeper
MOST_BRACKETS = 2000  # each may begin a link, and is looked at from every bracket around it
MOST_CELLS = 5000  # columns of the widest table times lines; short rows are filled up
# As in pandoc: no space within the dollars and no digit behind them, so that prices are none.
_BETWEEN_DOLLARS = re.compile(r"\$(?![\s$])(?:[^$`\\\n]|\\.){1,500}(?<!\s)\$(?!\d)")
_ENDS = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_FORMULA_LENGTH = 3000


@cache
def markdown() -> MarkdownIt:
    """The parser. Line ends within a paragraph stay line ends: verses need them."""
    from markdown_it import MarkdownIt

    options = {"html": False, "breaks": True, "maxNesting": DEEPEST}
    built = MarkdownIt("commonmark", options).enable(["table", "strikethrough"])
    built.disable("reference")
    built.inline.ruler.before("escape", "formula", _inline_formula)
    ends = ["paragraph", "blockquote", "list"]  # a formula may follow their lines at once
    built.block.ruler.before("fence", "formula", _block_formula, {"alt": ends})
    return built


def parse(text: str) -> list[Token] | None:
    """The tokens of a text; None where it is too long, deep or wide to be read as Markdown, and is
    to be shown as it is."""
    if len(text) > LONGEST or text.count("[") > MOST_BRACKETS or _wide(text):
        return None
    try:
        tokens = markdown().parse(visible(text))
    except RecursionError:
        return None  # images within images
    return None if any(_too_deep(token) for token in tokens) else tokens


def _too_deep(token: Token) -> bool:
    """Whether the parser left a block empty."""
    holds = token.type in ("blockquote_open", "list_item_open")
    return holds and token.level >= DEEPEST - 1


def _wide(text: str) -> bool:
    """Whether a table may have too many cells; a line of dashes is what makes one."""
    lines = text.split("\n")
    widths = (line.count("|") for line in lines if not line.strip("|:- \t>"))
    return (max(widths, default=0) + 1) * len(lines) > MOST_CELLS


def _inline_formula(state: StateInline, silent: bool) -> bool:
    src, first = state.src, state.pos
    if src[first] not in "$\\":
        return False
    ends = _ENDS.get(src[first : first + 2])
    if ends:
        last = src.find(ends, first + 2, min(state.posMax, first + _FORMULA_LENGTH)) + 2
    else:
        found = _BETWEEN_DOLLARS.match(src, first, state.posMax)
        last = found.end() if found else 0
    if last < first + 2:
        return False
    if not silent:
        for number, line in enumerate(src[first:last].split("\n")):
            if number:
                state.push("softbreak", "br", 0)
            state.push("text", "", 0).content = line
    state.pos = last
    return True


def _block_formula(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """A formula whose marks stand on lines of their own: its lines may begin as list items do, and
    are a paragraph all the same."""
    if state.is_code_block(first):
        return False
    ends = _ENDS.get(_line(state, first))
    if ends is None:
        return False
    for last in range(first + 1, min(end, first + 100)):
        line = _line(state, last)
        if not line or state.sCount[last] < state.blkIndent:
            return False
        if line.rstrip(".,;。，；") == ends:
            break
    else:
        return False
    if not silent:
        state.line = last + 1
        state.push("paragraph_open", "p", 1).map = [first, state.line]
        inline = state.push("inline", "", 0)
        inline.content = "\n".join(_line(state, line) for line in range(first, state.line))
        inline.children = []
        state.push("paragraph_close", "p", -1)
    return True


def _line(state: StateBlock, number: int) -> str:
    return state.src[state.bMarks[number] + state.tShift[number] : state.eMarks[number]].strip()
