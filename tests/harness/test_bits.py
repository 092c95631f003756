"""Bits per byte from the solver to the gate: less is better, and texts weigh as their bytes."""

from __future__ import annotations

import json
import math
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from qwen_eval.compare import compare_runs
from qwen_eval.errors import RefusedError, UserError
from qwen_eval.explain import explain
from qwen_eval.gate import judge
from qwen_eval.history import read_history
from qwen_eval.measures import BITS_PER_BYTE, SHARE, measure_of, weights_of
from qwen_eval.metrics import estimate_of, summarise
from qwen_eval.noise import measure
from qwen_eval.paired import difference
from qwen_eval.results import Run, SampleRecord
from qwen_eval.rules import Rules
from qwen_eval.run_writer import RunWriter
from qwen_eval.runner import replay
from qwen_eval.stats import mean_interval, weighted_mean
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.trends import series
from qwen_eval.types import Prompt, Response
from tests.harness.toys import item, record, run_info, task_info

TODAY = date(2026, 11, 25)
rng = np.random.default_rng(5)
BYTES = rng.integers(200, 1200, 40).astype(float)
BASE = rng.normal(1.5, 0.3, 40)
NOISE = rng.normal(0.0, 0.01, 40)
NOISE -= (NOISE * BYTES).sum() / BYTES.sum()  # so that a change is what it is called


def texts(bits: np.ndarray, sizes: np.ndarray = BYTES, **fields: Any) -> list[SampleRecord]:
    return [
        record(i, values={"bits_per_byte": float(b), "bytes": float(n)}, group="", answer=None,
               target="", task="toy@strict", **fields)
        for i, (b, n) in enumerate(zip(bits, sizes, strict=True))
    ]  # fmt: skip


def run_of(bits: np.ndarray, sizes: np.ndarray = BYTES) -> Run:
    info = task_info(metric="bits_per_byte", solver="perplexity", selected=len(bits))
    tasks = {"toy@strict": info}
    return Run(Path("r"), run_info(tasks=tasks), texts(bits, sizes), finished=True)


# --- what is measured ---------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["plain words", "月落乌啼霜满天", "🙂\n"])
def test_a_uniform_model_needs_the_logarithm_of_its_vocabulary(text: str) -> None:
    vocabulary, tokens = 8192, 7
    asked = item(1, metric="bits_per_byte", prompt=Prompt(text))
    reply = Response(logprobs=(-math.log(vocabulary),) * tokens)
    score = replay(SOLVERS["perplexity"](asked), [reply])
    size = len(text.encode("utf-8"))
    assert score.values["bits_per_byte"] == pytest.approx(13 * tokens / size)
    assert score.values["bytes"] == size


def test_the_mean_is_all_bits_over_all_bytes_and_its_interval_a_ratios() -> None:
    found = estimate_of("bits_per_byte", texts(BASE))
    assert found is not None
    y, x, n = BASE * BYTES, BYTES, 40
    ratio = y.sum() / x.sum()
    assert found.estimate == pytest.approx(ratio)
    # Cochran's ratio estimator, written with sums of squares and products.
    variance = y.var(ddof=1) + ratio**2 * x.var(ddof=1) - 2 * ratio * np.cov(x, y)[0, 1]
    half = stats.t.ppf(0.975, n - 1) * math.sqrt(variance / n) / x.mean()
    assert (found.low, found.high) == pytest.approx((ratio - half, ratio + half))
    assert found.method == "ratio, student-t"


def test_equal_weights_change_nothing() -> None:
    values = BASE.tolist()
    assert mean_interval(values, weights=[3.0] * 40) == pytest.approx(mean_interval(values))
    assert weighted_mean(values, [3.0] * 40) == pytest.approx(weighted_mean(values))
    a, b = (
        difference(values, (BASE + NOISE).tolist()),
        difference(values, (BASE + NOISE).tolist(), weights=[7.0] * 40),
    )
    for name in ("delta", "low", "high", "p_drop", "p_gain"):
        assert getattr(a, name) == pytest.approx(getattr(b, name))


