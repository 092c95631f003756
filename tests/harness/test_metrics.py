"""From records to a row: what counts, what is left out, and when a score is withheld."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash
from qwen_eval.metrics import (
    LIMITS,
    estimate,
    estimate_of,
    macro_estimate,
    stored,
    summarise,
)
from qwen_eval.results import FILES, Run, SampleRecord, read_run
from qwen_eval.stats import wilson_interval
from qwen_eval.types import Score
from tests.harness.toys import finished_run, record, run_info


def summary(records: list[SampleRecord], **options):
    return summarise("toy@strict", "accuracy", records, **options)


def test_errors_are_left_out_and_unread_answers_are_wrong() -> None:
    records = [
        *(record(i) for i in range(96)),
        *(record(i, 0.0, status="no_answer") for i in range(96, 99)),
        record(99, status="error", values={}),
    ]
    row = summary(records)
    assert row.overall is not None
    assert row.overall.n == 99
    assert row.overall.estimate == pytest.approx(96 / 99)
    assert (row.counts["errors"], row.counts["no_answer"]) == (1, 3)
    assert not row.invalid


def test_excluded_samples_are_left_out_counted_and_no_fault() -> None:
    excluded = [record(i, status="excluded", values={}) for i in range(60)]
    rest = [record(i, float(i % 2)) for i in range(60, 100)]
    row = summary(excluded + rest)
    assert row.overall is not None
    assert (row.overall.n, row.overall.estimate) == (40, 0.5)
    assert (row.counts["samples"], row.counts["excluded"], row.counts["errors"]) == (100, 60, 0)
    assert not row.invalid
    # The limits are shares of what was asked: one of 40 is more than 2%, one of 100 is not.
    assert summary([*excluded, record(99, status="error"), *rest[1:]]).invalid
    assert summary(excluded).overall is None
    assert not summary(excluded).invalid


def test_metrics_from_before_exclusion_are_read(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", [1.0, 0.0])
    path = folder / "metrics.json"
    metrics = json.loads(path.read_text())
    del metrics["tasks"]["toy@strict"]["counts"]["excluded"]
    path.write_text(json.dumps(metrics))
    (folder / "DONE").write_text(json.dumps({name: file_hash(folder / name) for name in FILES}))
    assert stored(read_run(folder))["toy@strict"].counts["samples"] == 2
    del metrics["tasks"]["toy@strict"]["counts"]["errors"]
    path.write_text(json.dumps(metrics))
    (folder / "DONE").write_text(json.dumps({name: file_hash(folder / name) for name in FILES}))
    with pytest.raises(UserError, match=r"toy@strict: no counts\.errors"):
        stored(read_run(folder))


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), min_size=1, max_size=60))
def test_categories_are_averages_over_samples_not_over_groups(pairs) -> None:
    records = [record(i, float(v), group=g) for i, (g, v) in enumerate(pairs)]
    row = summary(records, categories={"all": ["a", "b", "c"], "some": ["a", "b"], "none": ["z"]})
    assert row.overall is not None
    assert row.categories["all"].estimate == pytest.approx(row.overall.estimate)
    some = [v for g, v in pairs if g in "ab"]
    if some:
        assert row.categories["some"].estimate == pytest.approx(sum(some) / len(some))
    else:
        assert "some" not in row.categories
    assert "none" not in row.categories
    assert sum(e.n for e in row.groups.values()) == len(pairs)


def test_groups_that_are_numbers_stand_in_their_order() -> None:
    names = ("75", "b", "100", "0", "a", "25")
    row = summary([replace(record(i), group=name) for i, name in enumerate(names)])
    assert list(row.groups) == ["0", "25", "75", "100", "a", "b"]


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("errors", {"status": "error"}),
        ("no_answer", {"status": "no_answer"}),
        ("outputs_truncated", {"responses": [{"finish_reason": "length"}]}),
        ("prompts_truncated", {"responses": [{"prompt_truncated": True}]}),
    ],
)
def test_past_a_limit_a_score_is_invalid_and_not_before(name: str, fields: dict) -> None:
    allowed = int(LIMITS[name] * 1000)
    good = [record(i) for i in range(1000)]
    for bad, invalid in ((allowed, False), (allowed + 1, True)):
        records = [record(i, **fields) for i in range(bad)] + good[bad:]
        assert bool(summary(records).invalid) == invalid
    assert name in summary(records).invalid[0]


def test_several_replies_count_by_their_share() -> None:
    """Of 4 samples with 4 replies each: 3 of 16 replies end at the limit, 5 cannot be read."""
    ends = (["stop"] * 4, ["length"] * 2 + ["stop"] * 2, ["stop"] * 3 + ["length"], ["stop"] * 4)
    draws = (["1"] * 4, ["1", None, None, "2"], [None, None, None, "1"], ["1", "2", "3", "4"])
    records = [
        record(i, responses=[{"finish_reason": e} for e in ended], detail={"draws": drawn})
        for i, (ended, drawn) in enumerate(zip(ends, draws, strict=True))
    ]
    row = summary(records)
    assert (row.counts["outputs_truncated"], row.counts["no_answer"]) == (1, 2)
    assert set(row.invalid) == {"no_answer 50% > 20%", "outputs_truncated 25% > 20%"}
    # Ten samples in which one of ten replies was cut are a tenth that was, which a limit allows.
    tenth = [{"finish_reason": "stop"}] * 9 + [{"finish_reason": "length"}]
    many = [record(i, responses=tenth, detail={"draws": ["1"] * 10}) for i in range(10)]
    assert summary(many).counts["outputs_truncated"] == 1
    assert not summary(many).invalid
    # Programs were judged beside: what is no reply takes no share.
    judged = [*tenth, *[{"finish_reason": "judged"}] * 10]
    assert summary([replace(r, responses=judged) for r in many]).counts["outputs_truncated"] == 1


def test_a_recipes_own_cut_is_counted_but_not_held_against_it() -> None:
    records = [record(i, responses=[{"prompt_truncated": True}]) for i in range(10)]
    assert summary(records).invalid
    row = summary(records, by_design=["prompts_truncated"])
    assert not row.invalid
    assert row.counts["prompts_truncated"] == 10


def test_an_interval_fits_its_values() -> None:
    assert estimate([]) is None
    proportion, mean = estimate([1.0, 0.0, 1.0]), estimate([0.5, 0.7, 0.9])
    assert proportion is not None
    assert mean is not None
    assert (proportion.method, mean.method) == ("wilson", "student-t")
    assert 0 <= proportion.low <= 2 / 3 <= proportion.high <= 1


def test_an_interval_of_a_share_ends_where_shares_do() -> None:
    # Student's alone is -0.18 to 0.31, and 0.69 to 1.18.
    low = estimate_of("accuracy", [Score({"accuracy": value}) for value in (0.0, 0.0, 0.0, 0.25)])
    high = estimate_of("accuracy", [Score({"accuracy": value}) for value in (1.0, 1.0, 1.0, 0.75)])
    assert low is not None
    assert high is not None
    assert (low.low, high.high) == (0.0, 1.0)
    assert low.high == pytest.approx(0.0625 + 3.182446 * 0.0625)
    bits = estimate_of(
        "bits_per_byte", [Score({"bits_per_byte": v, "bytes": 1.0}) for v in (0.1, 0.9)]
    )
    assert bits is not None
    assert bits.high > 1


def test_tokens_are_added_up() -> None:
    responses = [{"prompt_tokens": 5, "output_tokens": 2}, {"prompt_tokens": 7}]
    assert summary([record(0, responses=responses)]).tokens == {"prompt": 12, "output": 2}


def test_metrics_are_read_as_they_were_written(tmp_path: Path) -> None:
    row = summary([record(i, float(i % 2)) for i in range(4)])
    run = Run(tmp_path, run_info(), [], finished=True)
    whole = row.to_json()
    (tmp_path / "metrics.json").write_text(json.dumps({"tasks": {"toy@strict": whole}}))
    assert stored(run) == {"toy@strict": row}
    nan = whole | {"overall": whole["overall"] | {"estimate": float("nan")}}
    damaged: dict[str, Any] = {
        "valid dictionary": {},
        "no task toy@strict": {"tasks": {}},
        "toy@strict": {"tasks": {"toy@strict": None}},
        "overall.estimate": {"tasks": {"toy@strict": nan}},
        "no counts.errors": {"tasks": {"toy@strict": whole | {"counts": {"samples": 4}}}},
        "no tokens.prompt": {"tasks": {"toy@strict": whole | {"tokens": {}}}},
    }
    for named, written in damaged.items():
        (tmp_path / "metrics.json").write_text(json.dumps(written))
        with pytest.raises(UserError, match="not metrics of this version") as error:
            stored(run)
        assert named in str(error.value)


def test_the_mean_over_groups_weighs_groups_alike() -> None:
    groups = {"a": [1.0] * 9 + [0.0], "b": [0.0, 1.0]}
    by_group = {g: [record(0, value) for value in values] for g, values in groups.items()}
    found = macro_estimate("accuracy", by_group)
    assert found is not None
    assert found.estimate == pytest.approx((0.9 + 0.5) / 2)
    # Ten samples of a tenth and two of a half: 4 over 10/100 + 2/4.
    size = 4 / (10 * 0.01 + 2 * 0.25)
    assert (found.low, found.high) == wilson_interval(0.7 * size, size)
    nothing = macro_estimate("accuracy", {"a": [record(0, 0.0)] * 5, "b": [record(0, 0.0)] * 5})
    assert nothing is not None
    assert (nothing.low, nothing.high) == wilson_interval(0, 10)
    even = macro_estimate("accuracy", {"a": [record(0, 0.2)] * 3, "b": [record(0, 0.4)] * 3})
    plain = estimate([0.2] * 3 + [0.4] * 3)
    assert even is not None
    assert plain is not None
    assert (even.estimate, even.low) == pytest.approx((plain.estimate, plain.low))


def test_further_metrics_are_over_the_samples_that_have_them() -> None:
    calls = {"accuracy": 0.0, "false_positive": 1.0}
    records = [record(0), record(1), record(2, values=calls)]
    row = summary(records, also=("false_positive", "tool_selection"))
    assert set(row.others) == {"false_positive"}
    assert (row.others["false_positive"].n, row.others["false_positive"].estimate) == (1, 1.0)
    assert row.macro is None
