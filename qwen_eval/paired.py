"""What can be said of candidate minus baseline over the same items. Pure functions of numbers.

Zeros and ones: McNemar's exact test, and an interval for the difference of two dependent
proportions. Other scores: a bootstrap of the mean difference, and a test by flipping signs. Items
that come in clusters (subject, passage): the cluster is the unit of both. Items of different weight
(a text's bytes): the mean is a ratio of sums. Randomness is seeded.

Sources: McNemar (1947); Agresti and Min (2005), Stat. Med. 24(5), the adjusted Wald interval;
Efron (1987), J. Am. Stat. Assoc. 82, BCa; Cochran (1977), Sampling Techniques, ch. 6, ratios;
Miller (2024), arXiv 2411.00640, clusters; Holm (1979); Benjamini and Hochberg (1995).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 10_000
FEW_CLUSTERS = 30  # fewer, and Student's t is too sure of a small p
_CHUNK = 2_000_000  # random figures held at a time


@dataclass(frozen=True)
class Paired:
    """Candidate minus baseline.

    `low`, `high`: two-sided interval at 1 - alpha. `lower`, `upper`: each one-sided at alpha.
    `p_drop`, `p_gain`: one-sided; how surprising the drop or gain would be between equals.
    `clusters`: how many units, where items are not the units.
    """

    n: int
    delta: float
    error: float
    low: float
    high: float
    lower: float
    upper: float
    p_drop: float
    p_gain: float
    method: str
    clusters: int | None = None

    @property
    def p(self) -> float:
        """Two-sided."""
        return min(1.0, 2 * min(self.p_drop, self.p_gain))


def difference(
    baseline: Sequence[float],
    candidate: Sequence[float],
    clusters: Sequence[str] | None = None,
    *,
    weights: Sequence[float] | None = None,
    alpha: float = 0.05,
    seed: int = 0,
    flips: int = RESAMPLES,
) -> Paired:
    """Compare two scores of each item. `clusters` names the group of each; groups count where
    there are at least two and one holds several items. `weights`: what each item weighs in the
    means, such as its bytes; the difference is then one of two ratios with the same denominator.
    `flips`: how many ways of flipping signs are drawn; 2 / flips is the smallest two-sided p.
    Raises ValueError for no items."""
    if not baseline:
        raise ValueError("a comparison needs at least one item")
    a, b = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    assert a.shape == b.shape
    d = b - a
    w = np.ones(len(d)) if weights is None else np.asarray(weights, dtype=np.float64)
    w = w / w.mean()  # so that they sum to the number of items
    binary = bool(np.isin(a, (0.0, 1.0)).all() and np.isin(b, (0.0, 1.0)).all())
    groups = set(clusters or ())
    if 1 < len(groups) < len(d) and d.any():
        assert clusters is not None
        return _clustered(d, w, clusters, alpha, seed, flips)
    if binary and weights is None:
        return _proportions(int((d < 0).sum()), int((d > 0).sum()), len(d), alpha)
    return _bootstrapped(d, w, alpha, seed, flips)


def mcnemar(lost: int, gained: int) -> tuple[float, float]:
    """Exact one-sided p-values of a drop and of a gain, from the items that changed sides."""
    from scipy.special import bdtr

    changed = lost + gained
    if not changed:
        return 1.0, 1.0
    return float(bdtr(gained, changed, 0.5)), float(bdtr(lost, changed, 0.5))


def sign_flips(sums: Array, seed: int = 0, draws: int = RESAMPLES) -> tuple[float, float]:
    """One-sided p-values of a drop and of a gain in the sum, among equals whose units could as
    well have come out with the other sign; all ways of flipping where there are few, else so many
    draws."""
    units = sums[sums != 0]
    if not len(units):
        return 1.0, 1.0
    total, slack = units.sum(), 1e-12 * np.abs(units).sum()
    if len(units) <= 13:
        ways = np.arange(2 ** len(units))[:, None] >> np.arange(len(units)) & 1
        flipped = (1 - 2 * ways) @ units
        return float((flipped <= total + slack).mean()), float((flipped >= total - slack).mean())
    random = np.random.default_rng(seed)
    at_most = at_least = 1  # what was seen is one of the ways
    left = draws - 1
    while left:
        rows = min(left, max(_CHUNK // len(units), 1))
        flipped = (1 - 2 * random.integers(0, 2, (rows, len(units)), dtype=np.int8)) @ units
        at_most += int((flipped <= total + slack).sum())
        at_least += int((flipped >= total - slack).sum())
        left -= rows
    return at_most / draws, at_least / draws


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the chance of any false alarm at the level they are held to."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, so_far = [0.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        so_far = max(so_far, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = so_far
    return adjusted


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that keep the share of false alarms among all alarms."""
    order = sorted(range(len(p_values)), key=lambda i: -p_values[i])
    adjusted, so_far = [0.0] * len(p_values), 1.0
    for rank, i in enumerate(order):
        so_far = min(so_far, p_values[i] * len(order) / (len(order) - rank))
        adjusted[i] = so_far
    return adjusted


