"""How the pages look: one style sheet, and untrusted texts as inert HTML."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path

import streamlit as st

from qwen_eval.human_eval_ui.answers.markup import plain, to_html, with_code
from qwen_eval.human_eval_ui.study.spec import Answer
from qwen_eval.human_eval_ui.views.words import Language, say

_html = lru_cache(maxsize=2048)(to_html)  # an answer is shown to several people
_STYLE = (Path(__file__).parent / "style.css").read_text(encoding="utf-8")


def put_style() -> None:
    """Once per run of the script."""
    st.html(f"<style>{_STYLE}</style>")


def put_title(text: str) -> None:
    """A heading of somebody's making, as text: Streamlit's own would read Markdown in it, and load
    its images."""
    st.html(f"<h1>{plain(text)}</h1>")


def put_caption(text: str) -> None:
    """A small line with somebody's words in it, as text."""
    st.html(f'<div class="small">{plain(text)}</div>', width="content")


def put_error(text: str) -> None:
    """What went wrong, as text."""
    st.html(f'<div class="wrong" role="alert">{plain(text)}</div>')


def put_instruction(text: str) -> None:
    """What was asked, white space kept."""
    st.html(f'<div class="asked">{with_code(text)}</div>')


def put_points(points: Sequence[str]) -> None:
    """What a good answer holds."""
    st.html("<ul>" + "".join(f"<li>{plain(point)}</li>" for point in points) + "</ul>")


def put_answers(left: Answer, right: Answer, language: Language) -> None:
    """Both answers in columns of one width."""
    for column, key, answer in zip(
        st.columns(2, gap="medium"), ("answer_a", "answer_b"), (left, right), strict=True
    ):
        shown = _html(answer.text) or f"<p><em>{escape(say('empty', language))}</em></p>"
        heading = escape(say(key, language))
        column.html(
            f'<section class="answer"><h3>{heading}</h3><div class="text">{shown}</div></section>'
        )