def test_the_ratios_interval_covers_as_often_as_it_says() -> None:
    random, inside = np.random.default_rng(1), 0
    for _ in range(1000):
        x = random.lognormal(6, 0.5, 40)
        y = x * (1.5 + 0.3 * random.standard_normal(40) - 0.1 * np.log(x / 400))
        low, high = mean_interval((y / x).tolist(), weights=x.tolist())
        # The mean of y over that of x, from the moments of the log-normal.
        mean_x = math.exp(6 + 0.125)
        mean_xlog = mean_x * (6 + 0.25 - math.log(400))
        truth = (1.5 * mean_x - 0.1 * mean_xlog) / mean_x
        inside += low <= truth <= high
    assert 920 <= inside <= 975


def test_values_between_nought_and_one_are_no_shares() -> None:
    found = summarise("toy@strict", "bits_per_byte", texts(np.zeros(3), BYTES[:3]))
    assert found.overall is not None
    assert (found.overall.low, found.overall.high) == (0.0, 0.0)
    assert measure_of("accuracy") is SHARE


@pytest.mark.parametrize("values", [{"bits_per_byte": 1.0}, {"bytes": 9.0}, {}])
def test_a_text_without_figures_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="0001: has no bits_per_byte with its bytes"):
        weights_of("bits_per_byte", [record(1, values=values)])


# --- two runs -----------------------------------------------------------------------------------


def test_a_rise_is_a_loss() -> None:
    (one,) = compare_runs(run_of(BASE), run_of(BASE + 0.05 + NOISE))
    change = float((BYTES * (0.05 + NOISE)).sum() / BYTES.sum())
    assert one.candidate - one.baseline == pytest.approx(change)
    assert one.paired.delta == pytest.approx(-change)
    assert one.paired.high < 0
    assert one.paired.p_drop < 0.001 < one.paired.p_gain
    assert (one.lost, one.gained) == (40, 0)
    assert all(flip.lost for flip in one.flips)
    (back,) = compare_runs(run_of(BASE + 0.05 + NOISE), run_of(BASE))
    assert back.paired.delta == pytest.approx(change)
    assert (back.lost, back.gained) == (0, 40)


def test_the_paired_interval_is_near_that_of_the_linearised_ratio() -> None:
    (one,) = compare_runs(run_of(BASE), run_of(BASE + 0.05 + NOISE))
    residual = BYTES * ((0.05 + NOISE) - (-one.paired.delta))
    error = math.sqrt(40 / 39 * float(residual @ residual)) / BYTES.sum()
    assert one.paired.error == pytest.approx(error, rel=0.08)
    assert one.paired.high - one.paired.low == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_texts_of_other_lengths_are_not_compared() -> None:
    with pytest.raises(RefusedError, match="do not weigh the same in both runs"):
        compare_runs(run_of(BASE), run_of(BASE, BYTES + 1))


def test_an_item_weighs_its_share_of_the_bytes() -> None:
    found = explain("0003", run_of(BASE), run_of(BASE), today=TODAY)["tasks"][0]
    assert found["weight"] == pytest.approx(BYTES[3] / BYTES.sum())


# --- the gate -----------------------------------------------------------------------------------


def ruled(**rule: Any) -> Rules:
    return Rules.model_validate({"rules": [{"task": "toy", **rule}]})


@pytest.mark.parametrize(
    ("change", "verdict"),
    [(0.0, "PASS"), (-0.05, "PASS"), (0.005, "PASS"), (0.05, "FAIL"), (0.0195, "INCONCLUSIVE")],
)
def test_non_inferiority_has_a_margin_in_bits(change: float, verdict: str) -> None:
    rules = ruled(type="non_inferiority", margin=0.02)
    found = judge(rules, run_of(BASE), run_of(BASE + change + NOISE), today=TODAY)
    (one,) = found.rules
    assert one.verdict == verdict, one.message
    if change:
        assert f"{change:+.3f}"[:4] in one.message or verdict == "INCONCLUSIVE"
    assert "bits per byte" in one.message
    assert "points" not in one.message


