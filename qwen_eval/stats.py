"""Intervals and estimators behind every score. Pure functions of numbers; randomness is explicit.

Sources: Wilson (1927) for proportions; Student's t for means of unbounded values, and Cochran
(1977) for weighted ones;
Chen et al. 2021 (arXiv 2107.03374), eq. 1, for pass@k.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist


def wilson_interval(successes: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion; n may be an effective size. ValueError for n < 1."""
    if n < 1:
        raise ValueError("an interval needs at least one observation")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At p = 0 and p = 1 one end is p itself; rounding must not put it on the wrong side.
    return max(0.0, min(p, centre - half)), min(1.0, max(p, centre + half))


def weighted_mean(values: Sequence[float], weights: Sequence[float] | None = None) -> float:
    """Sum of weight times value over the sum of weights; without weights the plain mean."""
    if weights is None:
        return math.fsum(values) / len(values)
    total = math.fsum(weights)
    return math.fsum(w * v for w, v in zip(weights, values, strict=True)) / total


def mean_interval(
    values: Sequence[float], confidence: float = 0.95, weights: Sequence[float] | None = None
) -> tuple[float, float]:
    """Student's t interval of a mean; (-inf, inf) for a single value. ValueError for none.

    With weights, which differ from draw to draw like the values do (bytes of a text), the mean is
    a ratio of two sums, and its variance that of the ratio estimator (Cochran 1977, Sampling
    Techniques, ch. 6): n / (n - 1) times the sum of (w (v - mean))^2, over (sum of w)^2.
    """
    n = len(values)
    if n < 1:
        raise ValueError("an interval needs at least one observation")
    if n == 1:
        return -math.inf, math.inf
    from scipy.special import stdtrit

    mean, each = weighted_mean(values, weights), weights or [1.0] * n
    squares = math.fsum((w * (v - mean)) ** 2 for w, v in zip(each, values, strict=True))
    error = math.sqrt(n / (n - 1) * squares) / math.fsum(each)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * error
    return mean - half, mean + half


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased chance that one of k draws without replacement from n samples is correct."""
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(
            f"pass@{k} needs 1 <= k <= n and 0 <= correct <= n, got n={n}, c={correct}"
        )
    if n - correct < k:
        return 1.0
    return 1.0 - math.prod(1.0 - k / i for i in range(n - correct + 1, n + 1))


def detectable_difference(
    n: int, discordance: float = 0.1, *, alpha: float = 0.05, power: float = 0.8
) -> float:
    """Smallest drop between two runs over the same n items that a one-sided paired test finds.

    Normal approximation to McNemar's test; `discordance` is the share of items on which the two
    runs disagree. As a fraction (0.02 is two points), and never below the few items without which
    the exact test finds nothing; above 1 where there are not even so many.
    """
    if n < 1:
        raise ValueError("a comparison needs at least one item")
    z = NormalDist()
    a, b = z.inv_cdf(1 - alpha), z.inv_cdf(power)
    # Var of the paired difference under the alternative is discordance - delta^2.
    delta = (a + b) * math.sqrt(discordance / n)
    for _ in range(50):
        inner = max(discordance - delta * delta, 0.0)
        delta = (a * math.sqrt(discordance) + b * math.sqrt(inner)) / math.sqrt(n)
    fewest = math.ceil(math.log(alpha, 0.5))  # all lost, none gained: p is 0.5 ** fewest
    return max(min(delta, discordance), fewest / n)


def items_needed(
    drop: float, discordance: float = 0.1, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """The fewest items over which `drop` is a detectable difference. ValueError for a drop that
    is not smaller than the discordance."""
    if not 0 < drop < discordance:
        raise ValueError("a drop must be smaller than the share of items that change sides")
    z = NormalDist()
    a, b = z.inv_cdf(1 - alpha), z.inv_cdf(power)
    reach = a * math.sqrt(discordance) + b * math.sqrt(discordance - drop * drop)
    return math.ceil((reach / drop) ** 2)