def _proportions(lost: int, gained: int, n: int, alpha: float) -> Paired:
    # Half an imagined item in each cell of the table keeps small counts honest.
    down, up = (lost + 0.5) / (n + 2), (gained + 0.5) / (n + 2)
    error = math.sqrt((down + up - (up - down) ** 2) / (n + 2))
    around = _around(up - down, error, NormalDist().inv_cdf, alpha)
    low, high, lower, upper = (min(1.0, max(-1.0, bound)) for bound in around)
    drop, gain = mcnemar(lost, gained)
    delta = (gained - lost) / n
    return Paired(n, delta, error, low, high, lower, upper, drop, gain, "exact McNemar")


def _clustered(
    d: Array, w: Array, clusters: Sequence[str], alpha: float, seed: int, flips: int
) -> Paired:
    from scipy.special import stdtr, stdtrit

    names, at = np.unique(np.asarray(clusters), return_inverse=True)
    groups, n, mean = len(names), len(d), float((w * d).mean())
    sums = np.bincount(at, weights=w * d).astype(np.float64)
    residuals = np.bincount(at, weights=w * (d - mean))
    error = math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / n
    freedom = groups - 1
    bounds = _around(mean, error, lambda p: float(stdtrit(freedom, p)), alpha)
    if groups < FEW_CLUSTERS or not error:
        drop, gain = sign_flips(sums, seed, flips)
    else:
        drop = float(stdtr(freedom, mean / error))
        gain = 1.0 - drop
    return Paired(n, mean, error, *bounds, drop, gain, "clustered", groups)


def _bootstrapped(d: Array, w: Array, alpha: float, seed: int, flips: int) -> Paired:
    """BCa over the mean; its acceleration has a closed form there. With weights the mean is a ratio
    of sums: items are drawn with their weights, and `centred` is its influence function."""
    n, mean = len(d), float((w * d).mean())
    centred = w * (d - mean)
    spread = float(centred @ centred)
    drop, gain = sign_flips(w * d, seed, flips)
    if not spread:
        return Paired(n, mean, 0.0, mean, mean, mean, mean, drop, gain, "bootstrap")
    means = _resampled_means(d, w, seed)
    below = ((means < mean).sum() + (means == mean).sum() / 2) / RESAMPLES
    normal = NormalDist()
    bias = normal.inv_cdf(min(max(float(below), 0.5 / RESAMPLES), 1 - 0.5 / RESAMPLES))
    skew = float((centred**3).sum()) / (6 * spread**1.5)

    def quantile(p: float) -> float:
        z = bias + normal.inv_cdf(p)
        return float(np.quantile(means, normal.cdf(bias + z / (1 - skew * z))))

    low, high, lower, upper = (quantile(p) for p in (alpha / 2, 1 - alpha / 2, alpha, 1 - alpha))
    error = float(means.std())
    return Paired(n, mean, error, low, high, lower, upper, drop, gain, "bootstrap")


def _resampled_means(d: Array, w: Array, seed: int) -> Array:
    random = np.random.default_rng(seed)
    means = np.empty(RESAMPLES)
    rows = max(_CHUNK // len(d), 1)
    for start in range(0, RESAMPLES, rows):
        some = means[start : start + rows]
        drawn = random.integers(0, len(d), (len(some), len(d)))
        some[:] = (w * d)[drawn].sum(axis=1) / w[drawn].sum(axis=1)
    return means


def _around(
    centre: float, error: float, quantile: Callable[[float], float], alpha: float
) -> tuple[float, float, float, float]:
    """Two-sided interval, then the one-sided bounds."""
    both, one = quantile(1 - alpha / 2) * error, quantile(1 - alpha) * error
    return centre - both, centre + both, centre - one, centre + one
