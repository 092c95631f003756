"""Two runs over the same samples: whether they can be compared at all, and what differs.

Pure: two runs as read from their directories in, differences out. Samples are joined by id; those
that failed for reasons outside the model, or that only one run has, are left out and counted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.measures import clusters_of, measure_of, value_of, weights_of
from qwen_eval.paired import Paired, difference, holm
from qwen_eval.results import Run, SampleRecord, is_named
from qwen_eval.stats import detectable_difference, weighted_mean

# What must be equal for a difference to be the models'.
FIELDS = (
    "data_kind",
    "data_digest",
    "metric",
    "scorer",
    "recipe_version",
    "version",
    "solver",
    "selected",
)
# How far the log-probability of one option moves with the program that computes it: the most that
# was seen in fp32, the mean in bf16 (docs/performance.md). The two best options move by it each.
NOISE = {"float32": 2e-4, "bfloat16": 0.125}


@dataclass(frozen=True)
class Flip:
    """An item whose score changed, for the worse (`lost`) or the better. `in_noise`: what decided
    it is smaller than what dtype and machine do to a log-probability."""

    id: str
    group: str
    baseline: float
    candidate: float
    answers: tuple[str | None, str | None]
    target: str
    in_noise: bool
    lost: bool


@dataclass(frozen=True)
class TaskComparison:
    """A candidate against a baseline on one task.

    `baseline`, `candidate`: their scores, over the same items with the same weights. `paired`: what
    was gained, above zero where the candidate is better: candidate minus baseline, or baseline
    minus candidate where less is better (bits per byte). `left_out`: items that only one run has
    (`unmatched`), that failed in one (`errors`), or that the recipe excludes in both (`excluded`,
    which is no fault; absent where there are none). `p_adjusted`: two-sided, Holm's over the tasks
    compared. `detectable`: the smallest drop that this many items with this much disagreement would
    show (one-sided, power 0.8).
    """

    task: str
    metric: str
    baseline: float
    candidate: float
    paired: Paired
    p_adjusted: float
    detectable: float
    lost: int
    gained: int
    left_out: dict[str, int]
    flips: tuple[Flip, ...]
    differing: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data; every number as it is, none rounded."""
        return asdict(self)


def compare_runs(
    baseline: Run,
    candidate: Run,
    *,
    tasks: Collection[str] | None = None,
    allow: Collection[str] = (),
    alpha: float = 0.05,
    seed: int = 0,
) -> list[TaskComparison]:
    """Every task that both runs have, or those named, with or without their recipes.

    `allow` names fields that may differ. Raises RefusedError where the runs cannot be compared,
    naming every field that differs; UserError where none of the named tasks is there.
    """
    common = [name for name in baseline.info.tasks if name in candidate.info.tasks]
    wanted = [name for name in common if tasks is None or is_named(name, tasks)]
    if not common:
        raise RefusedError(
            f"{baseline.folder} and {candidate.folder} have no task in common: "
            f"{', '.join(baseline.info.tasks)} there, {', '.join(candidate.info.tasks)} here"
        )
    if not wanted:
        raise UserError(f"the runs share {', '.join(common)}, none of those named")
    for run in (baseline, candidate):
        if not run.finished and "unfinished" not in allow:
            raise RefusedError(
                f"{run.folder}: the run is not finished; let it end, or --allow unfinished"
            )
    found = [_compare_task(name, baseline, candidate, allow, alpha, seed) for name in wanted]
    adjusted = holm([one.paired.p for one in found])
    return [replace(one, p_adjusted=p) for one, p in zip(found, adjusted, strict=True)]


def differing_fields(name: str, baseline: Run, candidate: Run) -> Iterator[tuple[str, str, str]]:
    """What makes two results of a task incomparable: field, its value there, its value here."""
    a, b = baseline.info.tasks[name], candidate.info.tasks[name]
    for field in FIELDS:
        if getattr(a, field) != getattr(b, field):
            yield field, str(getattr(a, field)), str(getattr(b, field))
    if a.runs_programs and baseline.info.containment != candidate.info.containment:
        yield "isolation", baseline.info.containment, candidate.info.containment
    pairs = joined(name, baseline, candidate)
    changed = sum((x.prefix, x.text) != (y.prefix, y.text) for x, y in pairs)
    if changed:
        yield "prompts", f"{len(pairs)} items", f"{changed} asked in other words"


