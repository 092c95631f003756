"""The bootstrap over items: whole items are drawn anew, each with all that was said of it.

Whatever depends on sums over items alone (alpha, kappa, position bias) is bootstrapped by drawing
the sums. Knows nothing of votes. Source: Efron and Tibshirani (1993), An Introduction to the
Bootstrap, ch. 8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qwen_eval.paired import RESAMPLES, Array

_CHUNK = 2_000_000  # counts held at a time


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval."""

    value: float
    low: float
    high: float


def resampled_sums(sums: Array, seed: int) -> Array:
    """A line per resample: the columns' sums over as many items as there are, drawn with
    replacement. `sums`: a line per item."""
    random = np.random.default_rng(seed)
    n = len(sums)
    found = np.empty((RESAMPLES, sums.shape[1]))
    rows = max(_CHUNK // n, 1)
    for start in range(0, RESAMPLES, rows):
        some = found[start : start + rows]
        drawn = random.multinomial(n, np.full(n, 1 / n), len(some))
        some[:] = drawn.astype(np.float64) @ sums
    return found


def percentiles(value: float, resampled: Array, alpha: float) -> Estimate:
    """The middle 1 - alpha of the resamples that have the figure at all (NaN where one has not)."""
    low, high = np.nanquantile(resampled, (alpha / 2, 1 - alpha / 2))
    return Estimate(value, float(low), float(high))
