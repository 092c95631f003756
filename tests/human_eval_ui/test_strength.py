"""Davidson's model against statsmodels and evalica, closed forms, and by simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.analysis.strength import Fit, strengths
from qwen_eval.human_eval_ui.analysis.votes import Vote
from tests.human_eval_ui.studies import davidson, doubled, mirrored

THREE = {"a": 0.6, "b": 0.0, "c": -0.6}


def _values(fit: Fit) -> dict[str, float]:
    return {each.system: each.value for each in fit.strengths}


def _study(seed: int = 0, items: int = 60, **law: float) -> list[Vote]:
    votes = davidson(np.random.default_rng(seed), items, 2, THREE, **law)
    marks = np.random.default_rng(seed + 1).integers(0, 20, (len(votes), 2)).tolist()
    return [
        replace(vote, left_markdown=one, right_markdown=other)
        for vote, (one, other) in zip(votes, marks, strict=True)
    ]


def test_with_ties_and_covariates_it_is_statsmodels_conditional_logit() -> None:
    """A vote as a group of three alternatives, a against the others as plain columns."""
    from statsmodels.discrete.conditional_models import ConditionalLogit

    votes = _study(side=0.3, length=0.8)
    rows, picked, groups = [], [], []
    tilts = {
        kind: np.array(
            [
                (getattr(v, f"left_{kind}") - getattr(v, f"right_{kind}"))
                / max(getattr(v, f"left_{kind}") + getattr(v, f"right_{kind}"), 1)
                for v in votes
            ]
        )
        for kind in ("length", "markdown")
    }
    for kind, tilt in tilts.items():
        tilts[kind] = tilt / np.sqrt((tilt**2).mean())
    for i, vote in enumerate(votes):
        ahead = [(vote.left == s) - (vote.right == s) for s in "bc"]
        ahead += [1, tilts["length"][i], tilts["markdown"][i]]
        rows += [[x / 2 for x in ahead] + [0], [0] * 5 + [1], [-x / 2 for x in ahead] + [0]]
        picked += [int(vote.choice < 0), int(vote.choice == 0), int(vote.choice > 0)]
        groups += [i] * 3
    theirs = ConditionalLogit(
        np.array(picked), np.array(rows, dtype=float), groups=np.array(groups)
    ).fit(disp=0)
    ours = strengths(votes, reference="a")
    assert ours.separated == ours.left_out == ()
    assert ours.ties is not None
    found = [_values(ours)["b"], _values(ours)["c"]]
    found += [ours.effects[name].value for name in ("side", "length", "markdown")]
    assert [*found, ours.ties.value] == pytest.approx(list(theirs.params), abs=1e-3)
    assert ours.log_likelihood == pytest.approx(theirs.llf, abs=1e-5)
    assert ours.log_likelihood >= theirs.llf - 1e-9  # theirs stops a little before the summit


def test_without_ties_errors_are_statsmodels_clustered_ones() -> None:
    """statsmodels makes its own small-sample factor of votes and coefficients; ours is of items."""
    import statsmodels.api as sm

    votes = [v for v in _study(3, side=0.4, spread=1.0) if v.choice]
    columns = [[(v.left == s) - (v.right == s) for s in "bc"] + [1] for v in votes]
    items = np.unique([v.item for v in votes], return_inverse=True)[1]
    model = sm.Logit([int(v.choice < 0) for v in votes], np.array(columns, dtype=float))
    theirs = model.fit(disp=0, cov_type="cluster", cov_kwds={"groups": items})
    ours = strengths(votes, covariates=["side"], reference="a")
    at = {each.system: each for each in ours.strengths}
    found: list[Any] = [at["b"], at["c"], ours.effects["side"]]
    assert [each.value for each in found] == pytest.approx(list(theirs.params), abs=1e-6)
    factor = math.sqrt((len(votes) - 1) / (len(votes) - 3))
    assert [each.error * factor for each in found] == pytest.approx(list(theirs.bse), rel=1e-6)
    assert ours.ties is None
    assert (at["a"].value, at["a"].error, at["a"].low, at["a"].high) == (0, 0, 0, 0)


def test_strengths_are_evalicas() -> None:
    """Bradley and Terry's without ties, and Newman's, whose law of ties is Davidson's."""
    import evalica

    votes = _study(5)
    kinds = {-1: evalica.Winner.X, 0: evalica.Winner.Draw, 1: evalica.Winner.Y}
    for some in (votes, [v for v in votes if v.choice]):
        left, right = [v.left for v in some], [v.right for v in some]
        winners = [kinds[v.choice] for v in some]
        fit = evalica.newman if any(v.choice == 0 for v in some) else evalica.bradley_terry
        theirs = np.log(fit(left, right, winners, tolerance=1e-12, limit=10_000).scores)
        ours = strengths(some, covariates=())
        for system, value in _values(ours).items():
            assert value == pytest.approx(theirs[system] - theirs.mean(), abs=1e-4)


