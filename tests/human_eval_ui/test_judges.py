"""Judge beside annotators against sklearn, statsmodels and brute force."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from qwen_eval.human_eval_ui.analysis.judges import judge_agreement
from qwen_eval.human_eval_ui.analysis.votes import Vote, majorities
from tests.human_eval_ui.studies import copied, doubled, mirrored

CHANCES = (0.3, 0.2, 0.5)


def _judged(votes: list[Vote], seed: int, right: float = 0.7) -> list[Vote]:
    """A judge that says what most say with a chance, and else anything."""
    random = np.random.default_rng(seed)
    found = []
    for (item, one, other), most in majorities(votes).items():
        said = most if random.random() < right else int(random.integers(-1, 2))
        found.append(Vote(item, "coding", "judge", other, one, said))
    return found


def test_it_is_sklearns_kappa_and_statsmodels_interval() -> None:
    from sklearn.metrics import cohen_kappa_score
    from statsmodels.stats.inter_rater import cohens_kappa

    humans = copied(np.random.default_rng(0), 300, 3, CHANCES, 0.5)
    judge = _judged(humans, 1)[20:]
    found = judge_agreement(judge, humans[:-9])
    most, said = majorities(humans[:-9]), majorities(judge)
    units = [unit for unit in most if unit in said]
    ours, theirs = [said[u] for u in units], [most[u] for u in units]
    assert found is not None
    assert found.units == len(units) == 277
    assert found.same.value == pytest.approx(np.mean(np.equal(ours, theirs)))
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a and b]
    assert found.decided is not None
    assert found.decided.value == pytest.approx(np.mean([a == b for a, b in pairs]))
    table = np.zeros((3, 3))
    np.add.at(table, (np.add(ours, 1), np.add(theirs, 1)), 1)
    for kappa, weights in ((found.kappa, None), (found.weighted, "linear")):
        assert kappa is not None
        assert kappa.value == pytest.approx(cohen_kappa_score(ours, theirs, weights=weights))
        result = cohens_kappa(table, wt=weights)
        width = result.kappa_upp - result.kappa_low
        assert kappa.low == pytest.approx(result.kappa_low, abs=0.07 * width)
        assert kappa.high == pytest.approx(result.kappa_upp, abs=0.07 * width)


def test_a_judge_that_contradicts_itself_says_a_tie() -> None:
    humans = [Vote("i1", "coding", "ann", "a", "b", 0), Vote("i2", "coding", "ann", "a", "b", 1)]
    left = [replace(vote, annotator="judge", choice=-1) for vote in humans]
    both = [*left, *(replace(mirrored(vote), choice=-1) for vote in left)]
    found = judge_agreement(both, humans)
    assert found is not None
    assert (found.units, found.same.value) == (2, 0.5)
    assert found.decided is None
    assert judge_agreement([replace(vote, item="i3") for vote in left], humans) is None


def test_always_one_and_the_same_has_no_kappa() -> None:
    humans = [Vote(f"i{i}", "coding", "ann", "a", "b", 1) for i in range(5)]
    found = judge_agreement([replace(vote, annotator="judge") for vote in humans], humans)
    assert found is not None
    assert found.same.value == 1
    assert found.kappa is None
    assert found.weighted is None
    assert found.beside is None  # a single annotator has no rest


def test_beside_the_one_left_out_by_hand() -> None:
    humans = copied(np.random.default_rng(2), 30, 3, CHANCES, 0.5)
    judge = _judged(humans, 3)
    said = {vote.item: vote.outcome_for("new") for vote in judge}
    model, own = [], []
    for vote in humans:
        rest = [v for v in humans if v.item == vote.item and v.annotator != vote.annotator]
        most = np.sign(sum(v.outcome_for("new") for v in rest))
        own.append(vote.outcome_for("new") == most)
        model.append(said[vote.item] == most)
    found = judge_agreement(judge, humans)
    assert found is not None
    assert found.beside is not None
    assert found.beside.delta == pytest.approx(np.mean(model) - np.mean(own))
    assert found.beside.low < found.beside.delta < found.beside.high


def test_a_judge_that_knows_and_one_that_guesses() -> None:
    humans = copied(np.random.default_rng(4), 150, 3, CHANCES, 0.5)
    knows, guesses = (judge_agreement(_judged(humans, 5, right), humans) for right in (1.0, 0.0))
    assert knows is not None
    assert guesses is not None
    assert knows.same is not None
    assert knows.kappa is not None
    assert knows.same.value == knows.kappa.value == 1
    assert knows.beside is not None
    assert guesses.beside is not None
    assert guesses.kappa is not None
    assert knows.beside.low > 0 > guesses.beside.high
    assert guesses.kappa.low < 0 < guesses.kappa.high


def test_sides_order_and_repetition_change_nothing() -> None:
    humans = copied(np.random.default_rng(6), 40, 3, CHANCES, 0.5)
    judge = _judged(humans, 7)
    found = judge_agreement(judge, humans)
    turned = [mirrored(vote) for vote in reversed(humans)]
    assert judge_agreement([mirrored(v) for v in reversed(judge)], turned) == found
    twice = judge_agreement(judge, doubled(humans))
    assert found is not None
    assert twice is not None
    assert (twice.same, twice.kappa, twice.units) == (found.same, found.kappa, found.units)
