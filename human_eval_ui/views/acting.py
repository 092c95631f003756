"""What an owner's buttons do: only as long as they may, and what went wrong is said on the page
that comes after."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st

from qwen_eval.errors import QwenEvalError, RefusedError
from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store.store import StoreError
from qwen_eval.human_eval_ui.views import look
from qwen_eval.human_eval_ui.views.compare import Desk
from qwen_eval.human_eval_ui.views.words import trouble


def as_owner(desk: Desk, act: Callable[..., object], *args: Any) -> None:
    """act(store, *args), for a button's callback."""
    try:
        if not serving.still(desk.person, "owner"):
            raise RefusedError(desk.say("not_allowed"))
        act(desk.store, *args)
    except StoreError as error:
        st.session_state["owner_trouble"] = trouble("trouble", desk.language, error, owner=True)
    except QwenEvalError as error:
        st.session_state["owner_trouble"] = str(error)


def put_trouble() -> None:
    """What went wrong, once."""
    told = st.session_state.pop("owner_trouble", None)
    if told:
        look.put_error(told)
