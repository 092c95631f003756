"""What a study of so many items and votes can tell, before it begins and after it ended.

Votes on one item resemble each other: k votes with correlation r say as much as k / (1 + (k - 1) r)
independent ones (the design effect; Kish 1965, Survey Sampling, ch. 5). A vote counts -1, 0 or 1
for the net preference, and has the variance (1 - ties) - net^2. Fractions throughout: 0.1 of net
preference is ten points. Pure functions of numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from qwen_eval.stats import detectable_difference, items_needed

from .votes import Vote, outcomes_by_item


@dataclass(frozen=True)
class Plan:
    """What can be told. `effective`: how many independent votes all votes are worth. `net`: half
    the width of the interval around a net preference of zero; `win_rate`: the same for wins with
    half of the ties. `detectable`: the smallest net preference that is found with the power asked
    for, above 1 where none is."""

    items: int
    votes: float
    effective: float
    net: float
    win_rate: float
    detectable: float


def plan(
    items: int,
    votes: float = 1,
    *,
    ties: float = 0.2,
    correlation: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
) -> Plan:
    """Of `items` with `votes` each. `ties`: their share; `correlation`: of two votes on one item;
    `alpha`: of a two-sided test, and of the interval. ValueError for what is out of range."""
    if items < 1 or votes < 1:
        raise ValueError(f"a study has items and votes, not {items} and {votes}")
    _in_range(ties, correlation)
    effective = items * votes / design_effect(votes, correlation)
    half = NormalDist().inv_cdf(1 - alpha / 2) * math.sqrt((1 - ties) / effective)
    # A tenth of a vote is none: what can be told is rounded down.
    whole = math.floor(effective + 1e-9)
    detectable = detectable_difference(whole, 1 - ties, alpha=alpha / 2, power=power)
    return Plan(items, votes, effective, half, half / 2, detectable)


def items_for(
    net: float,
    votes: float = 1,
    *,
    ties: float = 0.2,
    correlation: float = 0.5,
    alpha: float = 0.05,
    power: float = 0.8,
) -> int:
    """The fewest items, with so many votes each, that show a net preference of `net`. Raises
    ValueError where it is not between 0 and the share of votes that decide."""
    _in_range(ties, correlation)
    independent = items_needed(net, 1 - ties, alpha=alpha / 2, power=power)
    return math.ceil(independent * design_effect(votes, correlation) / votes - 1e-9)


def _in_range(ties: float, correlation: float) -> None:
    if not (0 <= ties < 1 and 0 <= correlation <= 1):
        raise ValueError(f"ties of {ties} or a correlation of {correlation} are no shares")


def design_effect(votes: float, correlation: float) -> float:
    """By how much the variance exceeds that of as many independent votes."""
    return 1 + (votes - 1) * correlation


def effective_votes(counts: Sequence[int], correlation: float) -> float:
    """What all votes are worth, with so many on each item; the mean count that decides is the one
    that a vote sees (Kish)."""
    total = sum(counts)
    seen = sum(count * count for count in counts) / total
    return total / design_effect(seen, max(correlation, 0.0))


def correlation_within(votes: Iterable[Vote], system: str) -> float | None:
    """How much the outcomes (win 1, tie 0, lose -1) of two votes on one item are alike, estimated
    by analysis of variance (Donner and Koval 1980, Biometrics 36). None where no item has two
    votes, or all votes are one and the same."""
    outcomes = outcomes_by_item(votes, system)
    n, total = len(outcomes), sum(map(len, outcomes))
    if n < 2 or total == n:
        return None
    grand = fmean(x for some in outcomes for x in some)
    means = [fmean(some) for some in outcomes]
    between = sum(len(s) * (m - grand) ** 2 for s, m in zip(outcomes, means, strict=True)) / (n - 1)
    inside = sum((x - m) ** 2 for s, m in zip(outcomes, means, strict=True) for x in s)
    inside /= total - n
    usual = (total - sum(len(some) ** 2 for some in outcomes) / total) / (n - 1)
    spread = between + (usual - 1) * inside
    return (between - inside) / spread if spread else None
