"""Many visitors of the pages at once, and a server that is killed: every vote is there, once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

from bench.annotate import Load, Verdict, compared, measure, study_for
from bench.visitors import Press, Shown, Visitor
from qwen_eval.human_eval_ui.answers.markup import to_html
from qwen_eval.human_eval_ui.store import access, assigning, voting
from qwen_eval.human_eval_ui.store.store import Store, open_store


@pytest.mark.slow
def test_a_killed_server_loses_and_doubles_no_vote(tmp_path: Path) -> None:
    load = Load(visitors=6, votes=5, kills=1)
    found = asyncio.run(measure(tmp_path, load)).verdict
    assert (found.votes, found.lost, found.altered, found.doubled) == (30, 0, 0, 0)


@pytest.fixture
def voted(tmp_path: Path) -> Iterator[tuple[Store, Visitor]]:
    """A visitor who voted twenty times, with controls among them, and the database of it."""
    with closing(open_store(study_for(tmp_path, Load(visitors=1, votes=20)))) as store:
        access.invite(store, "somebody")
        person = access.named(store, "somebody")
        assert person is not None
        visitor = Visitor("", "", 20, seed=0)
        for number in range(20):
            one = assigning.next_assignment(store, person.id)
            assert isinstance(one, assigning.Assignment)
            task = assigning.task_of(store, one)
            sides = to_html(task.left.text), to_html(task.right.text)
            choice = number % 5 - 2
            visitor.presses.append(Press(Shown(one.id, *sides, {}, ""), choice, True, True))
            voting.cast(store, person.id, one.id, voting.Ballot(choice))
        yield store, visitor


def _after(voted: tuple[Store, Visitor], *changes: str) -> Verdict:
    """The verdict when the database was changed behind everybody's back."""
    store, visitor = voted
    with store.writing() as connection:
        for change in changes:
            connection.execute(text(change))
    return compared(store, {"somebody": visitor}, kills=1)


def test_what_is_as_it_was_pressed_is_right(voted: tuple[Store, Visitor]) -> None:
    assert _after(voted) == Verdict(votes=20, lost=0, altered=0, doubled=0, unsure=0)
    with voted[0].reading() as connection:
        kinds = set(connection.execute(text("SELECT kind FROM assignment")).scalars())
    assert "regular" in kinds
    assert kinds & {"gold", "repeat"}


def test_a_vote_that_is_not_there_is_lost(voted: tuple[Store, Visitor]) -> None:
    found = _after(voted, "DELETE FROM vote WHERE choice = 2")
    assert (found.votes, found.lost) == (16, 4)


def test_another_choice_is_an_altered_vote(voted: tuple[Store, Visitor]) -> None:
    assert _after(voted, "UPDATE vote SET choice = 1 WHERE choice = 2").altered == 4


def test_other_sides_are_an_altered_vote(voted: tuple[Store, Visitor]) -> None:
    assert _after(voted, "UPDATE assignment SET swapped = NOT swapped").altered == 20


def test_a_vote_that_nobody_pressed_is_doubled(voted: tuple[Store, Visitor]) -> None:
    voted[1].presses.pop()
    found = _after(voted)
    assert (found.lost, found.altered, found.doubled) == (0, 0, 1)


def test_one_vote_may_be_on_its_way_at_a_kill_and_no_more(voted: tuple[Store, Visitor]) -> None:
    first, second, *_ = voted[1].presses
    first.confirmed = first.passed = False
    assert _after(voted) == Verdict(votes=20, lost=0, altered=0, doubled=0, unsure=1)
    second.confirmed = False
    assert _after(voted).doubled == 1
