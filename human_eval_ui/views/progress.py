"""The owner's page: how far the study is, how much annotators agree, and what the owner may do.

Names no system and shows no result: whoever could see them would stop when they please.
"""

from __future__ import annotations

from datetime import UTC, datetime

import streamlit as st

from qwen_eval.human_eval_ui.analysis.agreement import krippendorff, position_bias
from qwen_eval.human_eval_ui.store import owning, reading
from qwen_eval.human_eval_ui.store.owning import Progress, Standing
from qwen_eval.human_eval_ui.views import acting, look
from qwen_eval.human_eval_ui.views.compare import Desk
from qwen_eval.human_eval_ui.views.words import category

REFRESH = "15s"


def page(desk: Desk) -> None:
    """The whole page; figures are read again every few seconds."""
    look.put_title(desk.store.study.spec.name)
    _controls(desk)
    _figures(desk)


@st.fragment(run_every=REFRESH)
def _figures(desk: Desk) -> None:
    now = owning.progress(desk.store)
    say = desk.say
    cells = st.columns(4)
    cells[0].metric(say("state"), say(f"state_{now.state}"))
    cells[1].metric(say("votes"), f"{now.votes} / {now.wanted}")
    cells[2].metric(say("pairs_done"), f"{now.pairs_done} / {now.pairs}")
    cells[3].metric(say("people"), sum(p.role == "annotator" and p.active for p in now.people))
    # Databases of earlier versions may hold more votes than were wanted.
    st.progress(min(1.0, now.votes / now.wanted) if now.wanted else 1.0)
    left, right = st.columns([2, 3], gap="large")
    with left:
        st.subheader(say("by_category"))
        st.dataframe(_categories(desk, now), hide_index=True, width="stretch")
    with right:
        st.subheader(say("agreement"))
        _agreement(desk)
    st.subheader(say("people"))
    st.dataframe([_person(desk, person) for person in now.people], hide_index=True, width="stretch")


def _categories(desk: Desk, now: Progress) -> list[dict[str, object]]:
    say = desk.say
    return [
        {
            say("category"): category(name, desk.language),
            say("votes"): got,
            say("wanted"): wanted,
            say("share"): f"{got / wanted:.0%}",
        }
        for name, (got, wanted) in now.categories.items()
    ]


def _person(desk: Desk, person: Standing) -> dict[str, object]:
    say = desk.say
    at = person.last and datetime.fromtimestamp(person.last, UTC)
    return {
        say("name"): person.name + ("" if person.active else " ✗"),
        say("role"): say(f"role_{person.role}"),
        say("votes"): person.votes,
        say("skipped"): person.skipped,
        say("seconds"): round(person.seconds, 1),
        say("fast"): person.fast,
        say("gold"): _of(person.gold),
        say("repeats"): _of(person.repeats),
        say("last"): at.strftime("%m-%d %H:%M UTC") if at else "–",
    }


def _of(counts: tuple[int, int]) -> str:
    return f"{counts[0]} / {counts[1]}" if counts[1] else "–"


def _agreement(desk: Desk) -> None:
    votes = reading.votes_of(desk.store)
    if len({(vote.unit, vote.annotator) for vote in votes}) == len({v.unit for v in votes}):
        st.caption(desk.say("no_agreement"))
        return
    bias = position_bias(votes)
    figures = {
        "alpha_nominal": krippendorff(votes, "nominal"),
        "alpha_ordinal": krippendorff(votes, "ordinal"),
        "left_preferred": bias.left if bias else None,
    }
    for cell, (key, found) in zip(st.columns(3), figures.items(), strict=True):
        cell.metric(
            desk.say(key),
            f"{found.value:.2f}" if found else "–",
            f"[{found.low:.2f}, {found.high:.2f}]" if found else None,
            delta_color="off",
            delta_arrow="off",
        )
    st.caption(desk.say("agreement_note"))


def _controls(desk: Desk) -> None:
    """Pausing, going on, closing, unblinding: what the state allows, the last two asked twice."""
    if desk.person.role != "owner":
        return
    state = desk.store.state()
    offered = {
        "open": (("pause", "paused"), ("close", "closed")),
        "paused": (("resume", "open"), ("close", "closed")),
        "closed": (("unblind", "unblinded"),),
        "unblinded": (),
    }[state]
    with st.container(horizontal=True):
        for word, goal in offered:
            if word in ("pause", "resume"):
                st.button(desk.say(word), on_click=_set, args=(desk, goal))
                continue
            with st.popover(desk.say(word)):
                st.write(desk.say(f"{word}_sure"))
                st.button(desk.say("sure"), key=f"sure-{word}", on_click=_set, args=(desk, goal))
    acting.put_trouble()


def _set(desk: Desk, state: str) -> None:
    acting.as_owner(desk, owning.set_state, state, desk.person.id)
