"""What a metric's name says of its figures: which way is better, what a sample weighs, how both
are written. Knows nothing of where figures come from.

Shares of right answers are the rule: more is better, all samples weigh alike, and they are written
in percent. Bits per byte are the exception: less is better, and a text weighs as much as it has
bytes, so that the mean over texts is all their bits over all their bytes. So are nats per token,
whose exponential is the perplexity: models with one tokenizer can be told apart by them. Of false
positives, calls of a tool where none is wanted, less is better as well, and so of arguments that
only a lenient reader takes. A net
preference is wins minus losses of people's votes, from -1 to 1: an item weighs as much as it has
votes, so that the mean over items is the one over all votes. So a prompt weighs as much as it has
instructions, where the share of instructions that were followed is asked for. Metrics of
lm-evaluation-harness that are none of these are plain numbers, whose names say themselves which way
is better (named()).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from qwen_eval.errors import UserError


class Scored(Protocol):
    """A sample with its values by name: results.SampleRecord, types.Score."""

    @property
    def values(self) -> Mapping[str, float]:
        """The metric's value, and what else was measured."""
        ...


@dataclass(frozen=True)
class Measure:
    """`sign`: 1 where more is better, -1 where less is. `weight`: the entry of a sample's values
    that says what it weighs in a mean; None where all weigh alike. A figure is written times
    `scale`, with so many `digits`; `unit` is that of a difference. `polled`: a sample is several
    votes, whose number may differ between two runs. `strata`: groups are the kinds of sample that a
    set was made of, few and fixed, whose samples resemble each other no more than others do.
    `whole`: it is made of all samples at once, and no sample has a value of it."""

    sign: int = 1
    weight: str | None = None
    scale: float = 100.0
    digits: int = 1
    unit: str = "points"
    polled: bool = False
    strata: bool = False
    whole: bool = False

    def shown(self, value: float) -> str:
        """A figure as it is read: 61.3 for a share of 0.613; the bounds of one sample's estimate,
        which are as far as JSON goes, are infinite."""
        if abs(value) >= UNBOUNDED:
            return "∞" if value > 0 else "−∞"
        scaled = self.scale * value
        return f"{scaled:.3g}" if abs(scaled) >= 1e6 else f"{scaled:.{self.digits}f}"

    def step(self, gain: float) -> str:
        """A gain, above zero where it is for the better, as what it makes of the figure: a loss
        of bits per byte is a `+`."""
        return f"{self.sign * self.scale * gain + 0.0:+.{self.digits}f}"

    def bounds(self, low: float, high: float) -> tuple[str, str]:
        """Both ends of a gain's interval as steps of the figure, the lower one first."""
        ends = (low, high) if self.sign > 0 else (high, low)
        return self.step(ends[0]), self.step(ends[1])


UNBOUNDED = 1e308  # the bound of an interval that has none

SHARE = Measure()
BITS_PER_BYTE = Measure(-1, "bytes", 1.0, 4, "bits per byte")
NATS_PER_TOKEN = Measure(-1, "tokens", 1.0, 4, "nats per token")
LESS_SHARE = Measure(-1)
NET_PREFERENCE = Measure(weight="votes", polled=True, strata=True)
PLAIN = "plain numbers"
MORE = Measure(1, None, 1.0, 4, PLAIN)
LESS = Measure(-1, None, 1.0, 4, PLAIN)
WHOLE_MORE = Measure(1, None, 1.0, 4, PLAIN, whole=True)
WHOLE_LESS = Measure(-1, None, 1.0, 4, PLAIN, whole=True)
_NAMED = {
    "(more is better)": MORE,
    "(less is better)": LESS,
    "(of the whole set, more is better)": WHOLE_MORE,
    "(of the whole set, less is better)": WHOLE_LESS,
}
OF_INSTRUCTIONS = Measure(weight="instructions")
_OTHERS = {
    "inst_level_strict": OF_INSTRUCTIONS,
    "inst_level_loose": OF_INSTRUCTIONS,
    "bits_per_byte": BITS_PER_BYTE,
    "nats_per_token": NATS_PER_TOKEN,
    "net_preference": NET_PREFERENCE,
    "right_decision": Measure(strata=True),
    "false_positive": LESS_SHARE,
    "lenient_arguments": LESS_SHARE,
}


def measure_of(metric: str) -> Measure:
    """How a metric is read; as a share where nothing else is known of it."""
    said = re.search(r"\([^()]+\)$", metric)
    return _NAMED.get(said[0], SHARE) if said else _OTHERS.get(metric, SHARE)


def named(metric: str, *, more: bool, whole: bool) -> str:
    """The name of a metric that is a plain number, with how measure_of() is to read it."""
    wanted = (WHOLE_MORE if more else WHOLE_LESS) if whole else (MORE if more else LESS)
    return next(f"{metric} {said}" for said, measure in _NAMED.items() if measure is wanted)


def weights_of(metric: str, records: Sequence[Scored]) -> list[float] | None:
    """What each sample weighs, None where all weigh alike. Raises UserError for a sample without
    its figure or its weight: where samples have weights, nothing is no bad answer."""
    name = measure_of(metric).weight
    if name is None:
        return None
    for record in records:
        if metric not in record.values or not record.values.get(name, 0.0) > 0:
            label: Any = getattr(record, "id", "?")
            raise UserError(f"sample {label}: has no {metric} with its {name}; run it anew")
    return [record.values[name] for record in records]


def clusters_of(metric: str, groups: Sequence[str]) -> list[str]:
    """The groups of the samples where those of one group may resemble each other; else one for
    all, which is none."""
    return [""] * len(groups) if measure_of(metric).strata else list(groups)


def value_of(metric: str, record: Scored) -> float:
    """A sample's value; an answer that could not be read counts 0."""
    return record.values.get(metric, 0.0)
