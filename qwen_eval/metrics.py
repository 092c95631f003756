"""From sample records to the table: estimates with intervals, counts, and a validity verdict.

Errors (nothing can be said of the model) are left out of the estimate and counted, and so is what a
recipe excludes; unreadable answers are wrong and counted. Past a threshold of errors, of unreadable
answers or of truncation, a score is invalid and is not printed. The thresholds are ours.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal

from qwen_eval.errors import UserError
from qwen_eval.measures import UNBOUNDED, Scored, measure_of, value_of, weights_of
from qwen_eval.results import CLOSED, Run, SampleRecord, as_written, read_metrics
from qwen_eval.stats import mean_interval, weighted_mean, wilson_interval

LIMITS = {
    "errors": 0.02,
    "prompts_truncated": 0.05,
    "outputs_truncated": 0.20,
    "no_answer": 0.20,
}

# What every metrics.json counts; `excluded` came later.
_COUNTS = ("samples", *LIMITS)

# What is measured of a whole run beside its scores.
Figure = Literal["samples_per_second", "tokens_per_second", "output_tokens", "peak_memory"]


@dataclass(frozen=True)
class Estimate:
    """A mean over n samples with its 95% interval and how that was made: `wilson`, `student-t`, or
    `ratio, student-t` for a mean of weighted samples."""

    __pydantic_config__: ClassVar = CLOSED

    n: int
    estimate: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Whole:
    """A figure that is no mean over samples: what the function `by` makes of n of them at once;
    None where it could not, and `by` says why. No interval is known of it."""

    __pydantic_config__: ClassVar = CLOSED

    n: int
    value: float | None
    by: str


@dataclass(frozen=True)
class TaskMetrics:
    """One row of the table. `counts` are samples; `invalid` lists the limits passed. `macro`: the
    mean over groups, where the recipe asks for it. `others`: further metrics by name, each over the
    samples that have it. `whole`: those made of the whole set; where the task's own metric is one
    (measures.py), it stands there, and there is no `overall`."""

    __pydantic_config__: ClassVar = CLOSED

    recipe: str
    metric: str
    overall: Estimate | None
    counts: dict[str, int]
    invalid: list[str]
    groups: dict[str, Estimate] = field(default_factory=dict)
    categories: dict[str, Estimate] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    macro: Estimate | None = None
    others: dict[str, Estimate] = field(default_factory=dict)
    whole: dict[str, Whole] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As metrics.json holds it."""
        return asdict(self)


def estimate(values: Sequence[float], weights: Sequence[float] | None = None) -> Estimate | None:
    """Wilson's interval for zeros and ones, Student's for anything else, the ratio estimator's
    where samples have weights; None for no values."""
    if not values:
        return None
    n, mean = len(values), weighted_mean(values, weights)
    if weights is None and all(value in (0.0, 1.0) for value in values):
        return Estimate(n, mean, *wilson_interval(math.fsum(values), n), "wilson")
    low, high = mean_interval(values, weights=weights)
    method = "student-t" if weights is None else "ratio, student-t"
    return Estimate(n, mean, max(low, -UNBOUNDED), min(high, UNBOUNDED), method)


def estimate_of(metric: str, records: Sequence[Scored]) -> Estimate | None:
    """A metric over samples, weighted as it says; None for no samples, and for what is no mean."""
    if measure_of(metric).whole:
        return None
    values = [value_of(metric, record) for record in records]
    return _as_share(metric, values, estimate(values, weights_of(metric, records)))


def _as_share(metric: str, values: Sequence[float], found: Estimate | None) -> Estimate | None:
    """Of shares, what an interval claims below 0 and above 1 is taken from it."""
    measure = measure_of(metric)
    share = measure.unit == "points" and not measure.polled and all(0 <= v <= 1 for v in values)
    if found is None or not share:
        return found
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def counts_of(records: Sequence[SampleRecord]) -> dict[str, int]:
    """All samples, and those that ended in each way that LIMITS and gates bound. One of which
    several replies were drawn counts by their share, and the sum is rounded up."""
    return {
        "samples": len(records),
        "errors": sum(record.status == "error" for record in records),
        "no_answer": math.ceil(sum(record.unread for record in records)),
        "prompts_truncated": sum(record.prompt_truncated for record in records),
        "outputs_truncated": math.ceil(sum(record.cut for record in records)),
        "excluded": sum(record.status == "excluded" for record in records),
    }


