"""Run-to-run noise: how far runs of one model over the same items lie apart, and what that means
for a difference between two runs. Pure statistics and the record of them (noise.json).

Item i of run r is taken as x_ir = item_i + run_r + flip_ir. `run` is a shift that all items of a
run share (another order of sums, another machine, another load); its variance is the *extra* one.
`flip` is each item's own unsteadiness, whatever its variance, and independent of the others'.
A paired test over items sees the flips and is blind to the shift, which moves no item against
another: the shift has to be known from runs that were repeated.

Knows nothing of rules, files' places or what a promoted baseline is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import stdev
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from qwen_eval.compare import TaskComparison
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.measures import value_of, weights_of
from qwen_eval.metrics import Figure, figure_of
from qwen_eval.paired import Paired, holm
from qwen_eval.results import Run
from qwen_eval.stats import weighted_mean

SCHEMA = 1
LEAST_RUNS = 3


@dataclass(frozen=True)
class TaskNoise:
    """One task over the runs, in the score's unit (0.01 is a point of a share).

    `n`: items scored in every run. `scores`: of each run over them. `between_sd`: their standard
    deviation. `flips_sd`: what independent flips of items make of it. `extra_variance`: what the
    runs differ by beyond that. `unsteady`: items whose value was not the same in all runs, with
    the number of runs that differ from the value most of them have.
    """

    n: int
    scores: tuple[float, ...]
    between_sd: float
    flips_sd: float
    extra_variance: float
    unsteady: dict[str, int]


@dataclass(frozen=True)
class Noise:
    """noise.json. `log_sd`: of the natural logarithm of each figure that all runs measured."""

    runs: int
    tasks: dict[str, TaskNoise]
    log_sd: dict[str, float]
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """As the file holds it."""
        return asdict(self)

    def ratio_between(self, figure: str, ratio: float, alpha: float) -> tuple[float, float]:
        """The bounds, each one-sided at alpha, of candidate over baseline: Student's t over the
        logarithms, a run's noise on both sides. The ratio itself where nothing is known of it."""
        from scipy.special import stdtrit

        reach = float(stdtrit(self.runs - 1, 1 - alpha)) * math.sqrt(2) * self.log_sd.get(figure, 0)
        return ratio * math.exp(-reach), ratio * math.exp(reach)


def measure(runs: Sequence[Run]) -> Noise:
    """The noise between runs of one model over the same items; the first one's tasks count.

    Raises ValueError for fewer than LEAST_RUNS; RefusedError where no item of a task has a score
    in every run.
    """
    if len(runs) < LEAST_RUNS:
        raise ValueError(f"noise needs at least {LEAST_RUNS} runs")
    figures = {name: [figure_of(run, name) for run in runs] for name in get_args(Figure)}
    log_sd = {
        name: stdev(math.log(value) for value in values if value)
        for name, values in figures.items()
        if all(values)
    }
    return Noise(len(runs), {task: _task_noise(task, runs) for task in runs[0].info.tasks}, log_sd)


def variances(scores_KN: NDArray[np.float64]) -> tuple[float, float, float]:
    """Of the mean score of a run: between the K runs, what independent flips of the N items make
    of it, and the extra of the shared shift, in the score's unit squared.

    The two-way layout of runs and items without replication. Between the runs' means the variance
    S² has K-1 degrees of freedom and E S² = extra + flips, where flips = Σ_i var(flip_i) / N².
    What is left of x after the means of its row and of its column has a mean square M over
    (K-1)(N-1) with E M = Σ_i var(flip_i) / N, also where the items' variances differ. So M/N
    estimates flips, and S² - M/N, cut at zero, the extra. Before the cut it is unbiased
    (Searle, Casella and McCulloch 1992, Variance Components, ch. 4: the ANOVA estimator).
    """
    runs, items = scores_KN.shape
    # Against the first run, which changes no variance: equal runs are zero to the last bit.
    moved_KN = scores_KN - scores_KN[0]
    mean_K = moved_KN.mean(axis=1)
    between = float(mean_K.var(ddof=1))
    rest_KN = moved_KN - moved_KN.mean(axis=0) - mean_K[:, None] + mean_K.mean()
    freedom = (runs - 1) * (items - 1)
    # Of one item alone, nothing can be put down to flips.
    flips = float((rest_KN**2).sum()) / freedom / items if freedom else 0.0
    return between, flips, max(0.0, between - flips)