def test_two_systems_have_a_closed_form() -> None:
    """Chances are the shares: six wins, three ties, two losses."""
    said = [1] * 6 + [0] * 3 + [-1] * 2
    votes = [Vote(f"i{i}", "coding", "ann", "old", "new", choice) for i, choice in enumerate(said)]
    fit = strengths(votes, covariates=())
    assert fit.chances("new", "old") == pytest.approx((6 / 11, 3 / 11, 2 / 11))
    assert fit.chances("old", "new") == pytest.approx((2 / 11, 3 / 11, 6 / 11))
    assert _values(fit)["new"] == pytest.approx(math.log(3) / 2)
    # The delta method on shares of independent votes.
    (new, _old) = fit.strengths
    assert 2 * new.error == pytest.approx(math.sqrt((1 / 6 + 1 / 2) * 11 / 10))


def test_exchanged_sides_change_nothing_but_the_side() -> None:
    votes = _study(7, side=0.5, length=1.0)
    before, after = strengths(votes), strengths([mirrored(v) for v in votes])
    assert _values(after) == pytest.approx(_values(before))
    assert after.effects["side"].value == pytest.approx(-before.effects["side"].value)
    for name in ("length", "markdown"):
        assert after.effects[name].value == pytest.approx(before.effects[name].value)


def test_the_order_of_votes_changes_nothing() -> None:
    votes = _study(8)
    shuffled = [votes[i] for i in np.random.default_rng(0).permutation(len(votes))]
    assert strengths(shuffled) == strengths(votes)


def test_who_says_the_same_again_adds_nothing() -> None:
    votes = _study(9)
    once, twice = strengths(votes), strengths(doubled(votes))
    for one, other in zip(once.strengths, twice.strengths, strict=True):
        assert (other.value, other.error) == pytest.approx((one.value, one.error))
        assert (other.low, other.high) == pytest.approx((one.low, one.high))
    assert twice.votes == 2 * once.votes


def test_style_is_told_from_strength() -> None:
    """b is no better than a; its answers are merely longer, and length is liked."""
    random = np.random.default_rng(10)
    votes = []
    for i in range(600):
        left, right = ("a", "b") if random.random() < 0.5 else ("b", "a")
        lengths = {"a": int(random.integers(100, 400)), "b": int(random.integers(200, 800))}
        tilt = (lengths[left] - lengths[right]) / (lengths[left] + lengths[right])
        choice = -1 if random.random() < 1 / (1 + math.exp(-3 * tilt)) else 1
        vote = Vote(f"i{i}", "coding", "ann", left, right, choice)
        votes.append(replace(vote, left_length=lengths[left], right_length=lengths[right]))
    raw = strengths(votes, covariates=(), reference="a").strengths
    adjusted = strengths(votes, covariates=("length",), reference="a")
    assert raw[0].system == "b"
    assert raw[0].low > 0.5
    (b,) = (each for each in adjusted.strengths if each.system == "b")
    assert b.low < 0 < b.high
    assert adjusted.effects["length"].low > 0


@pytest.mark.parametrize("ties", [True, False])
def test_a_system_that_always_wins_is_said_to(ties: bool) -> None:
    votes = [v for v in _study(11) if ties or v.choice]
    votes = [replace(v, choice=-1) if v.left == "a" else v for v in votes]
    votes = [replace(v, choice=1) if v.right == "a" else v for v in votes]
    fit = strengths(votes, covariates=())
    assert fit.separated == ("a",)
    assert fit.strengths[0].system == "a"
    assert 2 < fit.strengths[0].value < 10
    assert all(math.isfinite(each.low + each.high) for each in fit.strengths)
    assert fit.strengths[0].low > fit.strengths[1].value
    # Said twice it is not said more surely.
    again = strengths(doubled(votes), covariates=())
    assert again.strengths[0].error >= fit.strengths[0].error * 0.9


