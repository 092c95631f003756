"""The gate: what each rule ends in, and how often it is wrong."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import date
from pathlib import Path
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pytest

from qwen_eval.errors import RefusedError, UserError
from qwen_eval.gate import Verdict, judge
from qwen_eval.paired import holm, mcnemar
from qwen_eval.results import Run
from qwen_eval.rules import Rules, read_rules
from qwen_eval.types import RUN_PROGRAMS
from tests.harness.toys import record, run_info, task_info

TODAY = date(2026, 11, 25)
TOY = {"task": "toy", "type": "non_inferiority", "margin": 0.02}


def run_of(values: dict[str, list[float]], **info: Any) -> Run:
    """A finished run with these scores per task, ids being places."""
    tasks = {f"{name}@strict": task_info(recipe=f"{name}@strict", selected=len(v), **info)
             for name, v in values.items()}  # fmt: skip
    samples = [
        record(i, value, task=f"{name}@strict", group="")
        for name, scores in values.items()
        for i, value in enumerate(scores)
    ]
    return Run(Path("r"), run_info(tasks=tasks), samples, finished=True)


def ruled(*rules: dict[str, Any], **more: Any) -> Rules:
    return Rules.model_validate({"rules": rules, **more})


def verdict(rules: Rules, before: list[float], after: list[float]) -> Verdict:
    return judge(rules, run_of({"toy": before}), run_of({"toy": after}), today=TODAY)


@pytest.mark.parametrize("solver", sorted(RUN_PROGRAMS))
def test_programs_that_nothing_contained_are_refused(solver: str) -> None:
    """Before any rule: a forged verdict would pass a floor as well."""
    rules = ruled({"task": "toy", "type": "floor", "minimum": 0.5})
    free, held = (run_of({"toy": [1.0] * 9}, solver=solver) for _ in range(2))
    free = replace(free, info=replace(free.info, isolation="none"))
    for runs in ((held, free), (free, held)):
        with pytest.raises(RefusedError, match=r"without a sandbox .* --allow isolation"):
            judge(rules, *runs, today=TODAY)
        assert judge(rules, *runs, today=TODAY, allow=["isolation"]).verdict == "PASS"
    assert judge(rules, held, held, today=TODAY).verdict == "PASS"
    answers = run_of({"toy": [1.0] * 9})
    answers = replace(answers, info=replace(answers.info, isolation="none"))
    assert judge(rules, answers, answers, today=TODAY).verdict == "PASS", "it ran no programs"


def scores(n: int, wrong: int) -> list[float]:
    return [0.0] * wrong + [1.0] * (n - wrong)


# --- non-inferiority ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "lost", "margin", "min_effect", "word", "code"),
    [
        (1000, 0, 0.02, None, "PASS", 0),
        (1000, 60, 0.02, None, "FAIL", 1),
        (40, 1, 0.02, None, "INCONCLUSIVE", 0),  # too few to rule out 2 points
        (40, 20, 0.02, None, "FAIL", 1),
        (5000, 30, 0.02, None, "PASS", 0),  # a proven drop of 0.6 points is no failure
        (1000, 18, 0.02, None, "INCONCLUSIVE", 0),  # proven, but below the margin; not ruled out
        (1000, 18, 0.02, 0.01, "FAIL", 1),
        (1000, 18, 0.02, 0.0, "FAIL", 1),
        (60, 4, 0.02, 0.0, "INCONCLUSIVE", 0),  # p is 0.0625
        (60, 5, 0.02, 0.0, "FAIL", 1),  # p is 0.031
    ],
)
def test_non_inferiority(
    n: int, lost: int, margin: float, min_effect: float | None, word: str, code: int
) -> None:
    rule = {"task": "toy", "type": "non_inferiority", "margin": margin}
    rule |= {} if min_effect is None else {"min_effect": min_effect}
    found = verdict(ruled(rule), scores(n, 0), scores(n, lost))
    assert (found.verdict, found.exit_code) == (word, code)
    assert found.rules[0].verdict == word


def test_the_one_sided_bound_decides() -> None:
    before, after = scores(1000, 0), scores(1000, 10)
    figures = verdict(ruled(TOY), before, after).rules[0].figures["paired"]
    assert figures["low"] < figures["lower"]
    between = -(figures["low"] + figures["lower"]) / 2
    assert verdict(ruled(TOY | {"margin": between}), before, after).verdict == "PASS"


def test_inconclusive_fails_where_the_rules_say_so() -> None:
    found = verdict(ruled(TOY, inconclusive="fail"), scores(40, 0), scores(40, 1))
    assert (found.verdict, found.exit_code) == ("INCONCLUSIVE", 5)
    assert "they show drops from" in found.rules[0].message


def test_a_rule_that_does_not_block_is_told_and_does_not_fail() -> None:
    found = verdict(ruled(TOY | {"blocking": False}), scores(1000, 0), scores(1000, 90))
    assert (found.verdict, found.exit_code, found.rules[0].verdict) == ("PASS", 0, "FAIL")


def test_p_values_are_adjusted_among_those_that_block_and_among_those_that_do_not() -> None:
    """Holm's for what fails a gate, Benjamini and Hochberg's for what only tells."""
    from statsmodels.stats.multitest import multipletests

    lost = {"a": 9, "b": 6, "c": 5, "d": 3}
    before = run_of({name: scores(60, 0) for name in lost})
    after = run_of({name: scores(60, wrong) for name, wrong in lost.items()})
    drops = [mcnemar(wrong, 0)[0] for wrong in lost.values()]
    for blocking, method in ((True, "holm"), (False, "fdr_bh")):
        some = [TOY | {"task": name, "blocking": blocking} for name in lost]
        other = TOY | {"task": "a", "blocking": not blocking}
        found = judge(ruled(*some, other), before, after, today=TODAY).rules
        adjusted = [one.figures["p_drop_adjusted"] for one in found]
        assert adjusted[:4] == pytest.approx(multipletests(drops, method=method)[1])
        assert adjusted[4] == pytest.approx(drops[0]), "alone on its side"


def test_failures_of_the_machine_are_no_regression() -> None:
    before, after = (run_of({"toy": scores(100, 0)}) for _ in range(2))
    samples = [
        replace(s, status="error", error="server down") if i < 3 else s
        for i, s in enumerate(after.samples)
    ]
    found = judge(ruled(TOY), before, replace(after, samples=samples), today=TODAY)
    assert (found.verdict, found.exit_code) == ("ERROR", 4)
    found = judge(ruled(TOY, errors=0.05), before, replace(after, samples=samples), today=TODAY)
    assert found.verdict != "ERROR"


# --- the other rules ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "word", "says"),
    [
        ({"type": "floor", "minimum": 0.9}, "PASS", "90.0 ≥ 90"),
        ({"type": "floor", "minimum": 0.91}, "FAIL", "90.0 < 91"),
        ({"type": "must_pass", "items": ["0063"]}, "PASS", "all 1 are right"),
        ({"type": "must_pass", "items": ["0063", "0009"]}, "FAIL", "1 of 2 are wrong: 0009"),
        ({"type": "budget", "no_answer": 0.03}, "PASS", "no answer 3 of 100 (at most 3.0%)"),
        ({"type": "budget", "no_answer": 0.02}, "FAIL", "no answer 3 of 100"),
        ({"type": "budget", "outputs_truncated": 0.0}, "PASS", "outputs truncated 0 of 100"),
    ],
)
def test_rules_about_the_candidate_alone(rule: dict[str, Any], word: str, says: str) -> None:
    candidate = run_of({"toy": scores(100, 10)})
    samples = [replace(s, status="no_answer") if i < 3 else s
               for i, s in enumerate(candidate.samples)]  # fmt: skip
    candidate = replace(candidate, samples=samples)
    found = judge(
        ruled({"task": "toy"} | rule), run_of({"toy": scores(100, 10)}), candidate, today=TODAY
    )
    assert found.rules[0].verdict == word
    assert says in found.rules[0].message


def test_errors_over_their_budget_are_the_machines() -> None:
    candidate = run_of({"toy": scores(100, 0)})
    samples = [replace(s, status="error", error="x") if i < 2 else s
               for i, s in enumerate(candidate.samples)]  # fmt: skip
    rules = ruled({"task": "toy", "type": "budget", "errors": 0.01})
    found = judge(
        rules, run_of({"toy": scores(100, 0)}), replace(candidate, samples=samples), today=TODAY
    )
    assert (found.verdict, found.exit_code) == ("ERROR", 4)


def test_what_a_recipe_excludes_is_no_failure() -> None:
    run = run_of({"toy": [1.0] * 400})
    excluded = [record(i, status="excluded", values={}, task="toy@strict") for i in range(400, 800)]
    both = replace(run, samples=[*run.samples, *excluded])
    for rule in (TOY, {"task": "toy", "type": "floor", "minimum": 1.0}):
        (found,) = judge(ruled(rule), both, both, today=TODAY).rules
        assert found.verdict == "PASS", found.message
    must = {"task": "toy", "type": "must_pass", "items": [excluded[0].id]}
    (found,) = judge(ruled(must), both, both, today=TODAY).rules
    assert (found.verdict, found.message) == (
        "ERROR",
        f"{excluded[0].id} could not be judged: the recipe excludes it",
    )
    # A budget is a share of what was asked: 5 of 400 are more than 1%, 5 of 800 are not.
    failed = [replace(one, status="error") for one in run.samples[:5]]
    some = replace(both, samples=[*failed, *both.samples[5:]])
    budget = {"task": "toy", "type": "budget", "errors": 0.01}
    (found,) = judge(ruled(budget), both, some, today=TODAY).rules
    assert found.verdict == "ERROR"
    assert "5 of 400" in found.message


def test_nearly_right_is_not_what_must_pass() -> None:
    rules = ruled({"task": "toy", "type": "must_pass", "items": ["0000", "0001"]})
    found = verdict(rules, [1.0, 1.0], [0.999, 1.0])
    assert (found.verdict, found.rules[0].figures) == ("FAIL", {"wrong": ["0000"]})


@pytest.mark.parametrize(("failed", "word"), [(2, "PASS"), (3, "ERROR")])
def test_a_floor_is_no_verdict_over_too_many_errors(failed: int, word: str) -> None:
    candidate = run_of({"toy": scores(100, 0)})
    samples = [replace(s, status="error", error="x") if i < failed else s
               for i, s in enumerate(candidate.samples)]  # fmt: skip
    rules = ruled({"task": "toy", "type": "floor", "minimum": 1.0})
    found = judge(
        rules, run_of({"toy": scores(100, 0)}), replace(candidate, samples=samples), today=TODAY
    )
    assert found.verdict == word


def timed(seconds: float) -> Run:
    run = run_of({"toy": scores(100, 0)})
    starts = [{"samples": 60, "seconds": seconds / 2}, {"samples": 40, "seconds": seconds / 2}]
    return replace(run, info=replace(run.info, invocations=starts))


def test_ratios_of_speed() -> None:
    rules = ruled({"type": "ratio", "figure": "samples_per_second", "least": 0.8})
    assert judge(rules, timed(10), timed(12), today=TODAY).verdict == "PASS"
    found = judge(rules, timed(10), timed(13), today=TODAY)
    assert (found.verdict, found.rules[0].figures["ratio"]) == ("FAIL", pytest.approx(10 / 13))
    found = judge(rules, timed(10), run_of({"toy": scores(100, 0)}), today=TODAY)
    assert (found.verdict, found.exit_code) == ("ERROR", 4)


# --- quarantine, refusals, schema ---------------------------------------------------------------


def test_a_quarantine_holds_until_its_day_and_not_after() -> None:
    held = [
        {"task": "toy", "item": f"{i:04x}", "until": day, "reason": "two right answers"}
        for i, day in enumerate(["2026-11-25", "2026-11-24"])
    ]
    rules = ruled({"task": "toy", "type": "floor", "minimum": 1.0}, quarantine=held)
    found = verdict(rules, scores(50, 0), scores(50, 1))
    assert found.verdict == "PASS"
    assert [q["item"] for q in found.quarantine] == ["0000"]
    assert found.warnings == (
        "quarantine of toy@strict 0001 ended on 2026-11-24: two right answers",
    )
    assert verdict(rules, scores(50, 0), scores(50, 2)).verdict == "FAIL"


def test_a_quarantine_is_of_one_task_and_holds_for_must_pass() -> None:
    held = [{"task": "a", "item": "0000", "until": "2026-11-25", "reason": "r"}]
    run = run_of({"a": scores(9, 1), "b": scores(9, 1)})
    for task, floor, must in (("a", "PASS", "PASS"), ("b", "FAIL", "FAIL")):
        rules = ruled(
            {"task": task, "type": "floor", "minimum": 1.0},
            {"task": task, "type": "must_pass", "items": ["0000", "0001"]},
            quarantine=held,
        )
        found = judge(rules, run, run, today=TODAY)
        assert [one.verdict for one in found.rules] == [floor, must]


def test_runs_that_cannot_be_compared_are_refused_whatever_the_rule() -> None:
    floor = ruled({"task": "toy", "type": "floor", "minimum": 0.0})
    a = run_of({"toy": scores(9, 0)})
    for b, field in (
        (run_of({"toy": scores(9, 0)}, data_kind="sample"), "data_kind"),
        (replace(a, finished=False), "not finished"),
    ):
        with pytest.raises(RefusedError, match=field):
            judge(floor, a, b, today=TODAY)


def test_unknown_tasks_and_items_are_the_users_to_mend() -> None:
    a = run_of({"toy": scores(9, 0)})
    with pytest.raises(UserError, match="rule 2: r has no task mmlu@strict; it has toy@strict"):
        judge(ruled(TOY, TOY | {"task": "mmlu"}), a, a, today=TODAY)
    with pytest.raises(UserError, match="has no item beef"):
        judge(ruled({"task": "toy", "type": "must_pass", "items": ["beef"]}), a, a, today=TODAY)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rules: []", "rules: Tuple should have at least 1 item"),
        ("[1]", "expected a mapping"),
        ("rules: [{task: a, type: floor}]", "rules, rule 1, floor, minimum: Field required"),
        ("rules: [{task: a, type: flor, minimum: 1}]", "rules, rule 1: Input tag 'flor'"),
        ("rules: [{type: ratio, figure: tokens_per_second}]", "names neither least nor most"),
        ("rules: [{task: a, type: budget}]", "names no limit"),
        ("rules: [{task: a, type: floor, minimum: 0}]\nalpha: 2", "alpha: Input should be less"),
        ("rules: [{task: a, type: floor, minimum: 0}]\nmargin: 2", "margin: Extra inputs"),
        ("rules: [", "not YAML"),
    ],
)
def test_a_mistake_in_the_rules_is_named(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "gate.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_rules(path)
    assert f"--rules {path}: " in str(caught.value)
    assert says in str(caught.value)


def test_the_verdict_is_plain_json() -> None:
    found = verdict(ruled(TOY), scores(90, 3), scores(90, 5))
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["schema"] == 1


# --- how often it is wrong, by simulation -------------------------------------------------------


def answers(
    random: np.random.Generator, n: int, discordance: float, delta: float
) -> tuple[list[float], list[float]]:
    """Before and after, right with chance 0.6; `discordance` of the items change sides."""
    up, down = (discordance + delta) / 2, (discordance - delta) / 2
    kinds = random.choice(4, n, p=[up, down, 0.6 - down, 0.4 - up])
    before, after = (np.isin(kinds, right).astype(float) for right in ((1, 2), (0, 2)))
    return list(before), list(after)


@pytest.mark.slow
@pytest.mark.parametrize(("metrics", "rounds", "n"), [(1, 400, 300), (8, 200, 150), (30, 80, 100)])
def test_equal_models_are_rarely_failed(metrics: int, rounds: int, n: int) -> None:
    random = np.random.default_rng(metrics)
    names = [f"t{i}" for i in range(metrics)]
    rules = ruled(*({"task": t, "type": "non_inferiority", "margin": 1e-6} for t in names))
    failed = 0
    for _ in range(rounds):
        pairs = {name: answers(random, n, 0.15, 0.0) for name in names}
        before, after = (run_of({t: pair[i] for t, pair in pairs.items()}) for i in (0, 1))
        failed += judge(rules, before, after, today=TODAY).verdict == "FAIL"
    assert failed / rounds <= 0.05 + 2 * math.sqrt(0.05 * 0.95 / rounds)


@pytest.mark.parametrize("metrics", [1, 8, 30])
def test_the_level_is_kept_over_all_metrics(metrics: int) -> None:
    """The same p-values as the gate's, many more rounds."""
    random = np.random.default_rng(metrics)
    rounds, failed = 3000, 0
    changed = random.binomial(1319, 0.15, (rounds, metrics))
    lost = random.binomial(changed, 0.5)
    for row, of in zip(lost, changed, strict=True):
        drops = [mcnemar(int(a), int(b - a))[0] for a, b in zip(row, of, strict=True)]
        failed += min(holm(drops)) <= 0.05
    assert failed / rounds <= 0.05
    assert failed / rounds >= 0.02


@pytest.mark.slow
def test_an_injected_drop_is_caught() -> None:
    """Three points over 1,319 items of which 15% change sides; the drop that fails is a point."""
    random = np.random.default_rng(3)
    rule = {"task": "toy", "type": "non_inferiority", "margin": 0.01}
    found = [verdict(ruled(rule), *answers(random, 1319, 0.15, -0.03)).verdict for _ in range(1000)]
    caught = fmean(word == "FAIL" for word in found)
    assert "PASS" not in found or found.count("PASS") / len(found) < 0.05
    normal = NormalDist()
    reach = normal.inv_cdf(0.95) * math.sqrt(0.15)
    theory = normal.cdf((0.03 * math.sqrt(1319) - reach) / math.sqrt(0.15 - 0.03**2))
    assert caught >= 0.85
    assert caught == pytest.approx(theory, abs=0.03)
