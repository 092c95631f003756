"""The annotator's page: two answers side by side, one key for a vote.

What a button does names the assignment that it was drawn for, so a press that comes late, twice or
from another tab cannot vote on the next pair (store/voting.py). Tags and the like are drafts until
then, kept by assignment so that taking a vote back brings them back as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import streamlit as st

from qwen_eval.human_eval_ui import serving
from qwen_eval.human_eval_ui.store import assigning, voting
from qwen_eval.human_eval_ui.store.access import Person
from qwen_eval.human_eval_ui.store.assigning import Assignment, Task
from qwen_eval.human_eval_ui.store.store import Store, StoreError
from qwen_eval.human_eval_ui.store.voting import TAGS, Ballot
from qwen_eval.human_eval_ui.views import look, sight
from qwen_eval.human_eval_ui.views.words import Language, category, say, trouble

Done = TypeVar("Done")

CHOICES = (-2, -1, 0, 1, 2)
SKIPS = ("skip_unclear", "skip_unable", "skip_broken", "skip_known")


@dataclass(frozen=True)
class Desk:
    """Who compares, where, in which language."""

    store: Store
    person: Person
    language: Language

    def say(self, key: str, **values: object) -> str:
        """A sentence in the person's language."""
        return say(key, self.language, **values)


def page(desk: Desk) -> None:
    """The whole page."""
    _compare(desk)


@st.fragment
def _compare(desk: Desk) -> None:
    if st.session_state.pop("left", False):
        st.rerun()  # of the whole page, which asks anew who its visitor is
    try:
        current = _current(desk)
        if not isinstance(current, Assignment):
            _notice()
            st.info(desk.say(f"idle_{current}"))
            _idle(desk)
            return
        done, total = st.session_state["progress"]
        task = assigning.task_of(desk.store, current)
        _comparison(desk, task, done, total)
    except StoreError as error:
        st.error(trouble("unreachable", desk.language, error, owner=False))
        st.button(desk.say("again"))


def _current(desk: Desk) -> Assignment | assigning.Idle:
    """What is on the page; asked of the store anew after every vote, and where there is nothing."""
    current = st.session_state.get("current")
    if not isinstance(current, Assignment):
        current = assigning.next_assignment(desk.store, desk.person.id)
        st.session_state["current"] = current
        st.session_state["progress"] = assigning.own_progress(desk.store, desk.person.id)
    found: Assignment | assigning.Idle = current
    return found


def _comparison(desk: Desk, task: Task, done: int, total: int) -> None:
    st.progress(done / total if total else 1.0, desk.say("done_of", done=done, total=total))
    with st.container(key="asked"):
        look.put_caption(f"{desk.say('instruction')} · {category(task.category, desk.language)}")
        look.put_instruction(task.text)
    look.put_answers(task.left, task.right, desk.language)
    # All that a key does shows here, where it is in sight.
    with st.container(key="choices"):
        _notice()
        for column, choice in zip(st.columns(5), CHOICES, strict=True):
            column.button(
                desk.say(f"choice_{choice}"),
                key=f"{task.assignment}:{choice}",
                shortcut=str(choice + 3),
                on_click=_vote,
                args=(desk, task.assignment, choice),
                width="stretch",
            )
        _instead(desk, task.assignment)
    _draft(desk, task.assignment)
    _points(desk, task)
    sight.away(task.assignment)


def _instead(desk: Desk, assignment: str) -> None:
    """Both bad, undo, skip."""
    bad, undo, skip, advice = st.columns([2, 2, 2, 7], vertical_alignment="center")
    old: Ballot = _drafts().get(assignment, Ballot(0))
    bad.button(
        ("☑ " if old.both_bad else "☐ ") + desk.say("both_bad"),
        key=f"{assignment}:bad",
        shortcut="N",
        on_click=_toggle,
        args=(assignment,),
        width="stretch",
    )
    with undo:
        _undo_button(desk, assignment)
    skip.button(
        desk.say("skip"),
        key=f"{assignment}:skip",
        shortcut="S",
        on_click=_ask_why,
        args=(assignment,),
        width="stretch",
        icon=":material/skip_next:",
    )
    advice.caption(desk.say("advice"))
    if st.session_state.get("skipping") != assignment:
        return
    with st.container(border=True, key="skipping_box"):
        st.write(desk.say("skip_why"))
        for column, reason in zip(st.columns(len(SKIPS) + 1), (*SKIPS, "back"), strict=True):
            column.button(
                desk.say(reason),
                key=f"{assignment}:{reason}",
                on_click=_skip,
                args=(desk, assignment, reason),
                width="stretch",
            )