def test_other_separations_are_named() -> None:
    votes = [replace(v, choice=0) for v in _study(12)]
    assert "tie" in strengths(votes, covariates=()).separated
    votes = [replace(v, choice=-1 if v.left_length > v.right_length else 1) for v in votes]
    votes = [v for v in votes if v.left_length != v.right_length]
    assert strengths(votes).separated == ("length",)
    votes = [replace(v, choice=-1) for v in votes]
    assert strengths(votes, covariates=["side"]).separated == ("side",)


def test_covariates_that_tell_nothing_are_left_out_and_named() -> None:
    votes = [v for v in _study(13) if "c" not in (v.left, v.right)]
    votes = [v if v.left == "a" else mirrored(v) for v in votes]
    votes = [replace(v, left_markdown=0, right_markdown=0) for v in votes]
    fit = strengths(votes)
    assert fit.left_out == ("side", "markdown")
    assert set(fit.effects) == {"length"}


def test_items_that_are_all_alike_still_leave_doubt() -> None:
    """Two annotators who always disagree: residuals by item are none."""
    votes = [
        Vote(f"i{i}", "coding", name, "a", "b", choice)
        for i in range(20)
        for name, choice in (("ann", 1), ("bea", -1))
    ]
    fit = strengths(votes, covariates=())
    # As twenty votes of which half are wins: the contrast's error is 2 / sqrt(20).
    assert 2 * fit.strengths[0].error == pytest.approx(2 / math.sqrt(20))


def test_what_cannot_be_fitted_is_said() -> None:
    votes = _study(14)
    with pytest.raises(UserError, match="covariate colour: unknown; there are side, length"):
        strengths(votes, covariates=["colour"])
    with pytest.raises(UserError, match="reference z: no vote on it; there are a, b, c"):
        strengths(votes, reference="z")
    with pytest.raises(UserError, match="at least two items"):
        strengths([v for v in votes if v.item == "i000"])
    apart = [Vote(f"i{i}", "coding", "ann", "x", "y", 1) for i in range(3)]
    with pytest.raises(UserError, match="a, b, c were never compared with x, y"):
        strengths(votes + apart)


def test_ranks_are_only_as_sure_as_differences() -> None:
    few, many = strengths(_study(15, items=4)), strengths(_study(15, items=300))
    assert [each.rank for each in many.strengths] == [1, 2, 3]
    assert [(each.best, each.worst) for each in many.strengths] == [(1, 1), (2, 2), (3, 3)]
    assert any(each.best < each.worst for each in few.strengths)
    for fit in (few, many):
        assert all(each.best <= each.rank <= each.worst for each in fit.strengths)


@pytest.mark.slow
def test_intervals_hold_the_truth_and_ranks_too() -> None:
    """By Davidson's law, sides favoured, with three votes on an item that copy one draw half of the
    time: the law of each vote is exact, and votes on an item are far from independent."""
    random = np.random.default_rng(16)
    truth = {"a": 0.4, "b": 0.0, "c": -0.4}
    held, ranks, runs = np.zeros(5), 0, 1000
    for _ in range(runs):
        votes = davidson(random, 60, 3, truth, side=0.3)
        for at in range(len(votes)):
            if at % 3 and random.random() < 0.5:
                votes[at] = replace(votes[at - at % 3], annotator=votes[at].annotator)
        fit = strengths(votes, covariates=["side"])
        assert fit.ties is not None
        found = {each.system: (each.low, each.high) for each in fit.strengths}
        bounds = [(*found[name], truth[name]) for name in truth]
        bounds += [(fit.effects["side"].low, fit.effects["side"].high, 0.3)]
        bounds += [(fit.ties.low, fit.ties.high, -0.7)]
        held += [low <= true <= high for low, high, true in bounds]
        order = {name: i for i, name in enumerate(truth, 1)}
        ranks += all(each.best <= order[each.system] <= each.worst for each in fit.strengths)
    assert held / runs == pytest.approx(0.95, abs=0.02)
    assert ranks / runs >= 0.95


@pytest.mark.slow
def test_equals_are_hardly_ever_put_in_order() -> None:
    """Four systems of one strength: in nineteen studies of twenty no two ranks are told apart, in
    spite of six comparisons."""
    random = np.random.default_rng(17)
    alone, runs = 0, 500
    for _ in range(runs):
        fit = strengths(davidson(random, 60, 1, dict.fromkeys("abcd", 0.0)), covariates=())
        alone += all((each.best, each.worst) == (1, 4) for each in fit.strengths)
    assert 0.93 <= alone / runs <= 0.98
