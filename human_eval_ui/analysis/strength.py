"""One scale for all systems: Bradley and Terry's model with Davidson's ties, by maximum likelihood.

Where the left system is ahead by x on the scale of log-odds, the left answer wins with a weight of
exp(x / 2), the right one with exp(-x / 2), and a tie has the weight exp(t). x is the difference of
the two strengths, what the left side is worth, and covariates of style times their coefficients: a
strength is then what is left when both answers are of one length and one form. The likelihood is
concave, so Newton's method finds its one summit. Errors are robust to votes on an item resembling
each other in whatever way (the sandwich, by item).

Where a system (or side, or the longer answer) always wins, the likelihood has no summit: that is
found before, said, and a normal prior keeps all coefficients finite.

Knows nothing of how strong a choice was. Sources: Davidson (1970), J. Am. Stat. Assoc. 65; Liang
and Zeger (1986), Biometrika 73, errors; Gelman et al. (2008), Ann. Appl. Stat. 2, the prior's
scale; Klein, Wright and Wieczorek (2020), J. R. Stat. Soc. A 183, joint ranks; Dubois et al.
(2024), arXiv 2404.04475, length as a covariate.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from qwen_eval.errors import UserError
from qwen_eval.paired import Array, holm

from .separation import separating
from .votes import Vote, by_item

Indices = NDArray[np.intp]

COVARIATES = ("side", "length", "markdown")
PRIOR = 2.5  # standard deviation, of log-odds
TIE = "tie"
_LEFT, _RIGHT, _TIE = 0, 1, 2


@dataclass(frozen=True)
class Coefficient:
    """On the scale of log-odds, with the standard error; `p` is two-sided, against zero."""

    name: str
    value: float
    error: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Strength:
    """How far a system is ahead of the mean of all (or of the reference), in log-odds of a win over
    a loss. `rank` 1 is the strongest; `best`, `worst`: the ranks of all systems lie between theirs
    at once with the confidence asked for."""

    system: str
    value: float
    error: float
    low: float
    high: float
    rank: int
    best: int
    worst: int


@dataclass(frozen=True)
class Fit:
    """`strengths` by rank. `effects` by name: `side`, above zero where the left one is favoured;
    `length` and `markdown`, of one standard deviation more on one side. `ties`: log of the weight
    of a tie, None where there was none. `left_out`: covariates that never differ or that go with
    others. `separated`: what would be infinite without the prior (systems, covariates, tie)."""

    strengths: tuple[Strength, ...]
    effects: Mapping[str, Coefficient]
    ties: Coefficient | None
    left_out: tuple[str, ...]
    separated: tuple[str, ...]
    log_likelihood: float
    items: int
    votes: int

    def chances(self, system: str, other: str) -> tuple[float, float, float]:
        """Of a win, a tie and a loss against the other, style and side being equal."""
        at = {each.system: each.value for each in self.strengths}
        ahead = at[system] - at[other]
        tie = math.exp(self.ties.value) if self.ties else 0.0
        weights = (math.exp(ahead / 2), tie, math.exp(-ahead / 2))
        win, tied, lose = (weight / sum(weights) for weight in weights)
        return win, tied, lose


def strengths(
    votes: Sequence[Vote],
    *,
    covariates: Collection[str] = COVARIATES,
    reference: str | None = None,
    alpha: float = 0.05,
) -> Fit:
    """All systems of the votes on one scale. Differences of length and markdown are taken relative
    to their sums, (left - right) / (left + right), in units of their root mean square.

    Raises UserError where some systems were never compared with the others, even by way of a third,
    for an unknown covariate or reference, and for fewer than two items."""
    ordered = [v for some in by_item(votes).values() for v in sorted(some, key=repr)]
    systems = sorted({s for vote in ordered for s in (vote.left, vote.right)})
    items = np.unique([vote.item for vote in ordered], return_inverse=True)[1]
    _check(ordered, systems, covariates, reference)
    contrasts = _contrasts(len(systems))
    ahead, names, left_out = _ahead(ordered, systems, contrasts, covariates)
    chosen = np.array([{-1: _LEFT, 0: _TIE, 1: _RIGHT}[v.outcome_for(v.right)] for v in ordered])
    alternatives = _alternatives(ahead, bool((chosen == _TIE).any()))
    separated = _separated(alternatives, chosen, contrasts, (*systems, *names, TIE))
    prior = PRIOR**-2 if separated else 0.0
    values, likelihood = _summit(alternatives, chosen, prior)
    covariance = _covariance(alternatives, chosen, items, values, prior)
    freedom = int(items.max())  # one less than there are items
    count = len(systems) - 1
    others = {
        name: _coefficient(name, values[i], covariance[i, i], freedom, alpha)
        for i, name in enumerate((*names, TIE)[: len(values) - count], count)
    }
    # From contrasts to systems, each less the mean of all or the reference.
    shift = np.zeros((len(systems), len(systems)))
    if reference is not None:
        shift[:, systems.index(reference)] = 1.0
    to_systems = (np.eye(len(systems)) - shift) @ contrasts
    at = to_systems @ values[:count]
    spread = to_systems @ covariance[:count, :count] @ to_systems.T
    return Fit(
        strengths=_ranked(systems, at, spread, freedom, alpha),
        ties=others.pop(TIE, None),
        effects=others,
        left_out=left_out,
        separated=separated,
        log_likelihood=likelihood,
        items=freedom + 1,
        votes=len(ordered),
    )


def _check(
    votes: Sequence[Vote],
    systems: Sequence[str],
    covariates: Collection[str],
    reference: str | None,
) -> None:
    if unknown := set(covariates) - set(COVARIATES):
        raise UserError(f"covariate {min(unknown)}: unknown; there are {', '.join(COVARIATES)}")
    if len({vote.item for vote in votes}) < 2:
        raise UserError("strengths need votes on at least two items")
    if reference is not None and reference not in systems:
        raise UserError(f"reference {reference}: no vote on it; there are {', '.join(systems)}")
    reached = {systems[0]}
    while more := {
        system
        for vote in votes
        for system in (vote.left, vote.right)
        if {vote.left, vote.right} & reached and system not in reached
    }:
        reached |= more
    if apart := [system for system in systems if system not in reached]:
        raise UserError(
            f"{', '.join(sorted(reached))} were never compared with {', '.join(apart)}: "
            "have votes between them, or fit them apart"
        )


def _contrasts(count: int) -> Array:
    """Systems × (systems - 1): orthonormal, and every column sums to zero."""
    from scipy.linalg import helmert

    found: Array = helmert(count).T
    return found


def _ahead(
    votes: Sequence[Vote], systems: Sequence[str], contrasts: Array, covariates: Collection[str]
) -> tuple[Array, tuple[str, ...], tuple[str, ...]]:
    """What says how far the left one is ahead: a line per vote, the systems' contrasts first. Then
    the names of the covariates in it, and of those that add nothing to what is there."""
    index = {system: i for i, system in enumerate(systems)}
    sides = [(index[vote.left], index[vote.right]) for vote in votes]
    columns = contrasts[[left for left, _ in sides]] - contrasts[[right for _, right in sides]]
    kept, left_out = [], []
    for name in (name for name in COVARIATES if name in covariates):
        column = _covariate(name, votes)
        wider = np.column_stack([columns, column])
        if np.linalg.matrix_rank(wider) == wider.shape[1]:
            columns = wider
            kept.append(name)
        else:
            left_out.append(name)
    return columns, tuple(kept), tuple(left_out)


def _covariate(name: str, votes: Sequence[Vote]) -> Array:
    if name == "side":
        return np.ones(len(votes))
    pairs = [(getattr(v, f"left_{name}"), getattr(v, f"right_{name}")) for v in votes]
    column = np.array([(a - b) / (a + b) if a + b else 0.0 for a, b in pairs])
    # Not centred, so that exchanged sides exchange the sign.
    return column / (math.sqrt(float(column @ column) / len(column)) or 1.0)


def _alternatives(ahead: Array, ties: bool) -> Array:
    """Votes × alternatives (left, right, and tie where there are any) × coefficients: what each
    alternative's log-weight is made of."""
    if not ties:
        return np.stack([ahead / 2, -ahead / 2], axis=1)
    found = np.zeros((len(ahead), 3, ahead.shape[1] + 1))
    found[:, _LEFT, :-1], found[:, _RIGHT, :-1] = ahead / 2, -ahead / 2
    found[:, _TIE, -1] = 1.0
    return found


