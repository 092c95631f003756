"""The owner's page of findings, after unblinding; and, before it, what may leave without names."""

from __future__ import annotations

from io import StringIO

import streamlit as st
from rich.console import Console

from qwen_eval.errors import QwenEvalError
from qwen_eval.human_eval_ui import exporting
from qwen_eval.human_eval_ui.findings import text
from qwen_eval.human_eval_ui.findings.export import votes_csv
from qwen_eval.human_eval_ui.findings.figure import figure4
from qwen_eval.human_eval_ui.findings.findings import Findings
from qwen_eval.human_eval_ui.store import reading
from qwen_eval.human_eval_ui.store.store import StoreError
from qwen_eval.human_eval_ui.views import look
from qwen_eval.human_eval_ui.views.compare import Desk

WIDTH = 110  # characters of a line


def page(desk: Desk) -> None:
    """The whole page."""
    st.title(desk.say("page_results"))
    if desk.store.state() == "unblinded":
        try:
            _findings(desk)
        except StoreError:
            raise
        except QwenEvalError as error:
            look.put_error(str(error))
    else:
        st.info(desk.say("still_blind"))
    # What is kept can leave whether or not it says something.
    _export(desk)


def _findings(desk: Desk) -> None:
    found = exporting.findings_of(desk.store)
    if desk.language != "en":
        st.caption(desk.say("tables_in"))
    for sentence in text.sentences(found):
        st.text(sentence)
    if found.baseline is not None:
        figure = figure4(found, language=desk.language)
        st.image(figure, width="stretch")
        st.download_button(desk.say("export_figure"), figure, "figure.svg", "image/svg+xml")
    st.code(_printed(found), language=None)
    votes = votes_csv(reading.votes_of(desk.store))
    st.download_button(desk.say("export_votes"), votes, "votes.csv", "text/csv")


def _printed(found: Findings) -> str:
    console = Console(file=StringIO(), width=WIDTH, record=True)
    for table in text.tables(found):
        console.print(table)
        console.print()
    return console.export_text().rstrip()


def _export(desk: Desk) -> None:
    st.subheader(desk.say("export"))
    lines = exporting.as_lines
    blind = lines(exporting.blind_rows(desk.store))
    st.download_button(desk.say("export_blind"), blind, "votes-blind.jsonl")
    st.download_button(
        desk.say("export_events"), lines(exporting.events(desk.store)), "events.jsonl"
    )
