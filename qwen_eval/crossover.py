"""From which position on one reading of the same texts is better than another, and for good.

Per text and stretch of positions there is a saving: the nats of the one minus those of the other.
The crossover is the start of the stretch from which all savings to the end add up to most, over all
texts. So every piece of the context that begins there saves, and every piece that ends there costs;
it is also where the isotonic (never falling) fit of the savings by position, least squares, begins
to be above zero, without a fit to be made. Where no tail saves, there is none.

Pure functions of numbers. Source of the equality: Barlow et al. (1972), Statistical Inference under
Order Restrictions, ch. 1: the fit is the slope of the greatest convex minorant of the sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Crossover:
    """`position`: tokens of context at which it is better for good, None where it never is. `low`,
    `high`: its 95% interval, None for what lies beyond the last position. `never`: the share of
    resamples without a crossover. With a single text there is no interval, and `never` is None."""

    position: int | None
    low: int | None
    high: int | None
    never: float | None
    texts: int


def crossover(
    starts: Sequence[int], savings: Sequence[Sequence[float]], seed: int = 0
) -> Crossover:
    """`starts`: where each stretch of positions begins, ascending. `savings`: a line per text, the
    nats that it saves in every stretch. The interval is of the percentiles of a bootstrap over the
    texts. Raises ValueError for no texts."""
    saved = np.asarray(savings, dtype=np.float64)
    if not len(saved):
        raise ValueError("a crossover needs at least one text")
    assert saved.shape == (len(savings), len(starts))
    places = np.asarray([*starts, np.inf])
    at = float(places[_first(saved.sum(axis=0, keepdims=True))[0]])
    n = len(saved)
    if n == 1:
        return Crossover(_known(at), None, None, None, n)
    random = np.random.default_rng(seed)
    drawn = random.multinomial(n, np.full(n, 1 / n), RESAMPLES)
    found = np.sort(places[_first(drawn @ saved)])
    low, high = found[RESAMPLES // 40], found[-RESAMPLES // 40 - 1]
    never = float(np.isinf(found).mean())
    return Crossover(_known(at), _known(float(low)), _known(float(high)), never, n)


def _first(saved: Array) -> NDArray[np.intp]:
    """Per line the stretch whose tail saves most, the last one of equals; one past the end where no
    tail saves."""
    tails: Array = np.cumsum(saved[:, ::-1], axis=1)  # the shortest tail first
    best = tails.argmax(axis=1)
    saves = tails[np.arange(len(tails)), best] > 0
    found: NDArray[np.intp] = np.where(saves, saved.shape[1] - 1 - best, saved.shape[1])
    return found


def _known(place: float) -> int | None:
    return None if np.isinf(place) else int(place)
