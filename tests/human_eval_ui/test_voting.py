"""A vote is kept once, for the pair it was meant for, or not at all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.store import access, assigning, owning, reading, voting
from qwen_eval.human_eval_ui.store.voting import Ballot
from tests.human_eval_ui.made_study import made_store
from tests.human_eval_ui.test_assigning import given as given_to


def test_a_second_press_changes_nothing(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path)
    one = given_to(store, annotator)
    assert voting.cast(store, annotator, one.id, Ballot(-2)) == "kept"
    assert voting.cast(store, annotator, one.id, Ballot(2)) == "already"
    assert [vote.choice for vote in reading.votes_of(store)] == [-2]


def test_a_press_before_anybody_can_have_read_is_no_vote(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path, dwell=1.5)
    one = given_to(store, annotator)
    clock.now += 1.4
    assert voting.cast(store, annotator, one.id, Ballot(1)) == "early"
    clock.now += 0.2
    assert voting.cast(store, annotator, one.id, Ballot(1)) == "kept"


def test_nobody_votes_for_another(tmp_path: Path) -> None:
    store, _, (one, other, _) = made_store(tmp_path)
    assignment = given_to(store, one).id
    assert voting.cast(store, other, assignment, Ballot(1)) == "not yours"
    assert voting.cast(store, one, "nothing", Ballot(1)) == "not yours"
    access.revoke(store, "person 0")
    assert voting.cast(store, one, assignment, Ballot(1)) == "not yours"
    assert reading.votes_of(store) == []


def test_all_that_was_said_is_kept(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path)
    one = given_to(store, annotator)
    clock.now += 40
    said = Ballot(-1, True, ("unsafe", "factual"), "左边\0有\ud83d错", hidden=10.0, lost=2)
    assert voting.cast(store, annotator, one.id, said) == "kept"
    (vote,) = reading.votes_of(store)
    pair = store.pairs[one.pair]
    both = (pair.second, pair.first) if one.swapped else (pair.first, pair.second)
    assert (vote.left, vote.right) == both
    assert (vote.choice, vote.both_bad, vote.tags) == (-1, True, ("factual", "unsafe"))
    assert vote.seconds == 30.0
    answers = store.study.items[pair.item].answers
    assert (vote.left_length, vote.right_length) == tuple(answers[s].length for s in both)
    (comment,) = reading.comments_of(store)
    assert comment["comment"] == "左边有?错"


def test_a_pause_is_no_reading_time(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path)
    one = given_to(store, annotator)
    clock.now += 1e5
    voting.cast(store, annotator, one.id, Ballot(0, hidden=-3.0))
    assert reading.votes_of(store)[0].seconds == reading.IDLE


@pytest.mark.parametrize("choice", [-3, 3])
def test_there_are_five_choices(choice: int) -> None:
    with pytest.raises(UserError, match="no such vote"):
        Ballot(choice)


def test_a_tag_is_one_of_the_list() -> None:
    with pytest.raises(UserError, match="rude"):
        Ballot(0, tags=("rude",))


def test_the_last_vote_can_be_taken_back_and_stays_in_the_log(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path)
    first = given_to(store, annotator)
    said = Ballot(1, True, ("format",), "x")
    voting.cast(store, annotator, first.id, said)
    second = given_to(store, annotator)
    assert voting.undo(store, annotator, second.id) == voting.Undone(first.id, said)
    assert given_to(store, annotator).id == first.id
    assert voting.cast(store, annotator, first.id, Ballot(-1)) == "kept"
    assert given_to(store, annotator).id == second.id
    assert [vote.choice for vote in reading.votes_of(store)] == [-1]
    (undone,) = [e for e in reading.events_of(store) if e["kind"] == "undone"]
    assert (undone["vote"]["choice"], undone["vote"]["comment"]) == (1, "x")


def test_a_key_pressed_twice_takes_one_vote_back(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path)
    for _ in range(3):
        voting.cast(store, annotator, given_to(store, annotator).id, Ballot(1))
    shown = given_to(store, annotator).id
    assert voting.undo(store, annotator, shown) is not None
    assert voting.undo(store, annotator, shown) is None
    assert len(reading.votes_of(store)) == 2
    # Whoever means it sees the pair that came back, and presses again.
    assert voting.undo(store, annotator, given_to(store, annotator).id) is not None
    assert len(reading.votes_of(store)) == 1


def test_the_last_vote_is_the_last_in_time(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path)
    one = given_to(store, annotator)
    voting.cast(store, annotator, one.id, Ballot(1))
    two = given_to(store, annotator)
    voting.undo(store, annotator, two.id)
    clock.now += 1
    voting.cast(store, annotator, two.id, Ballot(2))  # from another tab
    clock.now += 1
    voting.cast(store, annotator, one.id, Ballot(1))
    undone = voting.undo(store, annotator, given_to(store, annotator).id)
    assert undone is not None
    assert undone.assignment == one.id


def test_a_skip_can_be_taken_back_while_the_pair_has_room(tmp_path: Path) -> None:
    store, _, (annotator, other, _) = made_store(tmp_path, items=2, overlap=1)
    first = given_to(store, annotator)
    assert voting.skip(store, annotator, first.id, "unclear") == "kept"
    second = given_to(store, annotator)
    assert second.id != first.id
    assert voting.undo(store, annotator, second.id) == voting.Undone(first.id, None)
    assert given_to(store, annotator).id == first.id
    voting.skip(store, annotator, first.id, "unclear")
    while isinstance(one := assigning.next_assignment(store, other), assigning.Assignment):
        voting.cast(store, other, one.id, Ballot(0))
    assert voting.undo(store, annotator, second.id) is None
    assert len(reading.votes_of(store)) == 1


def test_there_is_nothing_to_take_back_in_the_beginning(tmp_path: Path) -> None:
    store, _, (annotator, other, _) = made_store(tmp_path)
    assert voting.undo(store, annotator, None) is None
    voting.cast(store, annotator, given_to(store, annotator).id, Ballot(1))
    assert voting.undo(store, other, None) is None
    owning.set_state(store, "paused", owning.COMMAND_LINE)
    assert voting.undo(store, annotator, None) is None


def test_a_clock_that_was_set_back_stops_nobody(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path, dwell=1.5)
    one = given_to(store, annotator)
    clock.now -= 3600
    assert voting.cast(store, annotator, one.id, Ballot(1)) == "kept"
    assert reading.votes_of(store)[0].seconds == 0.0


def test_what_is_skipped_is_given_to_others(tmp_path: Path) -> None:
    store, _, (one, other, _) = made_store(tmp_path, items=1, overlap=1)
    voting.skip(store, one, given_to(store, one).id, "unable")
    assert assigning.next_assignment(store, one) == "finished"
    assert voting.cast(store, other, given_to(store, other).id, Ballot(0)) == "kept"


def test_a_skip_has_a_reason(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path)
    with pytest.raises(UserError, match="reason"):
        voting.skip(store, annotator, given_to(store, annotator).id, " ")


@pytest.mark.parametrize("state", ["paused", "closed"])
def test_no_vote_is_kept_while_the_study_does_not_run(tmp_path: Path, state: str) -> None:
    store, _, (annotator, *_) = made_store(tmp_path)
    one = given_to(store, annotator)
    owning.set_state(store, state, owning.COMMAND_LINE)
    assert voting.cast(store, annotator, one.id, Ballot(1)) == state
    assert reading.votes_of(store) == []


# A press, a skip, an undo, by one of two people, in whatever order.
_ACTS = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from(("vote", "again", "skip", "undo"))), max_size=25
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ACTS)
def test_whatever_people_do_there_is_one_vote_per_assignment(
    tmp_path_factory: pytest.TempPathFactory, acts: list[tuple[int, str]]
) -> None:
    store, _, people = made_store(tmp_path_factory.mktemp("study"), items=6, overlap=2, people=2)
    kept: dict[str, int] = {}
    for number, (who, act) in enumerate(acts):
        annotator = people[who]
        one = assigning.next_assignment(store, annotator)
        shown = one.id if isinstance(one, assigning.Assignment) else None
        if act == "undo":
            undone = voting.undo(store, annotator, shown)
            kept.pop(undone.assignment if undone else "", None)
        elif isinstance(one, assigning.Assignment):
            choice = number % 5 - 2
            if act == "skip":
                voting.skip(store, annotator, one.id, "unclear")
                continue
            assert voting.cast(store, annotator, one.id, Ballot(choice)) == "kept"
            kept[one.id] = choice
            if act == "again":
                assert voting.cast(store, annotator, one.id, Ballot(-choice)) == "already"
    votes = reading.votes_of(store)
    assert sorted(vote.choice for vote in votes) == sorted(kept.values())
    assert len({(vote.item, vote.annotator) for vote in votes}) == len(votes)
    assert max(Counter(vote.item for vote in votes).values(), default=0) <= 2
    store.close()
