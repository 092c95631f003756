"""What lm-evaluation-harness makes of its metrics, in our words: values of samples where a score is
a mean over them, and figures of the whole set where it is not.

Knows nothing of requests and models.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qwen_eval.measures import named
from qwen_eval.metrics import Whole
from qwen_eval.results import SampleRecord

SHARES = frozenset({"acc", "acc_norm", "acc_bytes", "acc_mutual_info", "acc_all", "exact_match"})
"""Its metrics that are shares of right answers, written in percent."""
BITS = "bits_per_byte"
DETAIL = "lm_eval"
"""The entry of a sample's detail that holds what its metrics gave and no mean is made of."""


@dataclass(frozen=True)
class Scoring:
    """What a task is scored by. `name` is its own word for its metric, `metric` ours, which says
    how it is read; `also` are our words for the other means over samples. `whole`: the metric is
    made of all samples at once and of no sample's value, so that it has neither an interval nor a
    paired test."""

    name: str
    metric: str
    also: tuple[str, ...]
    whole: bool


def scoring_of(task: Any) -> Scoring:
    """By the first metric of the task's list that is a mean over samples (bits per byte is one
    over bytes); by the first of all where there is none."""
    names = list(task.aggregation())
    means = [name for name in names if not is_whole(task, name)]
    name = (means or names)[0]
    filters = [one.name for one in task._filters][1:]
    others = [f"{one},{key}" for key in filters for one in means]
    also = tuple(column(task, one) for one in (*means[1:], *others))
    return Scoring(name, column(task, name), also, whole=not means)


def column(task: Any, name: str) -> str:
    """Our word for one of its metrics, `exact_match` or `exact_match,FILTER`."""
    own = name.partition(",")[0]
    if own in SHARES or name == BITS:
        return name
    return named(name, more=task.higher_is_better().get(own, True), whole=is_whole(task, name))


def is_whole(task: Any, name: str) -> bool:
    """Whether a metric is no mean over samples. One that a task gives without having named it is a
    mean, as there."""
    import numpy as np
    from lm_eval.api import metrics

    function = task.aggregation().get(name.partition(",")[0], metrics.mean)
    weighted = name == BITS and function is metrics.bits_per_byte
    return not weighted and function not in (metrics.mean, metrics.nanmean, np.mean, np.nanmean)


def values_of(task: Any, given: Mapping[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
    """A sample's metrics as values, and the rest of them, such as (gold, prediction) for an F1.
    What is not a number (NaN) is left out: the sample has no part in that metric."""
    values: dict[str, float] = {}
    rest: dict[str, Any] = {}
    for name, raw in given.items():
        value, whole = plain(raw), is_whole(task, name)
        if name == BITS and not whole:
            log_likelihood, size = value
            values |= {BITS: -log_likelihood / size / math.log(2) + 0.0, "bytes": float(size)}
        elif whole or not isinstance(value, bool | int | float):
            rest[column(task, name)] = value
        elif not math.isnan(value):
            values[column(task, name)] = float(value)
    return values, rest


def plain(value: Any) -> Any:
    """A value as JSON holds it. Raises TypeError for what it cannot."""
    if hasattr(value, "tolist"):  # numpy's arrays and numbers
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, set | frozenset):
        return sorted(map(plain, value))
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be kept in a file")


def whole_figures(task: Any, records: Sequence[SampleRecord]) -> dict[str, Whole]:
    """What the task's own functions make of the whole set, by our words for its metrics."""
    given: dict[str, list[Any]] = {}
    for record in records:
        if record.counted:
            for name, value in record.detail.get(DETAIL, {}).items():
                given.setdefault(name, []).append(value)
    functions = {column(task, name): one for name, one in task.aggregation().items()}
    found = {}
    for name, items in given.items():
        # Behind a comma stands a filter, whose metrics are made as the first one's are.
        function = functions.get(name) or functions.get(name.replace(_filter(name), "", 1))
        by = getattr(function, "__name__", "mean")
        try:
            if function is None:
                raise TypeError("its values are no numbers")
            value = float(function(items))
        except Exception as error:  # a figure that fails takes no other along
            found[name] = Whole(len(items), None, f"{by}: {type(error).__name__}: {error}"[:200])
        else:
            by = f"{by}: not a finite number" if not math.isfinite(value) else by
            found[name] = Whole(len(items), value if math.isfinite(value) else None, by)
    return found


def _filter(name: str) -> str:
    """`,FILTER` of a metric's name."""
    bare = name.partition(" (")[0]
    return bare[bare.find(",") :] if "," in bare else ""
