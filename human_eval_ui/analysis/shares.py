"""Win, tie and lose of each system against a baseline, by category and overall.

All votes are pooled, as in the paper's Figure 4 (300 instructions times three annotators; it gives
no intervals). The interval of a share is Wilson's for as many votes as the clustered votes are
worth (Korn and Graubard 1998, Survey Methodology 24; Dean and Pagano 2015, J. Surv. Stat. Methodol.
3), that of the net preference, wins minus losses, a bootstrap over items which keeps all votes of
an item together; its test flips the signs of whole items. Knows nothing of how strong a choice was.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from qwen_eval.paired import FEW_CLUSTERS, Array, Paired, difference, holm, mcnemar
from qwen_eval.stats import detectable_difference, wilson_interval

from .power import correlation_within, effective_votes
from .resampling import Estimate
from .votes import Vote, between, outcomes_by_item, sign

COARSE = 0.3  # an interval of net preference that reaches farther from its middle tells little


@dataclass(frozen=True)
class Shares:
    """A system against the baseline; fractions of votes.

    `category` is None for all of them. `effective`: how many independent votes the votes are worth.
    `net`: win minus lose over items, whose `p` is two-sided; `p_adjusted` is Holm's over the
    categories of the system. `items_won`, `items_tied`, `items_lost` count what most votes of an
    item say, and `p_items` is the sign test of these. `detectable`: the net preference that as many
    votes, so much alike, find four times in five. `few`: too few items, or too wide an interval,
    for a conclusion. `both_bad`, `masked`: shares of votes with these marks.
    """

    system: str
    baseline: str
    category: str | None
    items: int
    votes: int
    effective: float
    win: Estimate
    tie: Estimate
    lose: Estimate
    net: Paired
    p_adjusted: float
    items_won: int
    items_tied: int
    items_lost: int
    p_items: float
    detectable: float
    few: bool
    both_bad: float
    masked: float


def shares(
    votes: Sequence[Vote], baseline: str, *, alpha: float = 0.05, seed: int = 0
) -> list[Shares]:
    """Every system that was compared with the baseline, by name: overall first, then by category.
    Votes between other systems take no part. Empty where the baseline has no votes."""
    found = []
    for system in sorted({s for vote in votes for s in (vote.left, vote.right)} - {baseline}):
        own = between(votes, system, baseline)
        if not own:
            continue
        found.append(_shares(own, system, baseline, None, alpha, seed))
        categories = sorted({vote.category for vote in own})
        parts = [
            _shares([v for v in own if v.category == c], system, baseline, c, alpha, seed)
            for c in categories
        ]
        adjusted = holm([part.net.p for part in parts])
        found += [replace(part, p_adjusted=p) for part, p in zip(parts, adjusted, strict=True)]
    return found


def net_without_each(votes: Sequence[Vote], system: str, baseline: str) -> dict[str, float]:
    """By annotator, the net preference for the system without that annotator's votes; those who
    voted alone are not named."""
    own = between(votes, system, baseline)
    found = {}
    for annotator in sorted({vote.annotator for vote in own}):
        rest = [vote.outcome_for(system) for vote in own if vote.annotator != annotator]
        if rest:
            found[annotator] = sum(rest) / len(rest)
    return found


def _shares(
    votes: Sequence[Vote], system: str, baseline: str, category: str | None, alpha: float, seed: int
) -> Shares:
    outcomes = outcomes_by_item(votes, system)
    counts = np.array([len(some) for some in outcomes], dtype=np.float64)
    win, tie, lose = (
        clustered_share(np.array([some.count(kind) for some in outcomes]), counts, alpha)
        for kind in (1, 0, -1)
    )
    net = _net(outcomes, win, lose, alpha, seed)
    correlation = correlation_within(votes, system)
    # Where nothing shows how much votes on an item resemble each other, they are one.
    effective = effective_votes(
        [len(some) for some in outcomes], 1.0 if correlation is None else correlation
    )
    majorities = [sign(sum(some)) for some in outcomes]
    lost, won = majorities.count(-1), majorities.count(1)
    decided = (sum(outcome != 0 for some in outcomes for outcome in some) + 1) / (len(votes) + 1)
    return Shares(
        system=system,
        baseline=baseline,
        category=category,
        items=len(outcomes),
        votes=len(votes),
        effective=effective,
        win=win,
        tie=tie,
        lose=lose,
        net=net,
        p_adjusted=net.p,
        items_won=won,
        items_tied=majorities.count(0),
        items_lost=lost,
        p_items=min(1.0, 2 * min(mcnemar(lost, won))),
        detectable=detectable_difference(max(int(effective), 1), decided, alpha=alpha / 2),
        few=len(outcomes) < FEW_CLUSTERS or (net.high - net.low) / 2 > COARSE,
        both_bad=sum(vote.both_bad for vote in votes) / len(votes),
        masked=sum(vote.masked for vote in votes) / len(votes),
    )


def clustered_share(hits: Array, counts: Array, alpha: float = 0.05) -> Estimate:
    """The share of all votes that are hits, both counted by item.

    Wilson's interval for the number of independent votes that would have the variance seen between
    items, made smaller by the square of normal over Student's quantile, as that variance is an
    estimate itself. Where items show no variance there are as many independent votes as items, and
    never more than votes.
    """
    from scipy.special import stdtrit

    n, total = len(counts), float(counts.sum())
    share = float(hits.sum()) / total
    if n == 1:
        return Estimate(share, 0.0, 1.0)
    residuals = hits - share * counts
    variance = n / (n - 1) * float(residuals @ residuals) / total**2
    worth = min(share * (1 - share) / variance, total) if variance > 1e-12 else float(n)
    student = float(stdtrit(n - 1, 1 - alpha / 2))
    worth *= (NormalDist().inv_cdf(1 - alpha / 2) / student) ** 2
    worth = max(worth, 1.0)
    return Estimate(share, *wilson_interval(share * worth, worth, 1 - alpha))


def _net(
    outcomes: Sequence[Sequence[int]], win: Estimate, lose: Estimate, alpha: float, seed: int
) -> Paired:
    """An item weighs as much as it has votes, so the mean is over votes, and items are drawn."""
    means = [sum(some) / len(some) for some in outcomes]
    weights = [float(len(some)) for some in outcomes]
    found = difference([0.0] * len(means), means, weights=weights, alpha=alpha, seed=seed)
    if not math.isclose(found.low, found.high):
        return found
    # All items say the same, and resampling shows no doubt; the shares' intervals do.
    low, high = max(-1.0, win.low - lose.high), min(1.0, win.high - lose.low)
    return replace(found, low=low, high=high, lower=low, upper=high, method="bounds of the shares")
