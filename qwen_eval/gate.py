"""The gate: rules, a baseline and a candidate in, one verdict out, from which all else is printed.

A rule ends in one of four ways. PASS and FAIL are statements; INCONCLUSIVE says that the items
cannot tell; ERROR that too much failed outside the model to judge. Non-inferiority wins: where the
lower bound of the difference lies above -margin, a drop that is proven but small passes. Where the
baseline's run-to-run noise is known, it is part of every interval and p-value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from typing import Any

from qwen_eval.compare import TaskComparison, compare_runs
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.measures import SHARE, measure_of, value_of, weights_of
from qwen_eval.metrics import Figure, counts_of, figure_of
from qwen_eval.noise import Noise, with_noise
from qwen_eval.paired import benjamini_hochberg, holm
from qwen_eval.results import Run, SampleRecord
from qwen_eval.rules import Budget, Ceiling, Floor, MustPass, NonInferiority, Ratio, Rules
from qwen_eval.sandbox.layers import NONE
from qwen_eval.stats import weighted_mean

SCHEMA = 1
PASS, FAIL, INCONCLUSIVE, ERROR = "PASS", "FAIL", "INCONCLUSIVE", "ERROR"
_WORST = (PASS, INCONCLUSIVE, FAIL, ERROR)


@dataclass(frozen=True)
class RuleVerdict:
    """One rule's end: in one word, in one sentence, and in the figures it was made from."""

    rule: dict[str, Any]
    verdict: str
    message: str
    blocking: bool = True
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """The whole gate's. `exit_code`: 0 pass, 1 regression, 4 too many errors, 5 inconclusive where
    the rules say that this fails."""

    verdict: str
    exit_code: int
    baseline: dict[str, Any]
    candidate: dict[str, Any]
    alpha: float
    inconclusive: str
    rules: tuple[RuleVerdict, ...]
    quarantine: tuple[dict[str, Any], ...] = ()
    warnings: tuple[str, ...] = ()
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def judge(
    rules: Rules,
    baseline: Run,
    candidate: Run,
    *,
    today: date,
    allow: Sequence[str] = (),
    noise: Noise | None = None,
) -> Verdict:
    """Hold the candidate to the rules. `noise`: what is known of the baseline's A/A runs.

    Raises RefusedError where the runs cannot be compared or nothing contained the programs that
    one of them ran, UserError for a rule about a task or an item that the candidate does not have.
    """
    for run in (baseline, candidate):
        ran = any(task.runs_programs for task in run.info.tasks.values())
        if ran and run.info.containment == NONE and "isolation" not in allow:
            raise RefusedError(
                f"{run.folder}: its programs ran without a sandbox and may have forged their "
                "verdicts; run it where they can be contained, or --allow isolation"
            )
    for number, rule in enumerate(rules.rules, 1):
        if not isinstance(rule, Ratio):
            for run in (baseline, candidate):
                if rule.recipe not in run.info.tasks:
                    raise UserError(
                        f"rule {number}: {run.folder} has no task {rule.recipe}; it has "
                        f"{', '.join(run.info.tasks)}"
                    )
    warnings = (
        f"quarantine of {q.recipe} {q.item} ended on {q.until}: {q.reason}"
        for q in rules.quarantine
        if q.until < today
    )
    gate = _Gate(rules, baseline, candidate, rules.held(today), allow, noise)
    found = tuple(gate.verdicts())
    blocking = [one.verdict for one in found if one.blocking]
    worst = max(blocking, key=_WORST.index, default=PASS)
    code = {PASS: 0, FAIL: 1, ERROR: 4, INCONCLUSIVE: 5 if rules.inconclusive == "fail" else 0}
    return Verdict(
        verdict=worst,
        exit_code=code[worst],
        baseline=_name(baseline),
        candidate=_name(candidate),
        alpha=rules.alpha,
        inconclusive=rules.inconclusive,
        rules=found,
        quarantine=tuple(q.model_dump(mode="json") for q in rules.quarantine if q.until >= today),
        warnings=tuple(warnings),
    )