def _state(alternatives: Array, chosen: Indices, values: Array) -> tuple[Array, Array, Array]:
    """Per vote: the log-likelihood, its gradient, and the information (minus its second
    derivative)."""
    weights = alternatives @ values
    weights -= weights.max(axis=1, keepdims=True)
    chances = np.exp(weights)
    chances /= chances.sum(axis=1, keepdims=True)
    rows = np.arange(len(chosen))
    mean = np.einsum("va,vap->vp", chances, alternatives)
    off = alternatives - mean[:, None]
    information = np.einsum("va,vap,vaq->vpq", chances, off, off)
    return np.log(chances[rows, chosen]), alternatives[rows, chosen] - mean, information


def _summit(alternatives: Array, chosen: Indices, prior: float) -> tuple[Array, float]:
    """Newton's method, with steps halved until they climb."""
    values = np.zeros(alternatives.shape[2])

    def height(at: Array) -> float:
        return float(_state(alternatives, chosen, at)[0].sum() - prior / 2 * at @ at)

    for _ in range(100):
        _, gradients, information = _state(alternatives, chosen, values)
        slope = gradients.sum(axis=0) - prior * values
        step = np.linalg.solve(information.sum(axis=0) + prior * np.eye(len(values)), slope)
        here, size = height(values), 1.0
        while height(values + size * step) < here and size > 1e-6:
            size /= 2
        values = values + size * step
        if float(slope @ step) < 1e-14 * len(chosen):
            break
    return values, float(_state(alternatives, chosen, values)[0].sum())


