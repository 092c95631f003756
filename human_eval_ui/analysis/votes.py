"""One vote of a pairwise study, and how votes are read from rows. Knows nothing of statistics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from qwen_eval.errors import UserError
from qwen_eval.results import CLOSED, as_written

MOST = 2  # much better; 1: slightly; 0: a tie
Unit = tuple[str, str, str]
"""What is voted on: an item, and the two systems in alphabetical order."""


@dataclass(frozen=True)
class Vote:
    """An annotator's choice between two answers to an item.

    `left`, `right`: the systems whose answers stood there. `choice`: from -2, the left one is much
    better, to 2, the right one is. `both_bad` is said beside a choice, and changes none. `tags`:
    what was found fault with. `masked`: an answer named its maker, and the word was hidden from
    view. Lengths are in characters, markdown in elements (headings, list items, bold, code);
    `seconds`: from sight to choice.
    """

    __pydantic_config__: ClassVar = CLOSED

    item: str
    category: str
    annotator: str
    left: str
    right: str
    choice: int
    both_bad: bool = False
    tags: tuple[str, ...] = ()
    masked: bool = False
    left_length: int = 0
    right_length: int = 0
    left_markdown: int = 0
    right_markdown: int = 0
    seconds: float = 0.0

    @property
    def unit(self) -> Unit:
        """The item and its two systems, whichever side they stood on."""
        return self.item, min(self.left, self.right), max(self.left, self.right)

    def choice_for(self, system: str) -> int:
        """The choice as seen by one of the two: 2 where its answer is much better."""
        assert system in (self.left, self.right)
        return self.choice if system == self.right else -self.choice

    def outcome_for(self, system: str) -> int:
        """1 where the system won, 0 for a tie, -1 where it lost."""
        return sign(self.choice_for(system))


def sign(value: float) -> int:
    """-1, 0 or 1."""
    return (value > 0) - (value < 0)


def read_votes(
    rows: Iterable[Mapping[str, Any]], source: str = "votes", *, both_sides: bool = False
) -> list[Vote]:
    """Rows as votes; their keys are Vote's fields and no others. `both_sides`: whether an annotator
    may vote on a unit a second time with the sides exchanged, as judges do and controls.

    Raises UserError naming the source, the row (from 1) and the key at fault: an unknown key, a
    value of another kind or out of range, a system against itself, an item of two categories, or
    a second vote on the same.
    """
    votes: list[Vote] = []
    seen: dict[tuple[str, ...], int] = {}
    categories: dict[str, str] = {}
    for number, row in enumerate(rows, 1):
        try:
            vote = as_written(Vote, dict(row))
            _check(vote)
            if categories.setdefault(vote.item, vote.category) != vote.category:
                raise ValueError(f"category: {vote.item} was of {categories[vote.item]} before")
            sides = (vote.left, vote.right) if both_sides else ()
            first = seen.setdefault((*vote.unit, vote.annotator, *sides), number)
            if first != number:
                raise ValueError(f"annotator: {vote.annotator} voted on the same in row {first}")
        except ValueError as error:
            raise UserError(f"{source}, row {number}: {error}") from error
        votes.append(vote)
    return votes


def _check(vote: Vote) -> None:
    for key in ("item", "category", "annotator", "left", "right"):
        if not getattr(vote, key):
            raise ValueError(f"{key}: empty")
    if vote.left == vote.right:
        raise ValueError(f"right: {vote.right} stands on both sides")
    if abs(vote.choice) > MOST:
        raise ValueError(f"choice: {vote.choice} is not among -2, -1, 0, 1, 2")
    for key in ("left_length", "right_length", "left_markdown", "right_markdown", "seconds"):
        if getattr(vote, key) < 0:
            raise ValueError(f"{key}: below zero")


def between(votes: Iterable[Vote], system: str, baseline: str) -> list[Vote]:
    """The votes on these two systems."""
    return [vote for vote in votes if {vote.left, vote.right} == {system, baseline}]


def by_item(votes: Iterable[Vote]) -> dict[str, list[Vote]]:
    """The votes of each item, the items in order of their names: no result depends on the order
    that votes came in."""
    found: dict[str, list[Vote]] = {}
    for vote in votes:
        found.setdefault(vote.item, []).append(vote)
    return {item: found[item] for item in sorted(found)}


def outcomes_by_item(votes: Iterable[Vote], system: str) -> list[list[int]]:
    """Per item the outcomes of its votes for the system, in order of size."""
    return [sorted(v.outcome_for(system) for v in some) for some in by_item(votes).values()]


def majorities(votes: Iterable[Vote]) -> dict[Unit, int]:
    """Per unit what most votes say, as seen by its first system: 1 it won, -1 it lost, 0 where as
    many say the one as the other. Ties are votes for neither."""
    sums: dict[Unit, int] = {}
    for vote in votes:
        unit = vote.unit
        sums[unit] = sums.get(unit, 0) + vote.outcome_for(unit[1])
    return {unit: sign(sums[unit]) for unit in sorted(sums)}


def unmasked(votes: Sequence[Vote]) -> list[Vote]:
    """Those on answers that named no maker: how results stand without the others shows whether
    the blinding held."""
    return [vote for vote in votes if not vote.masked]
