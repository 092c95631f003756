"""Numbers as a reader sees them. A score's unit is percent, or perplexity for a mean log-likelihood
per token (natural log): exp(-x), where less is better.
"""

from __future__ import annotations

import math
from typing import Literal

from qwen_eval.metrics import Estimate
from qwen_eval.paired import Paired

Unit = Literal["percent", "perplexity"]


def unit_of(metric: str) -> Unit:
    """How a metric is shown."""
    return "perplexity" if metric == "log_likelihood" else "percent"


def scaled(value: float, unit: Unit) -> float:
    """A score in its unit."""
    if unit == "percent":
        return 100 * value
    return math.exp(min(-value, 700.0))


def ends(estimate: Estimate, unit: Unit) -> tuple[float, float]:
    """The interval in the unit, the lower end first."""
    low, high = sorted((scaled(estimate.low, unit), scaled(estimate.high, unit)))
    is_share = unit == "percent" and 0.0 <= estimate.estimate <= 1.0
    return (max(low, 0.0), min(high, 100.0)) if is_share else (low, high)


def shown(value: float, unit: Unit = "percent") -> str:
    """A figure that is in its unit already."""
    if abs(value) >= 1e6:
        return f"{value:.3g}"
    return f"{value:.1f}" if unit == "percent" else f"{value:.2f}"


def points(share: float) -> str:
    """A difference of shares, in points with its sign."""
    sign = "+" if share >= 0 else "−"
    return f"{sign}{shown(abs(100 * share))}"


def ratio(difference: float) -> str:
    """Between two perplexities, from the difference of their mean log-likelihoods: exp(-x)."""
    return f"×{shown(scaled(difference, 'perplexity'), 'perplexity')}"


def change(paired: Paired, unit: Unit) -> tuple[str, str, str]:
    """A difference and its interval: points, or ratios of perplexity (below 1 is better)."""
    if unit == "percent":
        return points(paired.delta), points(paired.low), points(paired.high)
    return ratio(paired.delta), ratio(paired.high), ratio(paired.low)


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
