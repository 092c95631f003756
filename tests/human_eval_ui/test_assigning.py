"""Who compares what: as many votes as wanted, nobody twice, nothing lost and nothing kept back."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from qwen_eval.human_eval_ui.store import access, assigning, owning, reading, voting
from qwen_eval.human_eval_ui.store.assigning import Assignment, next_assignment
from qwen_eval.human_eval_ui.store.store import Store
from qwen_eval.human_eval_ui.store.voting import Ballot
from tests.human_eval_ui.made_study import made_store


def given(store: Store, annotator: str) -> Assignment:
    found = next_assignment(store, annotator)
    assert isinstance(found, Assignment), found
    return found


def vote_through(store: Store, annotator: str, most: int = 10**6) -> list[Assignment]:
    """Vote until there is nothing left."""
    found: list[Assignment] = []
    while len(found) < most:
        one = next_assignment(store, annotator)
        if not isinstance(one, Assignment):
            assert one == "finished"
            break
        assert voting.cast(store, annotator, one.id, Ballot(1)) == "kept"
        found.append(one)
    return found


def test_every_pair_gets_as_many_votes_as_wanted_from_as_many_people(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path, people=5, overlap=3, systems=("x", "y", "z"),
                                  baseline="x", control_every=4, gold=3)  # fmt: skip
    chance = random.Random(0)
    left = set(people)
    while left:
        annotator = chance.choice(sorted(left))
        one = next_assignment(store, annotator)
        if not isinstance(one, Assignment):
            assert one == "finished"
            left.discard(annotator)
        elif chance.random() < 0.9:
            assert voting.cast(store, annotator, one.id, Ballot(0)) == "kept"
    votes = reading.votes_of(store)
    assert Counter(Counter(vote.unit for vote in votes).values()) == {3: 24}
    assert len({(vote.unit, vote.annotator) for vote in votes}) == len(votes)


def test_sides_are_even_for_every_annotator_and_system(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path, items=40, systems=("x", "y", "z"), baseline=None)
    for annotator in people:
        vote_through(store, annotator)
    lefts: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    for vote in reading.votes_of(store):
        both = tuple(sorted((vote.left, vote.right)))
        lefts[vote.annotator, *both][vote.left == both[0]] += 1
    assert len(lefts) == 9
    assert all(counts == [20, 20] for counts in lefts.values())


def test_orders_differ_between_annotators_and_are_kept(tmp_path: Path) -> None:
    # One vote is wanted of each, so all three have the whole choice of pairs in the beginning.
    store, _, people = made_store(tmp_path, items=30, overlap=3)
    orders = [[one.pair for one in vote_through(store, annotator)] for annotator in people]
    assert all(len(order) == 30 for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_the_same_pair_is_given_until_it_is_voted_on(tmp_path: Path) -> None:
    store, clock, (annotator, *_) = made_store(tmp_path)
    first = given(store, annotator)
    clock.now += 100
    assert given(store, annotator) == first
    voting.cast(store, annotator, first.id, Ballot(2))
    assert given(store, annotator).pair != first.pair


def test_a_lease_that_ran_out_gives_the_pair_to_others(tmp_path: Path) -> None:
    store, clock, (slow, fast, _) = made_store(tmp_path, items=1, overlap=1, lease=60.0)
    first = given(store, slow)
    assert next_assignment(store, fast) == "finished"
    clock.now += 61
    other = given(store, fast)
    assert other.pair == first.pair
    # The one who comes back while the other has it in view has nothing to do any more.
    assert next_assignment(store, slow) == "finished"
    assert voting.cast(store, slow, first.id, Ballot(1)) == "already"
    assert voting.cast(store, fast, other.id, Ballot(1)) == "kept"


def test_whoever_comes_back_to_a_pair_that_nobody_took_keeps_it(tmp_path: Path) -> None:
    store, clock, (slow, *_) = made_store(tmp_path, items=1, overlap=1, lease=60.0)
    first = given(store, slow)
    clock.now += 1000
    assert given(store, slow).id == first.id
    assert voting.cast(store, slow, first.id, Ballot(1)) == "kept"


def test_nobody_votes_on_a_pair_that_others_have_filled(tmp_path: Path) -> None:
    store, clock, (slow, fast, _) = made_store(tmp_path, items=1, overlap=1, lease=60.0)
    first = given(store, slow)
    clock.now += 61
    assert voting.cast(store, fast, given(store, fast).id, Ballot(1)) == "kept"
    assert voting.cast(store, slow, first.id, Ballot(1)) == "not yours"
    assert len(reading.votes_of(store)) == 1
    assert assigning.own_progress(store, slow) == (0, 0)


def test_a_vote_after_the_lease_counts_where_nobody_took_the_pair(tmp_path: Path) -> None:
    store, clock, (slow, *_) = made_store(tmp_path, items=1, overlap=1, lease=60.0)
    first = given(store, slow)
    clock.now += 3600
    assert voting.cast(store, slow, first.id, Ballot(1)) == "kept"


def test_an_instruction_comes_back_after_all_others(tmp_path: Path) -> None:
    systems = ("base", "x", "y", "z")
    store, _, people = made_store(tmp_path, items=10, systems=systems, baseline="base")
    had = [store.pairs[one.pair].item for one in vote_through(store, people[0])]
    assert len(had) == 30
    for start in (0, 10, 20):
        assert len(set(had[start : start + 10])) == 10


def test_whoever_was_sent_away_gets_nothing(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path)
    given(store, people[0])
    access.revoke(store, "person 0")
    assert next_assignment(store, people[0]) == "gone"


def test_a_quota_ends_an_annotators_work(tmp_path: Path) -> None:
    store, _, people = made_store(tmp_path, quota=5)
    assert len(vote_through(store, people[0])) == 5
    assert assigning.own_progress(store, people[0]) == (5, 5)


def test_progress_counts_what_is_there_for_the_annotator(tmp_path: Path) -> None:
    store, _, (one, other, _) = made_store(tmp_path, items=6, overlap=1)
    assert assigning.own_progress(store, one) == (0, 6)
    vote_through(store, one, 2)
    given(store, one)
    assert assigning.own_progress(store, one) == (2, 6)
    assert assigning.own_progress(store, other) == (0, 3)


def test_one_in_every_block_is_a_control(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path, items=80, control_every=5, gold=6)
    had = vote_through(store, annotator)
    blocks = [had[start : start + 5] for start in range(0, len(had), 5)]
    controls = [[one.kind for one in block if one.kind != "regular"] for block in blocks]
    assert all(found in ([], ["gold"]) for found in controls[::2])
    assert all(found in ([], ["repeat"]) for found in controls[1::2])
    assert controls.count(["gold"]) == 6
    assert controls.count(["repeat"]) >= 7
    # Where in its block cannot be foreseen.
    places = {one.position % 5 for one in had if one.kind != "regular"}
    assert len(places) >= 4
    first = {one.pair: one for one in had if one.kind == "regular"}
    repeats = [one for one in had if one.kind == "repeat"]
    for one in repeats:
        assert one.swapped is not first[one.pair].swapped
        assert one.position - first[one.pair].position >= assigning.APART
    assert len({one.pair for one in repeats}) == len(repeats)
    assert len([one for one in had if one.kind == "regular"]) == 80


def test_progress_moves_with_every_vote_and_ends_full(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path, items=30, control_every=4, gold=5)
    done, total = assigning.own_progress(store, annotator)
    assert (done, total) == (0, 40)
    while vote_through(store, annotator, 1):
        assert assigning.own_progress(store, annotator)[0] == done + 1
        done, total = assigning.own_progress(store, annotator)
    assert done == total > 30


def test_controls_are_no_votes_and_are_judged(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path, items=60, control_every=5, gold=4)
    golds = repeats = 0
    while isinstance(one := next_assignment(store, annotator), Assignment):
        # Always for the pair's first answer: the damaged one is its second.
        voting.cast(store, annotator, one.id, Ballot(2 if one.swapped else -2))
        golds += one.kind == "gold"
        repeats += one.kind == "repeat"
    found = reading.controls_of(store)
    assert [c.kind for c in found].count("gold") == golds == 4
    assert [c.kind for c in found].count("repeat") == repeats > 0
    assert all(control.passed for control in found)
    assert len(reading.votes_of(store)) == 60
    assert owning.progress(store).people[0].gold == (4, 4)


def test_one_who_always_presses_left_fails_repetitions(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path, items=60, control_every=5, gold=0)
    while isinstance(one := next_assignment(store, annotator), Assignment):
        voting.cast(store, annotator, one.id, Ballot(-1))
    repeats = [control.passed for control in reading.controls_of(store)]
    assert repeats
    assert not any(repeats)


def test_what_is_shown_names_no_system(tmp_path: Path) -> None:
    store, _, (annotator, *_) = made_store(tmp_path)
    task = assigning.task_of(store, given(store, annotator))
    assert not {"north", "south"} & set(f"{task}".replace("'", " ").split())
    item = next(i for i in store.study.items.values() if i.text == task.text)
    assert {task.left.text, task.right.text} == {a.text for a in item.answers.values()}


@pytest.mark.parametrize(("state", "told"), [("paused", "paused"), ("closed", "closed")])
def test_a_study_that_does_not_run_gives_nothing(tmp_path: Path, state: str, told: str) -> None:
    store, _, people = made_store(tmp_path)
    owning.set_state(store, state, owning.COMMAND_LINE)
    assert next_assignment(store, people[0]) == told