def _undo_button(desk: Desk, assignment: str | None) -> None:
    st.button(
        desk.say("undo"),
        key=f"{assignment}:undo" if assignment else "undo",
        shortcut="U",
        on_click=_undo,
        args=(desk, assignment),
        width="stretch",
        icon=":material/undo:",
    )


def _draft(desk: Desk, assignment: str) -> None:
    """What may be said beside the choice, before it."""
    old: Ballot = _drafts().get(assignment, Ballot(0))
    left, right = st.columns([7, 4], vertical_alignment="bottom")
    left.pills(
        desk.say("tags"),
        TAGS,
        selection_mode="multi",
        default=old.tags,
        format_func=lambda tag: desk.say(f"tag_{tag}"),
        key=f"{assignment}:tags",
        wrap=True,
    )
    right.text_input(
        desk.say("comment"),
        value=old.comment,
        max_chars=voting.LONGEST,
        placeholder=desk.say("comment_hint"),
        key=f"{assignment}:comment",
    )


def _points(desk: Desk, task: Task) -> None:
    if not task.points:
        return
    with st.expander(desk.say("points")):
        look.put_points(task.points)
        if task.answer:
            look.put_instruction(desk.say("right_answer", answer=task.answer))


def _idle(desk: Desk) -> None:
    """Where there is nothing to compare."""
    left, middle, _ = st.columns([2, 2, 9])
    with left:
        _undo_button(desk, None)
    middle.button(desk.say("again"), key="again", on_click=_forget, width="stretch")


def _vote(desk: Desk, assignment: str, choice: int) -> None:
    old = _drafts().get(assignment, Ballot(0))
    hidden, lost = st.session_state.get("away", {}).get(assignment, (0.0, 0))
    ballot = Ballot(choice, old.both_bad, *_beside(assignment), hidden, lost)
    _drafts()[assignment] = ballot
    outcome = _act(desk, lambda: voting.cast(desk.store, desk.person.id, assignment, ballot))
    if outcome:
        _end(desk, outcome)


def _skip(desk: Desk, assignment: str, reason: str) -> None:
    st.session_state.pop("skipping", None)
    why = reason.removeprefix("skip_")
    if reason != "back":
        outcome = _act(desk, lambda: voting.skip(desk.store, desk.person.id, assignment, why))
        if outcome:
            _end(desk, outcome)


def _end(desk: Desk, outcome: voting.Outcome) -> None:
    """On to the next pair, unless this one was not read yet."""
    if outcome != "kept":
        st.session_state["notice"] = "warning", desk.say(f"outcome_{outcome}")
    if outcome != "early":
        _forget()


def _undo(desk: Desk, shown: str | None) -> None:
    undone = _act(desk, lambda: voting.undo(desk.store, desk.person.id, shown))
    if undone is None:
        st.session_state.setdefault("notice", ("info", desk.say("nothing_to_undo")))
        return
    st.session_state["notice"] = "info", desk.say("undone")
    if undone.ballot:
        _drafts()[undone.assignment] = undone.ballot
    _forget()


def _act(desk: Desk, act: Callable[[], Done]) -> Done | None:
    """What a button does, as long as the page is its visitor's. None where it could not be done;
    why is said on the page that comes after."""
    try:
        if serving.still(desk.person):
            return act()
        st.session_state["left"] = True
    except StoreError as error:
        told = trouble("trouble", desk.language, error, owner=False)
        st.session_state["notice"] = "error", told
    return None


def _beside(assignment: str) -> tuple[tuple[str, ...], str]:
    """Tags and comment as they stand on the page."""
    tags = tuple(st.session_state.get(f"{assignment}:tags") or ())
    return tags, st.session_state.get(f"{assignment}:comment") or ""


def _toggle(assignment: str) -> None:
    old = _drafts().get(assignment, Ballot(0))
    _drafts()[assignment] = Ballot(0, not old.both_bad, *_beside(assignment))


def _ask_why(assignment: str) -> None:
    st.session_state["skipping"] = assignment


def _forget() -> None:
    """The store is asked what comes next."""
    st.session_state.pop("current", None)


def _drafts() -> dict[str, Ballot]:
    found: dict[str, Ballot] = st.session_state.setdefault("drafts", {})
    return found


def _notice() -> None:
    kind, text = st.session_state.pop("notice", ("", ""))
    if kind:
        getattr(st, kind)(text)
