"""Where the scores of a series of runs over the same items change. Pure functions of numbers.

Knows nothing of runs, models or files. Binary segmentation (Vostrikova 1981): a stretch of runs is
split at the likeliest place; where the change there is proven, both sides are searched again.

Items are the sampling unit, each one's mean over the runs before paired with its mean over the
runs after: a benchmark is a sample of questions, and a model asked again greedily repeats itself,
so with runs as units ten copies of one measurement would count as ten. Here copies add nothing:
among equal runs every item's difference is zero, and p is 1.

1. Screen every split, vectorised. Over items: Student's t (over groups, where `paired.difference`
   takes them as units). Over runs: the sum of differences if each item's values could as well have
   come in any other order (its variance is exact, its shape taken as normal). The larger p counts.
   The second is for items that nearly always come out the same: one run after many then has few
   items that differ, and a spread seen in so few is too small by chance.
2. Place: of the splits with p <= alpha / (n - 1) in a series of n runs, the one where the scores of
   the runs step the most, |after - before| sqrt(k (m - k)) for k of m runs before (CUSUM, Page
   1954). Not where p is smallest: of runs A A A B B B, every split has differences in proportion to
   B - A, and a test over items has the same p for all of them.
3. Verdict: `paired.difference` at this one split in place of Student's t. It is a change where the
   larger p, times n - 1, is at most alpha.

Bonferroni over all n - 1 places holds whichever split was chosen, and by what: equal models get any
mark with a chance of at most alpha. Stretches that lie apart have fewer places together, so with
real changes among them, found where they are, the same holds for all other marks of the series.
Several series, and the readings of one that grows, add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qwen_eval.paired import RESAMPLES, Array, difference


@dataclass(frozen=True)
class Change:
    """The score steps between run `at - 1` and run `at` of a series.

    `delta`: mean of the runs from `at` to the next change, minus mean of those since the change
    before. `p`: two-sided, as it was when the change was found, times the places where the series
    could have changed. `items`: those that every run of the stretch then searched has a score of.
    """

    at: int
    delta: float
    p: float
    items: int
    method: str


def change_points(
    values: Array, groups: Sequence[str], *, alpha: float = 0.05, seed: int = 0
) -> list[Change]:
    """The changes in a runs x items matrix, in order of runs; NaN where a run has no score of an
    item. `groups` names the group of each item."""
    assert values.shape[1] == len(groups)
    found = []
    places, stretches = len(values) - 1, [(0, len(values))]
    while stretches:
        start, end = stretches.pop()
        change = _change_in(values[start:end], groups, places, alpha, seed)
        if change:
            change = replace(change, at=start + change.at)
            found.append(change)
            stretches += [(start, change.at), (change.at, end)]
    found.sort(key=lambda change: change.at)
    ends = [0, *(change.at for change in found), len(values)]
    return [
        replace(change, delta=_step(values[before:after], change.at - before))
        for change, before, after in zip(found, ends, ends[2:], strict=False)
    ]


def _change_in(
    rows: Array, groups: Sequence[str], places: int, alpha: float, seed: int
) -> Change | None:
    shared = ~np.isnan(rows).any(axis=0)
    if len(rows) < 2 or not shared.any():
        return None
    rows, units = rows[:, shared], [groups[int(i)] for i in np.flatnonzero(shared)]
    before, after = _means(rows)
    over_runs = _over_runs(rows, after - before)
    screen = np.maximum(_over_items(after - before, units), over_runs)
    at = _likeliest(after - before, screen * places <= alpha)
    if at is None:
        return None
    # So many that ten of them may reach as far and p is still significant, however many places.
    flips = max(RESAMPLES, math.ceil(20 * places / alpha))
    verdict = difference(
        before[at].tolist(), after[at].tolist(), units, alpha=alpha, seed=seed, flips=flips
    )
    p = max(verdict.p, float(over_runs[at])) * places
    if p > alpha:
        return None
    return Change(at + 1, verdict.delta, p, verdict.n, verdict.method)


def _means(rows: Array) -> tuple[Array, Array]:
    """Each item's mean before and after every split; splits x items.

    In single precision, as a mean that differs only by the order of adding is no difference.
    """
    counts = np.arange(1, len(rows))[:, None]
    before = np.cumsum(rows, axis=0)[:-1] / counts
    after = (np.cumsum(rows[::-1], axis=0)[:-1] / counts)[::-1]
    return _rounded(before), _rounded(after)


def _rounded(means: Array) -> Array:
    return means.astype(np.float32).astype(np.float64)


def _likeliest(d_SI: Array, passed: NDArray[np.bool_]) -> int | None:
    """Index of the split to put to the test, if one passed the screen."""
    if not passed.any():
        return None
    counts = np.arange(1, len(d_SI) + 1)
    steps = np.abs(d_SI.mean(axis=1)) * np.sqrt(counts * counts[::-1])
    return int(np.where(passed, steps, -1.0).argmax())


def _over_items(d_SI: Array, units: Sequence[str]) -> Array:
    """Two-sided p of Student's t for each split's mean difference, cluster-robust where groups are
    the units; an item is a group of its own where they are not."""
    from scipy.special import stdtr

    n = d_SI.shape[1]
    names, at = np.unique(np.asarray(units), return_inverse=True)
    if not 1 < len(names) < n:
        at = np.arange(n)
    order = np.argsort(at, kind="stable")
    starts = np.flatnonzero(np.diff(at[order], prepend=-1))
    mean_S = d_SI.mean(axis=1)
    residuals = np.add.reduceat((d_SI - mean_S[:, None])[:, order], starts, axis=1)
    groups = len(starts)
    if groups < 2:
        return np.ones(len(d_SI))
    error_S = np.sqrt(groups / (groups - 1) * (residuals**2).sum(axis=1)) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        t_S = np.where(mean_S == 0, 0.0, np.abs(mean_S) / error_S)
    return np.asarray(2 * stdtr(groups - 1, -t_S))


def _over_runs(rows: Array, d_SI: Array) -> Array:
    """Two-sided p of each split's difference if the runs of each item were in random order: a mean
    of k of m values drawn without replacement, less that of the others, has the variance
    m / (k (m - k)) of theirs."""
    from scipy.special import ndtr

    m = len(rows)
    counts = np.arange(1, m)
    error_S = np.sqrt(m / (counts * counts[::-1]) * rows.var(axis=0, ddof=1).sum())
    sums = np.abs(d_SI.sum(axis=1))
    z_S = np.divide(sums, error_S, out=np.zeros(m - 1), where=sums > 0)
    return np.asarray(2 * ndtr(-z_S))


def _step(rows: Array, at: int) -> float:
    shared = ~np.isnan(rows).any(axis=0)
    return float(rows[at:, shared].mean() - rows[:at, shared].mean())