@pytest.mark.parametrize(("maximum", "verdict", "sign"), [(1.2, "FAIL", ">"), (2, "PASS", "≤")])
def test_a_ceiling_holds_the_score(maximum: float, verdict: str, sign: str) -> None:
    found = judge(ruled(type="ceiling", maximum=maximum), run_of(BASE), run_of(BASE), today=TODAY)
    score = (BASE * BYTES).sum() / BYTES.sum()
    assert found.rules[0].verdict == verdict
    assert found.rules[0].message == f"{score:.4f} {sign} {maximum:g}"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"type": "floor", "minimum": 1.0}, "less bits_per_byte is better; use a ceiling"),
        ({"type": "must_pass", "items": ["0001"]}, "bits_per_byte makes no item right or wrong"),
    ],
)
def test_rules_of_right_and_wrong_are_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        judge(ruled(**rule), run_of(BASE), run_of(BASE), today=TODAY)


def test_a_ceiling_on_shares_is_refused() -> None:
    run = Run(Path("r"), run_info(), [record(1)], finished=True)
    with pytest.raises(UserError, match="more accuracy is better; use a floor"):
        judge(ruled(type="ceiling", maximum=1.0), run, run, today=TODAY)


def test_noise_is_of_the_weighted_mean() -> None:
    runs = [run_of(BASE + shift) for shift in (0.0, 0.01, 0.03)]
    found = measure(runs).tasks["toy@strict"]
    ratios = [float(((BASE + s) * BYTES).sum() / BYTES.sum()) for s in (0.0, 0.01, 0.03)]
    assert found.scores == pytest.approx(ratios)
    assert found.between_sd == pytest.approx(float(np.std(ratios, ddof=1)))


# --- over time ----------------------------------------------------------------------------------


def test_history_finds_a_rise_and_calls_it_a_loss(tmp_path: Path) -> None:
    for day in range(8):
        folder = tmp_path / f"r{day}"
        bits = BASE + (0.1 if day >= 5 else 0.0) + rng.normal(0, 0.003, 40)
        run = run_of(bits)
        started = f"2026-01-0{day + 1}T00:00:00+00:00"
        info = run_info(tasks=run.info.tasks, invocations=[{"started": started}])
        writer = RunWriter(folder, info, [])
        for one in run.samples:
            writer.add(one)
        metrics = summarise("toy@strict", "bits_per_byte", run.samples).to_json()
        order = [(one.task, one.id) for one in run.samples]
        writer.finish(order, {"tasks": {"toy@strict": metrics}})
        writer.close()
    for _ in range(2):  # the second time from the index
        (found,) = series(read_history([tmp_path]).results)
        (change,) = found.changes
        assert change.at == 5
        scores = [point.score for point in found.points if point.score is not None]
        step = sum(scores[5:]) / 3 - sum(scores[:5]) / 5
        assert change.delta == pytest.approx(-step)
    assert json.loads((tmp_path / "r0" / "metrics.json").read_text())["tasks"]


def test_a_figure_is_written_in_its_own_way() -> None:
    assert BITS_PER_BYTE.shown(1.23456) == "1.2346"
    assert BITS_PER_BYTE.step(-0.05) == "+0.0500", "a loss is a rise"
    assert BITS_PER_BYTE.bounds(-0.02, -0.01) == ("+0.0100", "+0.0200")
    assert SHARE.shown(0.613) == "61.3"
    assert SHARE.step(-0.012) == "-1.2"
    assert BITS_PER_BYTE.step(0.0) == BITS_PER_BYTE.step(-0.0) == "+0.0000"
    assert BITS_PER_BYTE.shown(-1e308) == "−∞"
