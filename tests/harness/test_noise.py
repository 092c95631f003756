"""Run-to-run noise: the estimator against theory, the gate with and without it, by simulation."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from statistics import stdev
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.compare import compare_runs
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.gate import judge
from qwen_eval.noise import Noise, TaskNoise, measure, noise_from, variances, with_noise
from qwen_eval.results import Run
from tests.harness.test_gate import TODAY, TOY, ruled, run_of, scores

Scores = list[float]


def toy(values: Scores, **more: Any) -> Run:
    return replace(run_of({"toy": values}), **more)


def noise_of(*runs: Scores) -> Noise:
    return measure([toy(values) for values in runs])


# --- the estimator ------------------------------------------------------------------------------


def test_it_is_the_two_way_layout_by_statsmodels() -> None:
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    random = np.random.default_rng(1)
    x = random.random((4, 20)) + random.normal(0, 0.3, (4, 1))
    long = pd.DataFrame([{"run": r, "item": i, "x": x[r, i]} for r in range(4) for i in range(20)])
    table = anova_lm(ols("x ~ C(run) + C(item)", long).fit())
    mean_square = table["sum_sq"] / table["df"]
    between, flips, extra = variances(x)
    assert between == pytest.approx(mean_square["C(run)"] / 20)
    assert flips == pytest.approx(mean_square["Residual"] / 20)
    assert extra == pytest.approx(between - flips)
    assert between == pytest.approx(stdev(x.mean(axis=1)) ** 2)


def repeated(
    random: np.random.Generator, chance: np.ndarray, shift: float, runs: int
) -> np.ndarray:
    """Right or wrong, each item by its own chance, every run shifted as a whole."""
    moved = chance + random.normal(0, shift, (runs, 1))
    return (random.random((runs, len(chance))) < moved).astype(float)


def test_the_estimate_is_the_truth_in_the_mean() -> None:
    """Items of unlike steadiness; the cut at zero is looked at where it does not bite."""
    random = np.random.default_rng(2)
    chance = random.choice([0.2, 0.5, 0.8], 400)
    for shift in (0.0, 0.03, 0.06):
        found = np.array([variances(repeated(random, chance, shift, 4)) for _ in range(1500)])
        between, flips, extra = found.T
        # A shift moves an item's variance p(1 - p), too: E p(1 - p) = p(1 - p) - shift².
        truth = float((chance * (1 - chance)).mean() - shift**2) / 400
        assert flips.mean() == pytest.approx(truth, rel=0.01)
        uncut = between - flips
        assert abs(uncut.mean() - shift**2) < 4 * uncut.std() / math.sqrt(1500)
        assert (extra == np.maximum(uncut, 0)).all()
        if shift == 0.06:
            assert extra.mean() == pytest.approx(shift**2, rel=0.06)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(3, 6))
def test_equal_runs_have_no_noise_to_the_last_bit(values: Scores, runs: int) -> None:
    assert variances(np.array([values] * runs)) == (0.0, 0.0, 0.0)


@given(st.integers(0, 2**32 - 1), st.integers(3, 5), st.integers(1, 12))
def test_parts_are_never_negative_and_order_does_not_matter(seed: int, runs: int, n: int) -> None:
    random = np.random.default_rng(seed)
    x = random.integers(0, 3, (runs, n)) / 2
    found = variances(x)
    assert min(found) >= 0
    assert variances(random.permutation(x)) == pytest.approx(found, abs=1e-15)
    assert variances(random.permutation(x, axis=1)) == pytest.approx(found, abs=1e-15)


def test_a_shift_of_everything_is_extra_and_nothing_else() -> None:
    base = np.linspace(0, 0.5, 30)
    between, flips, extra = variances(base + np.array([[0.0], [0.1], [0.2]]))
    assert (between, extra) == pytest.approx((0.01, 0.01))
    assert flips == pytest.approx(0, abs=1e-20)


# --- what is recorded ---------------------------------------------------------------------------


def test_the_unsteady_items_and_how_often() -> None:
    found = noise_of([1, 1, 0, 1], [1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 0, 1]).tasks["toy@strict"]
    assert found.unsteady == {"0001": 1, "0002": 1, "0003": 2}
    assert (found.n, found.scores) == (4, (0.75, 0.25, 0.75, 0.75))
    assert found.between_sd == pytest.approx(0.25)


def test_items_without_a_score_in_every_run_are_left_out() -> None:
    runs = [toy([1, 0, 1, 1]) for _ in range(3)]
    failed = [replace(s, status="error") if i == 3 else s for i, s in enumerate(runs[1].samples)]
    found = measure([runs[0], replace(runs[1], samples=failed), runs[2]])
    assert found.tasks["toy@strict"].n == 3
    none = replace(runs[1], samples=[replace(s, status="error") for s in runs[1].samples])
    with pytest.raises(RefusedError, match="toy@strict: no item has a score in all 3 runs"):
        measure([runs[0], none, runs[2]])
    with pytest.raises(ValueError, match="at least 3"):
        measure(runs[:2])


def timed(seconds: float, memory: int | None = None) -> Run:
    starts = [{"samples": 60, "tokens": 600, "seconds": seconds, "peak_memory": memory}]
    run = toy([1.0] * 60)
    return replace(run, info=replace(run.info, invocations=starts))


def test_figures_that_all_runs_measured_have_a_log_sd() -> None:
    found = measure([timed(10, 100), timed(12, 100), timed(9)])
    logs = [math.log(60 / s) for s in (10, 12, 9)]
    assert found.log_sd == {
        "samples_per_second": pytest.approx(stdev(logs)),
        "tokens_per_second": pytest.approx(stdev(logs)),
    }


def test_the_record_comes_back_and_others_are_refused() -> None:
    found = measure([timed(10), timed(12), timed(9)])
    raw = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert noise_from(raw) == found
    for broken in (raw | {"schema": 2}, raw | {"tasks": [1]}, {"schema": 1}, raw | {"runs": "x"}):
        with pytest.raises(UserError, match="promote again"):
            noise_from(broken)


# --- in the gate --------------------------------------------------------------------------------


def known(between: float, extra: float, runs: int = 4, **figures: float) -> Noise:
    task = TaskNoise(100, (0.5,) * runs, math.sqrt(between), 0.0, extra, {"0000": 1})
    return Noise(runs, {"toy@strict": task}, figures)


@given(
    seed=st.integers(0, 10**6),
    extra=st.floats(0, 0.05),
    flips=st.floats(0, 0.05),
    runs=st.integers(3, 9),
    kind=st.sampled_from(["binary", "scores", "groups"]),
    alpha=st.sampled_from([0.01, 0.05, 0.2]),
)
def test_it_only_makes_the_gate_more_careful(
    seed: int, extra: float, flips: float, runs: int, kind: str, alpha: float
) -> None:
    random = np.random.default_rng(seed)
    a, b = random.random((2, 24))
    if kind != "scores":
        a, b = (a < 0.7).astype(float), (b < 0.5).astype(float)
    pair = [toy(list(x)) for x in (a, b)]
    if kind == "groups":
        pair = [
            replace(run, samples=[replace(s, group=f"g{i % 6}") for i, s in enumerate(run.samples)])
            for run in pair
        ]
    found = compare_runs(*pair, alpha=alpha)
    (before,) = found
    (after,) = with_noise(found, known(extra + flips, extra, runs), alpha)
    one, other = before.paired, after.paired
    slack = 1e-9
    assert (other.low, other.lower) <= (one.low + slack, one.lower + slack)
    assert (other.high, other.upper) >= (one.high - slack, one.upper - slack)
    assert min(other.p_drop - one.p_drop, other.p_gain - one.p_gain) >= 0
    assert after.detectable >= before.detectable - slack
    assert after.p_adjusted >= before.p_adjusted
    assert (other.delta, other.n) == (one.delta, one.n)
    if not extra:
        assert after == before


def test_much_noise_is_all_there_is() -> None:
    """Where the shift is far larger than the items' error, the bound is Student's over the runs."""
    from scipy.stats import t

    pair = toy([0.5 + i / 1e6 for i in range(50)]), toy([0.4 + i / 9e5 for i in range(50)])
    (found,) = with_noise(compare_runs(*pair), known(0.0025, 0.0025, 4), 0.05)
    error = 0.05 * math.sqrt(2)
    delta = found.paired.delta
    assert found.paired.error == pytest.approx(error, rel=1e-3)
    assert found.paired.lower == pytest.approx(delta - t.ppf(0.95, 3) * error, rel=1e-3)
    assert found.paired.upper == pytest.approx(delta + t.ppf(0.95, 3) * error, rel=1e-3)
    assert found.paired.high == pytest.approx(delta + t.ppf(0.975, 3) * error, rel=1e-3)
    assert found.paired.low == pytest.approx(delta - t.ppf(0.975, 3) * error, rel=1e-3)
    power = t.ppf(0.95, 3) + t.ppf(0.8, 3)
    assert found.detectable == pytest.approx(power * error, rel=1e-3)
    (mirrored,) = with_noise(compare_runs(*reversed(pair)), known(0.0025, 0.0025, 4), 0.05)
    assert mirrored.paired.p_gain == pytest.approx(found.paired.p_drop, rel=0.01)
    # 10,000 sign flips are never surer than one in 10,000, which adds a little.
    assert found.paired.p_drop == pytest.approx(t.cdf(delta / error, 3), rel=0.03)


def test_an_extra_that_is_hardly_known_leaves_one_degree_of_freedom() -> None:
    """A/A runs of many flips say little of the shift; a candidate without one still gets bounds."""
    from scipy.stats import t

    found = compare_runs(toy(scores(1000, 0)), toy(scores(1000, 0)))
    (after,) = with_noise(found, known(0.01, 1e-6), 0.05)
    error = math.sqrt((-found[0].paired.lower / 1.6449) ** 2 + 2e-6)
    assert after.paired.lower == pytest.approx(-t.ppf(0.95, 1) * error, rel=1e-3)


def test_p_values_are_adjusted_after_the_noise() -> None:
    runs = [run_of({name: scores(200, wrong) for name, wrong in zip("ab", pair, strict=True)})
            for pair in ((0, 0), (20, 9))]  # fmt: skip
    one = known(0.0001, 0.0001).tasks["toy@strict"]
    noise = Noise(4, {"a@strict": one, "b@strict": one}, {})
    found = with_noise(compare_runs(*runs), noise, 0.05)
    least, most = sorted(task.paired.p for task in found)
    assert sorted(task.p_adjusted for task in found) == pytest.approx([2 * least, most])


def test_a_drop_inside_the_noise_does_not_fail_and_the_message_says_why() -> None:
    rules = ruled(TOY)
    before, after = toy(scores(1000, 0)), toy(scores(1000, 40))
    assert judge(rules, before, after, today=TODAY).verdict == "FAIL"
    found = judge(rules, before, after, today=TODAY, noise=known(0.0009, 0.0009))
    (rule,) = found.rules
    assert found.verdict == "INCONCLUSIVE"
    assert "with the noise of 4 A/A runs" in rule.message
    assert rule.figures["noise"] == {
        "runs": 4,
        "between_sd": pytest.approx(0.03),
        "extra_sd": pytest.approx(0.03),
        "unsteady_flips": ["0000"],
    }
    steady = judge(rules, before, after, today=TODAY, noise=known(0.0, 0.0))
    assert steady.verdict == "FAIL"
    assert "with the noise of 4 A/A runs" in steady.rules[0].message
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("seconds", "limits", "word"),
    [
        (10.0, {"least": 0.5}, "PASS"),
        (12.5, {"least": 0.8}, "INCONCLUSIVE"),
        (11.8, {"least": 0.8}, "INCONCLUSIVE"),  # a pass without noise, a wide interval with it
        (13.5, {"least": 0.8}, "INCONCLUSIVE"),  # a failure without it
        (30.0, {"least": 0.8}, "FAIL"),
        (5.0, {"most": 1.2}, "FAIL"),
        (9.0, {"most": 1.2}, "INCONCLUSIVE"),
        (10.0, {"least": 0.5, "most": 2.0}, "PASS"),
    ],
)
def test_a_ratio_fails_where_its_whole_interval_does(
    seconds: float, limits: dict[str, float], word: str
) -> None:
    from scipy.stats import t

    rules = ruled({"type": "ratio", "figure": "samples_per_second"} | limits)
    noise = known(0, 0, 4, samples_per_second=0.1)
    found = judge(rules, timed(10), timed(seconds), today=TODAY, noise=noise)
    (rule,) = found.rules
    ratio, reach = 10 / seconds, math.exp(t.ppf(0.95, 3) * 0.1 * math.sqrt(2))
    assert (rule.figures["low"], rule.figures["high"]) == pytest.approx(
        (ratio / reach, ratio * reach)
    )
    assert rule.verdict == word
    assert "with the noise of 4 A/A runs" in rule.message
    without = judge(rules, timed(10), timed(seconds), today=TODAY)
    assert without.verdict in ("PASS", "FAIL")
    assert "A/A" not in without.rules[0].message


def test_peak_memory_is_the_largest_of_all_starts() -> None:
    from qwen_eval.metrics import figure_of

    run = timed(10)
    starts = [{"peak_memory": 2**30}, {"peak_memory": 3 * 2**30}, {"samples": 3}]
    other = replace(run, info=replace(run.info, invocations=starts))
    assert figure_of(other, "peak_memory") == 3 * 2**30
    assert figure_of(run, "peak_memory") is None
    rules = ruled({"type": "ratio", "figure": "peak_memory", "most": 1.1})
    found = judge(rules, timed(10, 2**30), other, today=TODAY)
    assert found.verdict == "FAIL"
    assert "peak memory 1,024 MiB → 3,072 MiB, 3.00 times" in found.rules[0].message
    assert judge(rules, run, other, today=TODAY).verdict == "ERROR"


# --- how often it is wrong, by simulation -------------------------------------------------------


def rates(shift: float, runs: int, rounds: int, n: int = 300) -> tuple[float, float]:
    """How often the gate fails an equal model with noise.json and without. Its candidate is one
    more run; so every failure is a false one."""
    random = np.random.default_rng(runs)
    rules = ruled(TOY | {"margin": 1e-9})
    failed = np.zeros(2)
    for _ in range(rounds):
        chance = random.uniform(0.15, 0.85, n)
        *aa, candidate = (toy(list(x)) for x in repeated(random, chance, shift, runs + 1))
        noise = measure(aa)
        words = (
            judge(rules, aa[0], candidate, today=TODAY, noise=known).verdict
            for known in (noise, None)
        )
        failed += [word == "FAIL" for word in words]
    return failed[0] / rounds, failed[1] / rounds


@pytest.mark.slow
@pytest.mark.parametrize("runs", [3, 5])
def test_equal_models_with_a_shared_shift_are_rarely_failed(runs: int) -> None:
    rounds = 600
    informed, blind = rates(0.04, runs, rounds)
    assert informed <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)
    assert blind > 0.12
    assert blind > 3 * informed


@pytest.mark.slow
def test_without_a_shift_little_power_is_lost() -> None:
    """Five points over 1,000 items of which few are unsteady."""
    random = np.random.default_rng(9)
    rules, caught = ruled(TOY), np.zeros(2)
    for _ in range(200):
        chance = random.choice([0.02, 0.98], 1000, p=[0.4, 0.6])
        *aa, worse = (toy(list(x)) for x in repeated(random, chance, 0.0, 5))
        drop = random.random(1000) < 0.05 / 0.6
        after = toy([0.0 if d else s.values["accuracy"] for d, s in
                     zip(drop, worse.samples, strict=True)])  # fmt: skip
        for i, noise in enumerate((measure(aa), None)):
            found = judge(rules, aa[0], after, today=TODAY, noise=noise)
            caught[i] += found.verdict == "FAIL"
    assert caught[1] > 180
    assert caught[0] > 0.9 * caught[1]
