"""White space tells nothing; lengths and Markdown are counted as they are shown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.human_eval_ui.answers.markup import to_html
from qwen_eval.human_eval_ui.answers.shape import length, markdown_elements, normalise

LINES = st.lists(st.sampled_from(["", " ", "\t", "\u3000", "a", " b", "- c ", "\u200b", "\xa0"]))
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\u2028", "\x85"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n a \r\nb\t\rc\u3000\n\n\n\n\nd\n \n", " a\nb\nc\n\n\nd"),
        ("a\n\n\nb", "a\n\n\nb"),
        ("a\n \n\t\n\u3000\n \nb", "a\n\n\nb"),
        ("    code\n      more  ", "    code\n      more"),
        (" \n\n ", ""),
        ("", ""),
        ("\ufeffa\u200b", "a"),
    ],
)
def test_white_space_is_made_alike(text: str, expected: str) -> None:
    assert normalise(text) == expected
    assert length(text) == len(expected)


@given(LINES, ENDS, LINES)
@settings(max_examples=200, deadline=None)
def test_line_ends_and_surroundings_make_no_difference(
    lines: list[str], end: str, blank: list[str]
) -> None:
    text = normalise("\n".join(lines))
    assert normalise(end.join(lines)) == text
    assert normalise(text) == text
    around = "\n".join(line for line in blank if not line.strip(" \t\u3000\xa0\u200b"))
    assert normalise(f"{around}\n{text} \n{around}") == text
    assert not re.search(r"\s$|\n{4}|[^\S\n]\n|^\n", text)


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise(normalise(text)) == normalise(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("plain *text*", 0),
        ("# a\n\n## b\n\nc\n===", 3),
        ("- a\n- b\n  1. c", 3),
        ("**a** and __b__", 2),
        ("- **a** `b`", 3),
        ("```\nx\n```\n\n    y\n\n`z`", 3),
        ("> # q\n\n|a|\n|-|\n|**b**|", 2),
        ("\\*\\*a\\*\\* $x_1*2*y$", 0),
        ("**" * 20_000, 0),
    ],
)
def test_elements_are_counted(text: str, count: int) -> None:
    assert markdown_elements(text) == count
    html = to_html(text)
    tags = re.findall(r"<(?:h[1-6]|li|strong|code)>", html)
    assert len(tags) == count