def with_noise(found: Sequence[TaskComparison], noise: Noise, alpha: float) -> list[TaskComparison]:
    """The comparisons, their intervals, p-values and detectable drops with the shifts of both runs
    taken in. None becomes narrower or smaller by it."""
    wider = []
    for one in found:
        known = noise.tasks[one.task]
        shift = _Shift(known.between_sd**2, known.extra_variance, noise.runs)
        if known.extra_variance:
            one = replace(  # noqa: PLW2901
                one,
                paired=_wider(one.paired, shift, alpha),
                detectable=shift.detectable(one.detectable, alpha),
            )
        wider.append(one)
    adjusted = holm([one.paired.p for one in wider])
    return [replace(one, p_adjusted=p) for one, p in zip(wider, adjusted, strict=True)]


@dataclass(frozen=True)
class _Shift:
    """What the difference of two runs gains in variance: twice the extra.

    The sum of an error over items and of 2 (S² - M/N) is a linear combination of mean squares;
    Satterthwaite (1946, Biometrics 2) gives its degrees of freedom, (K-1) (sum / 2 S²)², the
    other parts having far more of them than S².
    """

    between: float
    extra: float
    runs: int

    def added_to(self, error: float) -> tuple[float, float]:
        """The standard error with the shifts, and its degrees of freedom."""
        variance = error**2 + 2 * self.extra
        whole = variance / (2 * self.between)
        return math.sqrt(variance), max(1.0, (self.runs - 1) * whole * whole)

    def reach(self, distance: float, alpha: float) -> float:
        """How far from the difference its bound lies that lay at `distance`."""
        from scipy.special import ndtri, stdtrit

        error, freedom = self.added_to(distance / float(ndtri(1 - alpha)))
        return error * float(stdtrit(freedom, 1 - alpha))

    def p(self, p: float, delta: float) -> float:
        """One-sided p of a difference below zero, of the same sign as what p speaks of."""
        from scipy.special import ndtri, stdtr

        if p >= 0.5 or delta >= 0:
            return p
        error, freedom = self.added_to(delta / float(ndtri(p)))
        return max(p, float(stdtr(freedom, delta / error)))

    def detectable(self, drop: float, alpha: float) -> float:
        """The drop shown with power 0.8."""
        from scipy.special import ndtri, stdtrit

        error, freedom = self.added_to(drop / float(ndtri(1 - alpha) + ndtri(0.8)))
        return error * float(stdtrit(freedom, 1 - alpha) + stdtrit(freedom, 0.8))


def _wider(paired: Paired, shift: _Shift, alpha: float) -> Paired:
    delta = paired.delta
    return replace(
        paired,
        error=shift.added_to(paired.error)[0],
        low=delta - shift.reach(delta - paired.low, alpha / 2),
        high=delta + shift.reach(paired.high - delta, alpha / 2),
        lower=delta - shift.reach(delta - paired.lower, alpha),
        upper=delta + shift.reach(paired.upper - delta, alpha),
        p_drop=shift.p(paired.p_drop, delta),
        p_gain=shift.p(paired.p_gain, -delta),
    )


def _task_noise(task: str, runs: Sequence[Run]) -> TaskNoise:
    metric = runs[0].info.tasks[task].metric
    tables = [
        {key: value_of(metric, r) for key, r in run.of(task).items() if r.counted} for run in runs
    ]
    items = [item for item in tables[0] if all(item in table for table in tables)]
    if not items:
        raise RefusedError(f"{task}: no item has a score in all {len(runs)} runs")
    scores_KN = np.array([[table[item] for item in items] for table in tables], dtype=np.float64)
    weights = weights_of(metric, [runs[0].of(task)[item] for item in items])
    weight_N = np.array(weights or [1.0] * len(items))
    between, flips, extra = variances(scores_KN * (weight_N / weight_N.mean()))
    most_K = (Counter(column.tolist()).most_common(1)[0][1] for column in scores_KN.T)
    unsteady = {
        item: len(runs) - most for item, most in zip(items, most_K, strict=True) if most < len(runs)
    }
    means = tuple(weighted_mean(row, weights) for row in scores_KN.tolist())
    return TaskNoise(len(items), means, math.sqrt(between), math.sqrt(flips), extra, unsteady)


def noise_from(raw: Mapping[str, Any]) -> Noise:
    """The Noise of a noise.json. Raises UserError if it is of another version or shape."""
    if (schema := raw.get("schema")) != SCHEMA:
        raise UserError(f"of schema {schema!r}, this version reads {SCHEMA}; promote again")
    try:
        tasks = {
            name: TaskNoise(**task | {"scores": tuple(task["scores"])})
            for name, task in raw["tasks"].items()
        }
        return Noise(int(raw["runs"]), tasks, dict(raw["log_sd"]))
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"not a record of noise ({error}); promote again") from error