def _compare_task(
    name: str,
    baseline: Run,
    candidate: Run,
    allow: Collection[str],
    alpha: float,
    seed: int,
) -> TaskComparison:
    differing = list(differing_fields(name, baseline, candidate))
    refused = [entry for entry in differing if entry[0] not in allow]
    if refused:
        what = "; ".join(f"{field} is {there} there, {here} here" for field, there, here in refused)
        flags = " ".join(f"--allow {field}" for field, _, _ in refused)
        raise RefusedError(f"{name}: not comparable: {what} ({flags} compares them anyway)")
    info = baseline.info.tasks[name]
    measure = measure_of(info.metric)
    if measure.whole:
        raise RefusedError(
            f"{name}: {info.metric}: no sample has a value of it, so that nothing can be paired; "
            "name the other tasks with --tasks"
        )
    pairs = joined(name, baseline, candidate)
    scored = [(a, b) for a, b in pairs if a.counted and b.counted]
    if not scored:
        raise RefusedError(f"{name}: no item has a score in both runs")
    values = [(value_of(info.metric, a), value_of(info.metric, b)) for a, b in scored]
    before, after = ([pair[i] for pair in values] for i in (0, 1))
    weights = _weights(name, info.metric, scored)
    paired = difference(
        [measure.sign * value for value in before],
        [measure.sign * value for value in after],
        clusters_of(info.metric, [a.group for a, _ in scored]),
        weights=weights,
        alpha=alpha,
        seed=seed,
    )
    noise = noise_between(baseline, candidate)
    flips = tuple(
        _flip(a, b, info.metric, noise)
        for (a, b), (x, y) in zip(scored, values, strict=True)
        if x != y
    )
    own = sum(len(run.of(name)) for run in (baseline, candidate))
    return TaskComparison(
        task=name,
        metric=info.metric,
        baseline=weighted_mean(before, weights),
        candidate=weighted_mean(after, weights),
        paired=paired,
        p_adjusted=paired.p,
        detectable=_detectable(paired, before, after, alpha),
        lost=sum(flip.lost for flip in flips),
        gained=sum(not flip.lost for flip in flips),
        left_out={"unmatched": own - 2 * len(pairs)} | _left_out(pairs),
        flips=flips,
        differing=tuple(field for field, _, _ in differing),
    )


def _left_out(pairs: Sequence[tuple[SampleRecord, SampleRecord]]) -> dict[str, int]:
    unscored = [(a.status, b.status) for a, b in pairs if not (a.counted and b.counted)]
    excluded = sum(both == ("excluded", "excluded") for both in unscored)
    # Excluded in one run alone, an item lacks its score like one that failed.
    found = {"errors": len(unscored) - excluded}
    return found | ({"excluded": excluded} if excluded else {})


def _weights(
    name: str, metric: str, pairs: Sequence[tuple[SampleRecord, SampleRecord]]
) -> list[float] | None:
    weights = weights_of(metric, [a for a, _ in pairs])
    others = weights_of(metric, [b for _, b in pairs])
    if weights and others and measure_of(metric).polled:
        # A vote more in one run makes it no other item.
        return [(a + b) / 2 for a, b in zip(weights, others, strict=True)]
    if weights != others:
        raise RefusedError(f"{name}: not comparable: the items do not weigh the same in both runs")
    return weights


def _detectable(
    paired: Paired, before: Sequence[float], after: Sequence[float], alpha: float
) -> float:
    """From the spread that was seen: of clusters and of scores by their standard error, of right
    and wrong by the share that changed sides."""
    from statistics import NormalDist

    if paired.method == "exact McNemar":
        changed = sum(x != y for x, y in zip(before, after, strict=True))
        # One item more: that nothing changed does not say that nothing could.
        return detectable_difference(paired.n, (changed + 1) / (paired.n + 1), alpha=alpha)
    normal = NormalDist()
    return (normal.inv_cdf(1 - alpha) + normal.inv_cdf(0.8)) * paired.error


def joined(name: str, baseline: Run, candidate: Run) -> list[tuple[SampleRecord, SampleRecord]]:
    """The samples of a task that both runs have, in the baseline's order."""
    others = candidate.of(name)
    return [(a, others[key]) for key, a in baseline.of(name).items() if key in others]


def noise_between(baseline: Run, candidate: Run) -> float:
    """How far one log-probability may lie from the same one of the other run for no better reason
    than dtype or machine."""
    dtypes = {str(run.info.model.get("dtype")) for run in (baseline, candidate)}
    return max(NOISE.get(dtype, NOISE["float32"]) for dtype in dtypes)


def in_noise(a: SampleRecord, b: SampleRecord, noise: float) -> bool:
    """Whether both answers were decided by less than that noise of a log-probability."""
    # Between the two best options, where options were scored.
    margins = [record.detail["margin"] for record in (a, b) if "margin" in record.detail]
    return len(margins) == 2 and max(margins) <= 2 * noise


def _flip(a: SampleRecord, b: SampleRecord, metric: str, noise: float) -> Flip:
    before, after = value_of(metric, a), value_of(metric, b)
    return Flip(
        id=a.id,
        group=a.group,
        baseline=before,
        candidate=after,
        answers=(a.answer, b.answer),
        target=a.target,
        in_noise=in_noise(a, b, noise),
        lost=measure_of(metric).sign * (after - before) < 0,
    )
