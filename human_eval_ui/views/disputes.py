"""The owner's page of pairs on which votes contradict each other. The owner decides as blind as the
annotators did."""

from __future__ import annotations

import streamlit as st

from qwen_eval.human_eval_ui.store import assigning, owning
from qwen_eval.human_eval_ui.store.owning import Dispute
from qwen_eval.human_eval_ui.study import sides
from qwen_eval.human_eval_ui.views import acting, look
from qwen_eval.human_eval_ui.views.compare import CHOICES, Desk
from qwen_eval.human_eval_ui.views.words import category


def page(desk: Desk) -> None:
    """The whole page."""
    found = owning.disputes(desk.store)
    st.title(desk.say("page_disputes"))
    acting.put_trouble()
    if not found:
        st.info(desk.say("disputes_none"))
        return
    left = sum(dispute.decided is None for dispute in found)
    st.write(desk.say("disputes_left", left=left, all=len(found)))
    st.caption(desk.say("dispute_note"))
    chosen = st.selectbox(
        desk.say("dispute"),
        [dispute.pair for dispute in found],
        format_func=lambda pair: _label(desk, next(d for d in found if d.pair == pair)),
    )
    _shown(desk, next(dispute for dispute in found if dispute.pair == chosen))


def _label(desk: Desk, dispute: Dispute) -> str:
    item = desk.store.study.items[dispute.item]
    mark = "" if dispute.decided is None else "✓ "
    return f"{mark}{dispute.item} · {category(item.category, desk.language)} · {item.text[:40]}"


def _shown(desk: Desk, dispute: Dispute) -> None:
    pair = desk.store.pairs[dispute.pair]
    # The pair's own order is that of the systems' names, which the page must not give away.
    turned = bool(sides.draw(desk.store.study.key, "owner", dispute.pair) % 2)
    sign = -1 if turned else 1
    with st.container(key="asked"):
        look.put_instruction(desk.store.study.items[dispute.item].text)
    both = (pair.second, pair.first) if turned else (pair.first, pair.second)
    left, right = (assigning.answer_of(desk.store, pair, system) for system in both)
    look.put_answers(left, right, desk.language)
    told = ", ".join(desk.say(f"choice_{sign * choice}") for choice in dispute.choices)
    st.write(desk.say("dispute_votes", votes=told))
    for comment in dispute.comments:
        look.put_instruction(comment)
    if dispute.decided is not None:
        st.success(desk.say("decided", choice=desk.say(f"choice_{sign * dispute.decided}")))
    if desk.person.role != "owner":
        return
    for column, choice in zip(st.columns(5), CHOICES, strict=True):
        column.button(
            desk.say(f"choice_{choice}"),
            key=f"{dispute.pair}:decide:{choice}",
            on_click=acting.as_owner,
            args=(desk, owning.adjudicate, dispute.pair, sign * choice, desk.person.id),
            width="stretch",
        )