def summarise(
    recipe: str,
    metric: str,
    records: Sequence[SampleRecord],
    categories: Mapping[str, Sequence[str]] | None = None,
    *,
    by_design: Collection[str] = (),
    also: Sequence[str] = (),
    macro: bool = False,
    whole: Mapping[str, Whole] | None = None,
) -> TaskMetrics:
    """The row of one task. `by_design`: limits that the recipe passes by itself, as one that cuts
    long prompts does: that is counted but does not make the score invalid. `also`: further
    metrics; `macro`: give the mean over groups as well. `whole`: what was made of the whole set."""
    scored = [record for record in records if record.counted]
    by_group: dict[str, list[SampleRecord]] = {}
    for record in scored:
        by_group.setdefault(record.group, []).append(record)
    counts = counts_of(records)
    asked = counts["samples"] - counts["excluded"]
    invalid = [
        f"{name} {counts[name] / asked:.0%} > {limit:.0%}"
        for name, limit in LIMITS.items()
        if counts[name] > limit * asked
        if name not in by_design
    ]
    grouped = {name: estimate_of(metric, members) for name, members in by_group.items() if name}
    gathered = {
        name: estimate_of(metric, [r for group in members for r in by_group.get(group, [])])
        for name, members in (categories or {}).items()
    }
    further = {name: estimate_of(name, [r for r in scored if name in r.values]) for name in also}
    responses = [response for record in records for response in record.responses]
    return TaskMetrics(
        recipe=recipe,
        metric=metric,
        overall=estimate_of(metric, scored),
        counts=counts,
        invalid=invalid,
        groups={name: e for name in sorted(grouped, key=group_order) if (e := grouped[name])},
        categories={name: e for name, e in gathered.items() if e},
        tokens={
            key: sum(response.get(f"{key}_tokens", 0) for response in responses)
            for key in ("prompt", "output")
        },
        macro=macro_estimate(metric, by_group) if macro and not measure_of(metric).whole else None,
        others={name: e for name, e in further.items() if e},
        whole=dict(whole or {}),
    )


def macro_estimate(metric: str, by_group: Mapping[str, Sequence[Scored]]) -> Estimate | None:
    """The mean of the groups' means: each sample weighs one over the size of its group. Of zeros
    and ones Wilson's interval at Kish's effective size, (sum of w)^2 over the sum of w^2."""
    values = [value_of(metric, record) for members in by_group.values() for record in members]
    weights = [1 / len(members) for members in by_group.values() for _ in members]
    if not values or any(value not in (0.0, 1.0) for value in values):
        return _as_share(metric, values, estimate(values, weights))
    mean = weighted_mean(values, weights)
    size = math.fsum(weights) ** 2 / math.fsum(weight**2 for weight in weights)
    interval = wilson_interval(mean * size, size)
    return Estimate(len(values), mean, *interval, "wilson at an effective size")


def group_order(name: str) -> tuple[float, str]:
    """For sorting: numbers, such as depths, by their size, and before words."""
    return (len(name) if name.isdecimal() else math.inf), name


def figure_of(run: Run, name: Figure) -> float | None:
    """Speed over all starts of a run, the mean length in tokens of what it wrote, or the most
    memory in bytes that a process of it held; None where it was not measured."""
    if name == "peak_memory":
        held = [kept for start in run.info.invocations if (kept := start.get("peak_memory"))]
        return float(max(held)) if held else None
    if name == "output_tokens":
        written = [
            sum(r.get("output_tokens", 0) for r in record.responses) for record in run.samples
        ]
        return math.fsum(written) / len(written) if written else None
    kind = "samples" if name == "samples_per_second" else "tokens"
    starts = [start for start in run.info.invocations if start.get("seconds")]
    seconds = math.fsum(float(start["seconds"]) for start in starts)
    return math.fsum(float(start.get(kind, 0)) for start in starts) / seconds if seconds else None


def stored(run: Run) -> dict[str, TaskMetrics]:
    """What a finished run's metrics.json says, by task. Raises UserError where it does not say it
    all."""
    path = run.folder / "metrics.json"
    try:
        found = as_written(dict[str, TaskMetrics], read_metrics(run.folder).get("tasks"))
        for task in run.info.tasks:
            if task not in found:
                raise ValueError(f"no task {task}")
            for part, needed in (("counts", _COUNTS), ("tokens", ("prompt", "output"))):
                if missing := [k for k in needed if k not in getattr(found[task], part)]:
                    raise ValueError(f"{task}: no {part}.{missing[0]}")
    except ValueError as error:
        raise UserError(f"{path}: not metrics of this version ({error})") from error
    return found