class _Gate:
    """Rules over two comparable runs."""

    def __init__(
        self,
        rules: Rules,
        baseline: Run,
        candidate: Run,
        held: set[tuple[str, str]],
        allow: Sequence[str],
        noise: Noise | None,
    ) -> None:
        self.rules, self.held, self.noise = rules, held, noise
        self.baseline, self.candidate = self._kept(baseline), self._kept(candidate)
        # All of them, so that no rule is held to runs over other items or other prompts.
        tasks = {rule.recipe for rule in rules.rules if not isinstance(rule, Ratio)}
        found = compare_runs(
            self.baseline, self.candidate, tasks=tasks or None, allow=allow, alpha=rules.alpha
        )
        if noise:
            found = with_noise(found, noise, rules.alpha)
        self.compared: dict[str, TaskComparison] = {one.task: one for one in found}
        self.p_drop = {
            True: self._adjusted(holm, blocking=True),
            False: self._adjusted(benjamini_hochberg, blocking=False),
        }

    def verdicts(self) -> list[RuleVerdict]:
        """In the order of the rules."""
        ways: dict[type, Callable[[Any], RuleVerdict]] = {
            NonInferiority: self._non_inferiority,
            Floor: self._bound,
            Ceiling: self._bound,
            MustPass: self._must_pass,
            Budget: self._budget,
            Ratio: self._ratio,
        }
        return [
            replace(ways[type(rule)](rule), rule=rule.model_dump(mode="json", exclude_none=True))
            for rule in self.rules.rules
        ]

    def _adjusted(
        self, method: Callable[[Sequence[float]], list[float]], *, blocking: bool
    ) -> dict[str, float]:
        """p of a drop by task, over the tasks of all rules that block, or of those that do not."""
        margins = [rule for rule in self.rules.rules if isinstance(rule, NonInferiority)]
        tasks = sorted({rule.recipe for rule in margins if rule.blocking is blocking})
        adjusted = method([self.compared[task].paired.p_drop for task in tasks])
        return dict(zip(tasks, adjusted, strict=True))

    def _non_inferiority(self, rule: NonInferiority) -> RuleVerdict:
        one = self.compared[rule.recipe]
        measure = measure_of(one.metric)
        paired, p_drop = one.paired, self.p_drop[rule.blocking][rule.recipe]
        figures = {key: value for key, value in one.to_json().items() if key != "flips"}
        lost = [flip.id for flip in one.flips if flip.lost]
        figures |= {"p_drop_adjusted": p_drop, "lost_items": lost}
        low, high = measure.bounds(paired.low, paired.high)
        said = (
            f"{measure.shown(one.baseline)} → {measure.shown(one.candidate)}, "
            f"{measure.step(paired.delta)} {measure.unit} ({low} to {high}"
        )
        if self.noise:
            known = self.noise.tasks[rule.recipe]
            said += f" with the noise of {self.noise.runs} A/A runs"
            figures["noise"] = {
                "runs": self.noise.runs,
                "between_sd": known.between_sd,
                "extra_sd": math.sqrt(known.extra_variance),
                "unsteady_flips": [flip.id for flip in one.flips if flip.id in known.unsteady],
            }
        said += ")"
        missing = one.left_out["unmatched"] + one.left_out["errors"]
        if missing > self.rules.errors * (paired.n + missing):
            return self._error(f"{missing} of {paired.n + missing} items have no pair of scores",
                               figures, blocking=rule.blocking)  # fmt: skip
        margin, drop = f"{measure.scale * rule.margin:g}", "drop" if measure.sign > 0 else "rise"
        if paired.lower > -rule.margin:
            verdict, message = PASS, f"not worse by {margin}: {said}"
        elif p_drop <= self.rules.alpha and -paired.delta >= rule.least_drop:
            verdict, message = FAIL, f"worse: {said}, p {p_drop:.2g}"
        else:
            verdict = INCONCLUSIVE
            message = f"{said}: {paired.n} items cannot rule out a {drop} of {margin}"
            if one.detectable > rule.margin:
                message += f"; they show {drop}s from {measure.shown(one.detectable)} on"
        return RuleVerdict({}, verdict, message, rule.blocking, figures)

    def _bound(self, rule: Floor | Ceiling) -> RuleVerdict:
        metric = self.candidate.info.tasks[rule.recipe].metric
        measure = measure_of(metric)
        if (measure.sign > 0) is not isinstance(rule, Floor):
            better, other = ("more", "floor") if measure.sign > 0 else ("less", "ceiling")
            raise UserError(f"{rule.type} {rule.task}: {better} {metric} is better; use a {other}")
        records, failed = self._scored(rule.recipe)
        if not records or failed > self.rules.errors * (failed + len(records)):
            return self._error(f"{failed} of {failed + len(records)} samples failed", {})
        values = [value_of(metric, record) for record in records]
        score = weighted_mean(values, weights_of(metric, records))
        bound = rule.minimum if isinstance(rule, Floor) else rule.maximum
        kept = measure.sign * score >= measure.sign * bound
        sign = ("≥" if kept else "<") if measure.sign > 0 else ("≤" if kept else ">")
        message = f"{measure.shown(score)} {sign} {measure.scale * bound:g}"
        verdict = PASS if kept else FAIL
        return RuleVerdict({}, verdict, message, figures={"score": score, "n": len(records)})

    def _must_pass(self, rule: MustPass) -> RuleVerdict:
        metric = self.candidate.info.tasks[rule.recipe].metric
        if (measure := measure_of(metric)) is not SHARE:
            other = "floor" if measure.sign > 0 else "ceiling"
            raise UserError(
                f"must_pass {rule.task}: {metric} makes no item right or wrong; use a {other}"
            )
        records = self.candidate.of(rule.recipe)
        items = [item for item in rule.items if (rule.recipe, item) not in self.held]
        unknown = [item for item in items if item not in records]
        if unknown:
            raise UserError(f"must_pass: {self.candidate.folder} has no item {unknown[0]} of "
                            f"{rule.recipe}")  # fmt: skip
        failed = [item for item in items if not records[item].counted]
        if failed:
            why = records[failed[0]].error or "the recipe excludes it"
            return self._error(f"{failed[0]} could not be judged: {why}", {})
        wrong = [item for item in items if records[item].values.get(metric, 0.0) < 1.0]
        if wrong:
            message = f"{len(wrong)} of {len(items)} are wrong: {', '.join(wrong)}"
            return RuleVerdict({}, FAIL, message, figures={"wrong": wrong})
        return RuleVerdict({}, PASS, f"all {len(items)} are right")

    def _budget(self, rule: Budget) -> RuleVerdict:
        counts = counts_of(list(self.candidate.of(rule.recipe).values()))
        n = counts["samples"] - counts["excluded"]
        over = [name for name, limit in rule.limits.items() if counts[name] > limit * n]
        said = ", ".join(
            f"{name.replace('_', ' ')} {counts[name]} of {n} (at most {limit:.1%})"
            for name, limit in rule.limits.items()
        )
        verdict = ERROR if over == ["errors"] else FAIL if over else PASS
        return RuleVerdict({}, verdict, said, figures={name: counts[name] for name in rule.limits})

    def _ratio(self, rule: Ratio) -> RuleVerdict:
        before, after = (figure_of(run, rule.figure) for run in (self.baseline, self.candidate))
        if not before or not after:
            return self._error(f"{rule.figure} was not measured in both runs", {})
        ratio = low = high = after / before
        figures: dict[str, Any] = {"baseline": before, "candidate": after, "ratio": ratio}
        said = [_figure(rule.figure, one) for one in (before, after)]
        message = f"{rule.figure.replace('_', ' ')} {' → '.join(said)}, {ratio:.2f} times"
        if self.noise and rule.figure in self.noise.log_sd:
            low, high = self.noise.ratio_between(rule.figure, ratio, self.rules.alpha)
            figures |= {"low": low, "high": high, "runs": self.noise.runs}
            message += f" ({low:.2f} to {high:.2f} with the noise of {self.noise.runs} A/A runs)"
        least, most = rule.least or 0.0, rule.most or math.inf
        if least <= low and high <= most:
            verdict = PASS
        else:
            verdict = FAIL if high < least or low > most else INCONCLUSIVE
        return RuleVerdict({}, verdict, message, figures=figures)

    def _kept(self, run: Run) -> Run:
        return replace(run, samples=[s for s in run.samples if (s.task, s.id) not in self.held])

    def _scored(self, task: str) -> tuple[list[SampleRecord], int]:
        records = self.candidate.of(task).values()
        scored = [record for record in records if record.counted]
        return scored, sum(record.status == "error" for record in records)

    def _error(
        self, message: str, figures: dict[str, Any], *, blocking: bool = True
    ) -> RuleVerdict:
        return RuleVerdict({}, ERROR, message, blocking, figures)


def _figure(name: Figure, value: float) -> str:
    return f"{value / 2**20:,.0f} MiB" if name == "peak_memory" else f"{value:.4g}"


def _name(run: Run) -> dict[str, Any]:
    model = run.info.model
    named = {key: model.get(key) for key in ("name", "fingerprint", "dtype")}
    return {"folder": str(run.folder), **named}
