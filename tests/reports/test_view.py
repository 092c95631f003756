"""What a report finds: the same figures as the modules it stands on, and nothing left out."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.compare import compare_runs
from qwen_eval.reports.figures import duration, ends, p_value, scaled, shown, size, unit_of
from qwen_eval.reports.flips import difference
from qwen_eval.reports.outcome import are_shares, outcome, win_tie_loss
from qwen_eval.reports.view import build
from qwen_eval.stats import wilson_interval
from tests.harness.toys import record, task_info
from tests.reports.runs import a_run, answers


def test_scores_are_wilsons_and_outcomes_add_up() -> None:
    run = a_run(answers("1110-!"))
    (view,) = build([run]).runs
    score = view.scores["toy@strict"]
    assert score.overall is not None
    assert (score.overall.low, score.overall.high) == wilson_interval(3, 5)
    assert score.outcomes == {"right": 3, "wrong": 1, "no answer": 1, "not judged": 1}
    assert sum(score.outcomes.values()) == score.counts["samples"] == 6


def test_pairs_are_compare_runs_own() -> None:
    a, b = a_run(answers("1110111101"), "a"), a_run(answers("0110110101"), "b")
    (pair,) = build([a, b]).pairs
    expected = compare_runs(a, b, allow=("unfinished",))
    assert list(pair.tasks) == expected
    assert [one.flip.id for one in pair.changed["toy@strict"]] == ["0000", "0006"]


def test_what_cannot_be_compared_is_said_and_does_not_stop_the_page() -> None:
    a = a_run(answers("11"), "a")
    b = a_run(answers("10"), "b", task={"data_digest": "other"})
    (pair,) = build([a, b]).pairs
    assert not pair.tasks
    assert "data_digest is d there, other here" in pair.refused["toy@strict"]


def test_runs_of_one_name_are_told_apart_by_their_folders() -> None:
    run = a_run(answers("1"))
    near = [replace(run, folder=Path(f"runs/{name}")) for name in "xy"]
    assert [view.label for view in build(near).runs] == ["m float32 (x)", "m float32 (y)"]
    far = [replace(run, folder=Path(f"{name}/last")) for name in "xy"]
    assert [view.label for view in build(far).runs] == ["m float32 (x/last)", "m float32 (y/last)"]


def test_the_provenance_says_what_differs() -> None:
    a, b = a_run(answers("1"), "a"), a_run(answers("1"), "b", settings={"seed": 1})
    differing = {fact.name for fact in build([a, b]).facts if fact.differs}
    assert differing == {"model.name", "model.fingerprint", "settings.seed"}


def test_published_figures_stand_beside_their_task() -> None:
    infos = {"mmlu@strict": task_info(recipe="mmlu@strict", shots=5)}
    report = build([a_run([record(0, task="mmlu@strict")], tasks=infos)])
    found = {(f.table, f.model): f.value for f in report.anchors["mmlu@strict"]}
    assert found["table2", "Qwen 7B"] == 58.2, "Qwen Technical Report, table 2"


@pytest.mark.parametrize(
    ("fields", "value", "expected"),
    [
        ({}, 1.0, "right"),
        ({}, 0.0, "wrong"),
        ({}, 0.5, "partly"),
        ({"status": "no_answer"}, 0.0, "no answer"),
        ({"status": "error"}, 0.0, "not judged"),
        ({"responses": [{"finish_reason": "length"}]}, 0.0, "wrong, cut"),
        ({"status": "no_answer", "responses": [{"finish_reason": "length"}]}, 0.0,
         "no answer, cut"),
        ({"detail": {"verdict": "AssertionError"}}, 0.0, "failed tests"),
        ({"detail": {"verdict": "timeout: 3 s of processor time"}}, 0.0, "timed out"),
        ({"detail": {"verdict": "NameError: name 'x' is not defined"}}, 0.0, "raised an error"),
    ],
)  # fmt: skip
def test_every_end_has_its_name(fields: dict, value: float, expected: str) -> None:
    assert outcome(record(0, value, **fields), "accuracy") == expected


def test_a_log_likelihood_is_neither_right_nor_wrong() -> None:
    values = {"log_likelihood": -2.0}
    assert not are_shares([record(0), record(1, values=values)], "log_likelihood")
    assert outcome(record(0, values=values), "log_likelihood", share=False) == "scored"
    assert outcome(record(0, status="error"), "log_likelihood", share=False) == "not judged"


def test_judgements_are_averaged_by_topic() -> None:
    votes = [("win", "maths"), ("loss", "maths"), ("tie", "code"), ("win", "code")]
    records = [
        record(i, group=group, values={k: float(k == vote) for k in ("win", "tie", "loss")})
        for i, (vote, group) in enumerate(votes)
    ]
    found = win_tie_loss(records)
    assert found[""] == {"win": 0.5, "tie": 0.25, "loss": 0.25}
    assert found["maths"] == {"win": 0.5, "tie": 0.0, "loss": 0.5}
    assert win_tie_loss([record(0)]) == {}
    failed = record(9, status="error", values={"win": 0.0, "tie": 0.0, "loss": 0.0})
    assert win_tie_loss([*records, failed]) == found


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_difference_keeps_both_texts(a: str, b: str) -> None:
    left, right = difference(a, b)
    assert "".join(text for _, text in left) == a
    assert "".join(text for _, text in right) == b
    same = [[text for kind, text in side if kind == "same"] for side in (left, right)]
    assert same[0] == same[1]


def test_a_difference_is_by_word_and_by_character_of_chinese() -> None:
    left, right = difference("the old cat sat", "the new cat sat")
    assert ("lost", "old") in left
    assert ("gained", "new") in right
    assert ("lost", "猫") in difference("一只猫在这", "一只狗在这")[0]


def test_a_perplexity_is_shown_as_one() -> None:
    unit = unit_of("log_likelihood")
    assert scaled(-1.0, unit) == pytest.approx(2.718281828)
    run = a_run([record(i, values={"log_likelihood": -1.0 - i / 10}) for i in range(3)],
                task={"metric": "log_likelihood"})  # fmt: skip
    score = build([run]).runs[0].scores["toy@strict"]
    assert score.overall is not None
    low, high = ends(score.overall, unit)
    assert low < scaled(score.overall.estimate, unit) < high
    assert score.outcomes == {}


def test_numbers_as_they_are_read() -> None:
    assert [duration(s) for s in (4.6, 65, 3600, 11045)] == ["0:05", "1:05", "1:00:00", "3:04:05"]
    assert [size(n) for n in (12, 2048, 3 * 2**20, 5.5 * 2**30)] == [
        "12 B", "2 KiB", "3 MiB", "5.5 GiB"]  # fmt: skip
    assert shown(58.249) == "58.2"
    assert [p_value(p) for p in (0.0009, 0.001, 0.0042, 1.0)] == [
        "<0.001",
        "0.001",
        "0.004",
        "1.000",
    ]
    assert shown(scaled(-1e5, "perplexity"), "perplexity") == "1.01e+304", "as large as it gets"


def test_the_twin_is_json() -> None:
    report = build([a_run(answers("101"), "a"), a_run(answers("111"), "b")])
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert found["pairs"][0]["tasks"][0]["gained"] == 1
    assert found["schema"] == 1
