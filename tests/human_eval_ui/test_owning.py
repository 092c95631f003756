"""What an owner sees and does: no names before unblinding, nothing back after closing."""

from __future__ import annotations

from pathlib import Path

import pytest

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.human_eval_ui.store import access, owning, reading, voting
from qwen_eval.human_eval_ui.store.store import STATES
from qwen_eval.human_eval_ui.store.voting import Ballot
from tests.human_eval_ui.made_study import made_store
from tests.human_eval_ui.test_assigning import given, vote_through


def test_progress_counts_votes_by_category_and_person(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path, items=12, overlap=3)
    vote_through(store, people[0])
    vote_through(store, people[1], 5)
    voting.skip(store, people[2], given(store, people[2]).id, "unclear")
    now = owning.progress(store)
    assert (now.votes, now.wanted, now.pairs) == (17, 36, 12)
    assert sum(got for got, _ in now.categories.values()) == 17
    assert {wanted for _, wanted in now.categories.values()} == {12}
    assert [(p.votes, p.skipped) for p in now.people] == [(12, 0), (5, 0), (0, 1)]
    assert "north" not in f"{now}"


def test_votes_faster_than_reading_are_counted(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path, items=2)
    for seconds in (0.5, 60):
        one = given(store, annotator)
        clock.now += seconds
        voting.cast(store, annotator, one.id, Ballot(1))
    (standing,) = [p for p in owning.progress(store).people if p.id == annotator]
    assert (standing.votes, standing.fast) == (2, 1)


def test_contradicting_votes_are_disputes(tmp_path: Path) -> None:
    store, _, (one, two, three) = made_store(tmp_path, items=3, overlap=3)
    said = {one: (2, 1, 0), two: (-2, 2, 0), three: (1, 1, 1)}
    order = sorted(store.pairs.regular)
    for annotator, choices in said.items():
        for _ in choices:
            given_one = given(store, annotator)
            choice = choices[order.index(given_one.pair)]
            ballot = Ballot(-choice if given_one.swapped else choice, comment=annotator)
            voting.cast(store, annotator, given_one.id, ballot)
    (dispute,) = owning.disputes(store)
    assert dispute.pair == order[0]
    assert sorted(dispute.choices) == [-2, 1, 2]
    assert sorted(dispute.comments) == sorted((one, two, three))
    owning.adjudicate(store, dispute.pair, 1, owning.COMMAND_LINE)
    owning.adjudicate(store, dispute.pair, -1, owning.COMMAND_LINE)
    # The log can be seen before unblinding, and a pair's order is that of its systems' names.
    logged = [event for event in reading.events_of(store) if event["kind"] == "adjudicated"]
    assert [event.keys() - {"at", "who", "kind"} for event in logged] == [{"pair"}] * 2
    assert owning.disputes(store)[0].decided == -1
    assert reading.adjudications_of(store) == {dispute.pair: -1}
    assert len(reading.votes_of(store)) == 9
    with pytest.raises(UserError, match="no such decision"):
        owning.adjudicate(store, "nothing", 1, owning.COMMAND_LINE)


def test_a_study_goes_one_way(tmp_path: Path) -> None:
    store, _, _ = made_store(tmp_path)
    with pytest.raises(RefusedError, match="close it first"):
        owning.set_state(store, "unblinded", owning.COMMAND_LINE)
    for state in ("paused", "open", "closed"):
        owning.set_state(store, state, owning.COMMAND_LINE)
    for state in ("open", "paused", "closed"):
        with pytest.raises(RefusedError, match="is closed and cannot become"):
            owning.set_state(store, state, owning.COMMAND_LINE)
    with pytest.raises(RefusedError, match="names stay hidden"):
        owning.must_be_unblinded(store, "--names")
    access.invite(store, "boss", "owner")
    boss = access.named(store, "boss")
    assert boss is not None
    access.revoke(store, "boss")
    for who in (boss.id, "a1", "nobody"):
        with pytest.raises(RefusedError, match="only an owner"):
            owning.set_state(store, "unblinded", who)
    access.invite(store, "boss", "owner")
    owning.set_state(store, "unblinded", boss.id)
    owning.must_be_unblinded(store, "--names")
    log = [(e["kind"], e["who"]) for e in reading.events_of(store) if e["kind"] in STATES]
    command = owning.COMMAND_LINE
    assert log == [
        ("paused", command),
        ("open", command),
        ("closed", command),
        ("unblinded", boss.id),
    ]
