"""Numbers as a reader sees them. A score's unit is percent; or bits per byte or nats per token; or
perplexity for a mean log-likelihood per token (natural log), exp(-x). Of all but the first less is
better. A net preference is in points from -100 to 100, with its sign, and more is better. What is
none of these is a plain number, of which more is better or less.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from qwen_eval.measures import (
    BITS_PER_BYTE,
    LESS,
    MORE,
    NATS_PER_TOKEN,
    NET_PREFERENCE,
    PLAIN,
    Measure,
    measure_of,
)
from qwen_eval.metrics import Estimate
from qwen_eval.paired import Paired

Unit = Literal[
    "percent", "points", "perplexity", "bits per byte", "nats per token", "plain number", "number"
]
MORE_IS_BETTER: tuple[Unit, ...] = ("percent", "points", "plain number")
_AS_IS: Mapping[Unit, Measure] = {
    "bits per byte": BITS_PER_BYTE,
    "nats per token": NATS_PER_TOKEN,
    "plain number": MORE,
    "number": LESS,
}
"""Units in which a score stands in its file. Of a `number` less is better."""


def unit_of(metric: str) -> Unit:
    """How a metric is shown."""
    measure = measure_of(metric)
    if measure.unit == PLAIN:
        return "plain number" if measure.sign > 0 else "number"
    for unit, known in _AS_IS.items():
        if measure is known:
            return unit
    if measure is NET_PREFERENCE:
        return "points"
    return "perplexity" if metric == "log_likelihood" else "percent"


def scaled(value: float, unit: Unit) -> float:
    """A score in its unit."""
    if unit in _AS_IS:
        return value
    if unit in MORE_IS_BETTER:
        return 100 * value
    return math.exp(min(-value, 700.0))


def ends(estimate: Estimate, unit: Unit) -> tuple[float, float]:
    """The interval in the unit, the lower end first."""
    low, high = sorted((scaled(estimate.low, unit), scaled(estimate.high, unit)))
    if unit == "points":
        return max(low, -100.0), min(high, 100.0)
    is_share = unit == "percent" and 0.0 <= estimate.estimate <= 1.0
    return (max(low, 0.0), min(high, 100.0)) if is_share else (low, high)


def shown(value: float, unit: Unit = "percent") -> str:
    """A figure that is in its unit already."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    if unit == "points":
        return points(value / 100)
    digits = _AS_IS[unit].digits if unit in _AS_IS else {"percent": 1, "perplexity": 2}[unit]
    return f"{value:.{digits}f}"


def points(share: float) -> str:
    """A difference of shares, in points with its sign."""
    sign = "+" if share >= 0 else "−"
    return f"{sign}{shown(abs(100 * share))}"


def ratio(difference: float) -> str:
    """Between two perplexities, from the difference of their mean log-likelihoods: exp(-x)."""
    return f"×{shown(scaled(difference, 'perplexity'), 'perplexity')}"


def gained(gain: float, unit: Unit) -> str:
    """A gain as what it makes of a score: points, a ratio of perplexities (below 1 is better), or
    bits per byte or nats per token (below 0 is better), or plain numbers."""
    if unit in _AS_IS:
        return _AS_IS[unit].step(gain).replace("-", "−")
    return points(gain) if unit in MORE_IS_BETTER else ratio(gain)


def change(paired: Paired, unit: Unit) -> tuple[str, str, str]:
    """A difference and its interval, the lower end first."""
    ends = (paired.low, paired.high) if unit in MORE_IS_BETTER else (paired.high, paired.low)
    low, high = (gained(end, unit) for end in ends)
    return gained(paired.delta, unit), low, high


def p_value(p: float) -> str:
    """Three digits, or a bound."""
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def duration(seconds: float) -> str:
    """3:04:05, or 4:05."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    start = f"{hours}:{minutes:02}" if hours else str(minutes)
    return f"{start}:{whole % 60:02}"


def size(count: float) -> str:
    """Bytes in the largest binary unit that leaves a figure of at least one."""
    for name in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {name}"
        count /= 1024
    return f"{count:.3g} GiB"
