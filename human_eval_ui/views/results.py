"""The owner's page of findings, after unblinding; and, before, what may leave without names."""

from __future__ import annotations

import streamlit as st

from qwen_eval.human_eval_ui.views.compare import Desk


def page(desk: Desk) -> None:
    """The whole page."""
    st.info(desk.say("still_blind"))