def _covariance(
    alternatives: Array, chosen: Indices, items: Indices, values: Array, prior: float
) -> Array:
    """The sandwich by item. Where items are fewer than coefficients, or too much alike for their
    residuals to say how they spread (with a prior they always are): the inverse of the information,
    an item counting as one vote."""
    _, gradients, information = _state(alternatives, chosen, values)
    counts = np.bincount(items)
    sums = np.zeros((len(counts), len(values)))
    np.add.at(sums, items, gradients)
    meat = len(counts) / (len(counts) - 1) * sums.T @ sums
    total = information.sum(axis=0)
    least = 1e-9 * float(np.trace(total))
    if prior or np.linalg.matrix_rank(meat, tol=least, hermitian=True) < len(values):
        each = np.einsum("v,vpq->pq", 1 / counts[items], information)
        found: Array = np.linalg.inv(each + prior * np.eye(len(values)))
        return found
    bread = np.linalg.inv(total)
    return bread @ meat @ bread


def _separated(
    alternatives: Array, chosen: Indices, contrasts: Array, names: Sequence[str]
) -> tuple[str, ...]:
    """Names, systems first, of what the likelihood would make infinite."""
    count = len(contrasts) - 1
    by_system = alternatives[:, :, :count] @ contrasts.T
    named = np.concatenate([by_system, alternatives[:, :, count:]], axis=2)
    direction = separating(named, chosen)
    if direction is None:
        return ()
    return tuple(name for name, by in zip(names, direction, strict=False) if abs(by) > 1e-6)


def _coefficient(
    name: str, value: float, variance: float, freedom: int, alpha: float
) -> Coefficient:
    from scipy.special import stdtr, stdtrit

    error = math.sqrt(variance)
    half = float(stdtrit(freedom, 1 - alpha / 2)) * error
    p = 2 * float(stdtr(freedom, -abs(value) / error))
    return Coefficient(name, float(value), error, float(value) - half, float(value) + half, p)


def _ranked(
    systems: Sequence[str], at: Array, spread: Array, freedom: int, alpha: float
) -> tuple[Strength, ...]:
    """Two systems are in order where their difference is, by Holm over all pairs; a system's best
    rank is behind all that are surely ahead of it, its worst before all that are surely behind."""
    pairs = list(combinations(range(len(systems)), 2))
    tests = []
    for i, j in pairs:
        variance = float(spread[i, i] + spread[j, j] - 2 * spread[i, j])
        tests.append(_coefficient("", at[i] - at[j], variance, freedom, alpha).p)
    ahead, behind = [0] * len(systems), [0] * len(systems)
    for (i, j), p in zip(pairs, holm(tests), strict=True):
        if p <= alpha:
            better, worse = (i, j) if at[i] > at[j] else (j, i)
            ahead[worse] += 1
            behind[better] += 1
    found = []
    for rank, i in enumerate(sorted(range(len(systems)), key=lambda i: -at[i]), 1):
        error = math.sqrt(max(float(spread[i, i]), 0.0))
        # Nothing is uncertain of the reference itself.
        one = _coefficient("", at[i], error**2, freedom, alpha) if error else None
        low, high = (one.low, one.high) if one else (0.0, 0.0)
        best, worst = 1 + ahead[i], len(systems) - behind[i]
        found.append(Strength(systems[i], float(at[i]), error, low, high, rank, best, worst))
    return tuple(found)
