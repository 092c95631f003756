"""Rows become votes, or one line says what is wrong with which."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.analysis.votes import between, majorities, read_votes, unmasked
from tests.human_eval_ui.studies import mirrored

ROW = {
    "item": "k001",
    "category": "knowledge",
    "annotator": "ann",
    "left": "a",
    "right": "b",
    "choice": -2,
    "tags": ["事实错误"],
    "left_length": 300,
    "seconds": 41.5,
}


def test_a_row_is_a_vote() -> None:
    (vote,) = read_votes([ROW])
    assert (vote.choice, vote.tags, vote.left_length, vote.right_length) == (
        -2,
        ("事实错误",),
        300,
        0,
    )
    assert (vote.choice_for("a"), vote.choice_for("b")) == (2, -2)
    assert (vote.outcome_for("a"), vote.outcome_for("b")) == (1, -1)
    assert vote.unit == mirrored(vote).unit == ("k001", "a", "b")
    assert mirrored(vote).outcome_for("a") == 1


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"colour": 1}, "colour"),
        ({"choice": 3}, "choice: 3 is not among"),
        ({"choice": "much"}, "choice"),
        ({"choice": 0.5}, "choice"),
        ({"right": "a"}, "right: a stands on both sides"),
        ({"item": ""}, "item: empty"),
        ({"annotator": None}, "annotator"),
        ({"left_length": -1}, "left_length: below zero"),
        ({"seconds": float("nan")}, "seconds"),
    ],
)
def test_a_fault_is_named_with_its_row(change: dict[str, Any], fault: str) -> None:
    good = ROW | {"item": "k002"}
    with pytest.raises(UserError, match=f"export.jsonl, row 2: {fault}") as caught:
        read_votes([good, ROW | change], "export.jsonl")
    assert "\n" not in str(caught.value)


def test_a_key_that_is_missing_is_named() -> None:
    with pytest.raises(UserError, match="row 1: choice"):
        read_votes([{key: value for key, value in ROW.items() if key != "choice"}])


def test_an_item_has_one_category() -> None:
    other = ROW | {"annotator": "bea", "category": "coding"}
    with pytest.raises(UserError, match="row 2: category: k001 was of knowledge before"):
        read_votes([ROW, other])


def test_an_annotator_votes_once_on_a_unit_unless_sides_are_exchanged() -> None:
    exchanged = ROW | {"left": "b", "right": "a", "choice": 2}
    with pytest.raises(UserError, match="row 2: annotator: ann voted on the same in row 1"):
        read_votes([ROW, exchanged])
    assert len(read_votes([ROW, exchanged], both_sides=True)) == 2
    with pytest.raises(UserError, match="row 3: annotator: ann voted on the same in row 2"):
        read_votes([ROW, exchanged, exchanged], both_sides=True)


def test_majorities_and_parts() -> None:
    said = {"ann": -2, "bea": 0, "cem": 1, "dee": -1}
    votes = read_votes([ROW | {"annotator": name, "choice": c} for name, c in said.items()])
    assert majorities(votes) == {("k001", "a", "b"): 1}
    assert majorities([mirrored(vote) for vote in votes]) == {("k001", "a", "b"): 1}
    assert majorities(votes[:3]) == {("k001", "a", "b"): 0}
    assert between(votes, "b", "a") == votes
    assert between(votes, "b", "c") == []
    hidden = read_votes([ROW, ROW | {"annotator": "bea", "masked": True}])
    assert unmasked(hidden) == hidden[:1]
