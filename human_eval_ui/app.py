"""The script that Streamlit runs for every visitor: who it is, and which pages they may see.

Streamlit runs it as a program of its own and not as part of the package, so its imports are
absolute. It is started by `qwen-eval annotate`, which opens the study first (serving.py).
"""

from __future__ import annotations

from functools import partial

import streamlit as st

from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store import access
from qwen_eval.human_eval_ui.store.access import Person
from qwen_eval.human_eval_ui.store.store import StoreError
from qwen_eval.human_eval_ui.views import compare, disputes, look, progress, results
from qwen_eval.human_eval_ui.views.compare import Desk
from qwen_eval.human_eval_ui.views.words import LANGUAGES, Language, say, trouble


def main() -> None:
    """One visit."""
    st.set_page_config(page_title="qwen-eval", page_icon="⚖", layout="wide")
    look.put_style()
    served = serving.current()
    if served is None:
        st.error("Start this page with `qwen-eval annotate serve STUDY`.")
        return
    language = _language()
    try:
        person = serving.visitor(served)
    except StoreError as error:
        st.error(trouble("unreachable", language, error, owner=False))
        return
    if person is None:
        _outside(language)
        _foot(served, None, language)
        return
    desk = Desk(served.store, person, language)
    pages = [
        st.Page(partial(page, desk), title=say(f"page_{name}", language), url_path=name)
        for name, page in (
            ("compare", compare.page),
            ("progress", progress.page),
            ("disputes", disputes.page),
            ("results", results.page),
        )
        if name == "compare" or person.role != "annotator"
        if name != "compare" or person.role == "annotator" or served.alone
    ]
    shown = st.navigation(pages, position="top" if len(pages) > 1 else "hidden")
    try:
        shown.run()
    except StoreError as error:
        look.put_error(trouble("unreachable", language, error, owner=person.role == "owner"))
    _foot(served, person, language)


def _language() -> Language:
    """As chosen at the foot of the page; before that, the browser's."""
    # A button pressed while the page is still being drawn comes with no choice at all.
    if st.session_state.get("language") is None:
        english = (st.context.locale or "zh").lower().startswith("en")
        st.session_state["language"] = "en" if english else "zh"
    found: Language = st.session_state["language"]
    return found


def _foot(served: serving.Served, person: Person | None, language: Language) -> None:
    st.divider()
    with st.container(horizontal=True, vertical_alignment="center"):
        st.segmented_control(
            "语言 / Language",
            list(LANGUAGES),
            format_func=lambda name: LANGUAGES[name],
            key="language",
            label_visibility="collapsed",
            required=True,
        )
        if person is not None:
            look.put_caption(say("hello", language, name=person.name))
            _sign_out(served, language)


def _outside(language: Language) -> None:
    st.title(say("title", language))
    st.info(say("sign_in", language))
    if not serving.has_login():
        return
    if st.user.get("is_logged_in"):
        st.warning(say("stranger", language))
        look.put_caption(str(st.user.get("email", "?")))
        st.button(say("sign_out", language), on_click=st.logout)
    else:
        st.button(say("log_in", language), on_click=st.login)


def _sign_out(served: serving.Served, language: Language) -> None:
    if served.alone is None and st.button(say("sign_out", language)):
        session = st.context.cookies.get(serving.cookie_name(served.store.study))
        if session:
            access.leave(served.store, session)
        if serving.has_login() and st.user.get("is_logged_in"):
            st.logout()
        st.rerun()


main()
