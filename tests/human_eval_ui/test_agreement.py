"""Alpha against two packages, position bias against brute force, and by simulation."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.human_eval_ui.analysis.agreement import annotators, krippendorff, position_bias
from qwen_eval.human_eval_ui.analysis.votes import Vote
from tests.human_eval_ui.studies import copied, davidson, doubled, mirrored

Level = Literal["nominal", "ordinal"]


def _study(table: Any) -> list[Vote]:
    """Annotators × items of choices for `new`; NaN where there was no vote."""
    return [
        Vote(f"i{i}", "coding", f"a{k}", "old", "new", int(choice))
        for k, row in enumerate(table)
        for i, choice in enumerate(row)
        if not np.isnan(choice)
    ]


def _table(seed: int, spread: float = 1.0) -> Any:
    random = np.random.default_rng(seed)
    table = np.clip(np.round(random.normal(0, 1, 30) + random.normal(0, spread, (4, 30))), -2, 2)
    return np.where(random.random(table.shape) < 0.3, np.nan, table)


@pytest.mark.parametrize("seed", range(4))
def test_alpha_is_that_of_krippendorff_and_evalica(seed: int) -> None:
    import evalica
    import krippendorff as package
    import pandas as pd

    table = _table(seed)
    for level, values in (("nominal", np.sign(table)), ("ordinal", table)):
        ours = krippendorff(_study(table), level, baseline="old")  # type: ignore[arg-type]
        assert ours is not None
        theirs = package.alpha(values, level_of_measurement=level)
        assert ours.value == pytest.approx(theirs)
        frame = pd.DataFrame(values)
        assert ours.value == pytest.approx(evalica.alpha(frame, level).alpha)
        assert ours.low < ours.value < ours.high


def test_the_interval_is_a_bootstrap_of_items() -> None:
    """By hand with the package: columns drawn anew."""
    import krippendorff as package

    table = _table(5)
    table = table[:, (~np.isnan(table)).sum(axis=0) > 1]
    ours = krippendorff(_study(table), "ordinal", baseline="old")
    assert ours is not None
    random = np.random.default_rng(6)
    drawn = [
        package.alpha(
            table[:, random.integers(0, table.shape[1], table.shape[1])],
            level_of_measurement="ordinal",
        )
        for _ in range(1500)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975))
    assert (ours.low, ours.high) == pytest.approx((low, high), abs=0.06 * (high - low))


def test_two_pairs_of_an_item_are_drawn_together() -> None:
    """Two pairs that say the same twice give the interval of one."""
    votes = _study(_table(7))
    more = [replace(v, left="third" if v.left == "old" else v.left) for v in votes]
    once = krippendorff(votes, "ordinal", baseline="old")
    twice = krippendorff([*votes, *more], "ordinal", baseline="old")
    assert once is not None
    assert twice is not None
    assert twice.value == pytest.approx(once.value, abs=0.02)
    assert twice.high - twice.low == pytest.approx(once.high - once.low, rel=0.03)


def test_alpha_says_nothing_where_there_is_nothing_to_say() -> None:
    for level in ("nominal", "ordinal"):
        assert krippendorff([], level) is None
        assert krippendorff(_study([[1, 2, -1]]), level) is None
        assert krippendorff(_study([[1, 1], [1, 1]]), level) is None


def test_the_levels_see_what_they_are_of() -> None:
    """Much better and slightly better are one outcome, and not one choice."""
    votes = _study([[2, -1, 1, -2], [1, -2, 2, -1]])
    nominal, ordinal = (krippendorff(votes, level) for level in ("nominal", "ordinal"))
    assert nominal is not None
    assert ordinal is not None
    assert nominal.value == 1.0
    assert 0.3 < ordinal.value < 0.9


@settings(max_examples=10)
@given(seed=st.integers(0, 1000))
def test_sides_order_and_view_change_nothing(seed: int) -> None:
    random = np.random.default_rng(seed)
    votes = _study(_table(seed))
    shuffled = [votes[i] for i in random.permutation(len(votes))]
    turned = [mirrored(v) if random.random() < 0.5 else v for v in shuffled]
    for level in ("nominal", "ordinal"):
        found = krippendorff(votes, level)
        assert krippendorff(turned, level) == found
        other = krippendorff(votes, level, baseline="new")
        assert found is not None
        assert other is not None
        assert other.value == pytest.approx(found.value)
    both = votes + turned
    one, other_way = position_bias(both), position_bias([mirrored(v) for v in both])
    assert one is not None
    assert other_way is not None
    assert other_way.left.value == pytest.approx(-one.left.value)
    assert annotators(shuffled) == annotators(votes)


def test_each_annotator_beside_the_rest() -> None:
    import krippendorff as package

    table = _table(8, spread=0.4)
    table[3] = np.random.default_rng(9).integers(-2, 3, 30)  # votes at random
    votes = [replace(v, seconds=float(20 + 5 * int(v.annotator[1]))) for v in _study(table)]
    found = annotators(votes, baseline="old")
    assert [each.name for each in found] == ["a0", "a1", "a2", "a3"]
    for k, each in enumerate(found):
        rest = np.delete(table, k, axis=0)
        theirs = package.alpha(rest, level_of_measurement="ordinal")
        assert each.without == pytest.approx(theirs)
        same = [
            np.sign(table[k, i]) == np.sign(other[i])
            for other in rest
            for i in range(30)
            if not np.isnan(table[k, i] + other[i])
        ]
        assert each.agreement == pytest.approx(np.mean(same))
        assert each.votes == (~np.isnan(table[k])).sum()
        assert each.seconds == 20 + 5 * k
    assert max(found, key=lambda each: each.without or 0).name == "a3"
    assert min(found, key=lambda each: each.agreement or 0).name == "a3"


def test_repeats_with_sides_exchanged_tell_consistency() -> None:
    votes = _study([[1, -2, 0]])
    again = [mirrored(votes[0]), replace(mirrored(votes[1]), choice=-1)]
    (found,) = annotators([*votes, *again])
    assert (found.repeats, found.consistent) == (2, 1)
    assert found.agreement is None
    assert found.without is None
    # With oneself there is no agreement.
    assert krippendorff([*votes, *again], "nominal") is None


def test_position_bias_is_told_from_the_better_system() -> None:
    """`new` wins always and stands mostly left: no side is favoured."""
    votes = [
        Vote(f"i{i}", "coding", "ann", *(("new", "old", -1) if i % 4 else ("old", "new", 1)))
        for i in range(40)
    ]
    found = position_bias(votes)
    assert found is not None
    assert (found.left.value, found.left.low, found.left.high) == (0, 0, 0)
    one_sided = [Vote("i1", "coding", "ann", "third", "old", -1)]
    more = position_bias(votes + one_sided)
    assert more is not None
    assert (more.left, more.votes, more.one_sided) == (found.left, 40, 1)
    assert position_bias(one_sided) is None


def test_position_bias_is_the_mean_over_sides_by_hand() -> None:
    votes = davidson(np.random.default_rng(10), 50, 2, {"a": 0.5, "b": 0.0, "c": -0.2}, side=0.8)
    found = position_bias(votes)
    assert found is not None
    total = 0.0
    for one, other in combinations("abc", 2):
        sides = [
            [-np.sign(v.choice) for v in votes if (v.left, v.right) == pair]
            for pair in ((one, other), (other, one))
        ]
        total += sum(map(len, sides)) * (np.mean(sides[0]) + np.mean(sides[1])) / 2
    assert found.left.value == pytest.approx(total / len(votes))
    assert found.left.low > 0.1


def test_pairs_that_hang_on_one_item_do_not_undo_the_interval() -> None:
    """Eight pairs, each with one item of either side: hardly any resample has all of them."""
    votes = [
        Vote(f"i{n}", "coding", "ann", *sides, choice)
        for n, sides in enumerate(
            sides for k in range(8) for sides in ((f"s{k}", "old"), ("old", f"s{k}"))
        )
        for choice in [-1 if n % 3 else 1]
    ]
    found = position_bias(votes)
    assert found is not None
    assert found.left.value == pytest.approx(sum(-v.choice for v in votes) / len(votes))
    assert -1 <= found.left.low < found.left.value < found.left.high <= 1


def test_who_says_the_same_again_makes_no_bias_surer() -> None:
    votes = copied(np.random.default_rng(11), 40, 2, (0.3, 0.2, 0.5), 0.5)
    once, twice = position_bias(votes), position_bias(doubled(votes))
    assert once is not None
    assert twice is not None
    for name in ("value", "low", "high"):
        assert getattr(twice.left, name) == pytest.approx(getattr(once.left, name))


@pytest.mark.slow
def test_the_intervals_hold_the_truth() -> None:
    """Two annotators who copy one draw of the item with a known chance: that is the nominal alpha
    of endless items. Sides are exchanged at random, so there is no bias."""
    random = np.random.default_rng(12)
    held, runs = np.zeros(2), 500
    for _ in range(runs):
        votes = copied(random, 60, 2, (0.3, 0.3, 0.4), 0.5)
        alpha, bias = krippendorff(votes, "nominal"), position_bias(votes)
        assert alpha is not None
        assert bias is not None
        held += [alpha.low <= 0.5 <= alpha.high, bias.left.low <= 0 <= bias.left.high]
    assert held / runs == pytest.approx(0.95, abs=0.02)
