"""Series: what belongs together, in which order, and where it changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qwen_eval.history import Result, read_history
from qwen_eval.trends import Series, series
from tests.harness.toys import finished_run, task_info


def results(folder: Path) -> list[Result]:
    return read_history([folder]).results


def apart(folder: Path, *infos: dict[str, Any]) -> list[Series]:
    for number, fields in enumerate(infos):
        tasks = {"toy@strict": task_info(**fields)}
        finished_run(folder / str(number), [1.0], tasks=tasks)
    return series(results(folder))


def test_points_are_in_order_of_time(tmp_path: Path) -> None:
    for name, started in {
        "first": "2026-01-01T09:30:00+05:00",
        "again": "2026-01-01T05:00:00",  # UTC, where nothing is said
        "last": "2026-01-01T04:59:59-01:00",
    }.items():
        finished_run(tmp_path / name, [1.0], started)
    (one,) = series(results(tmp_path))
    assert [Path(point.run).name for point in one.points] == ["first", "again", "last"]
    assert one.points[0].started == "2026-01-01T04:30:00+00:00"
    assert one.differs == ""


@pytest.mark.parametrize(
    ("field", "other", "told"),
    [
        ("data_kind", "sample", ["mirror", "sample"]),
        ("selected", 20, ["n 3", "n 20"]),
        ("version", 2, ["version 1", "version 2"]),
        ("recipe_version", 2, ["recipe version 1", "recipe version 2"]),
        ("scorer", "word", ["scorer number", "scorer word"]),
        ("data_digest", "0123456789", ["rows d", "rows 012345"]),
        ("prompts_digest", "0123456789", ["prompts p", "prompts 012345"]),
    ],
)
def test_what_cannot_be_compared_is_apart(
    tmp_path: Path, field: str, other: object, told: list[str]
) -> None:
    found = apart(tmp_path, {}, {field: other}, {}, {field: other})
    assert [one.differs for one in found] == told
    assert [len(one.points) for one in found] == [2, 2]


def test_digests_are_told_only_where_words_do_not_tell(tmp_path: Path) -> None:
    sample = {"data_kind": "sample", "data_digest": "s", "prompts_digest": "s", "selected": 2}
    found = apart(tmp_path, {}, sample, sample | {"prompts_digest": "t"})
    assert [one.differs for one in found] == [
        "mirror, n 3",
        "sample, n 2, rows s, prompts s",
        "sample, n 2, rows s, prompts t",
    ]


@pytest.mark.parametrize("field", ["available", "data_source", "spec_digest"])
def test_what_does_not_matter_keeps_together(tmp_path: Path, field: str) -> None:
    assert len(apart(tmp_path, {}, {field: "9"})) == 1


def test_other_items_are_another_series(tmp_path: Path) -> None:
    finished_run(tmp_path / "a", [1.0, 1.0])
    finished_run(tmp_path / "b", [1.0])
    assert len(series(results(tmp_path))) == 2


def stepped(folder: Path, *, invalid: int | None = None) -> Path:
    """Eight runs over 200 items, a sixth of them lost from the fifth run on."""
    right = np.random.default_rng(0).random(200) < 0.7
    for number in range(8):
        values: list[float | None] = [float(one) for one in right]
        if number >= 4:
            values[::6] = [0.0] * len(values[::6])
        if number == invalid:
            values[:100] = [None] * 100
        finished_run(folder / str(number), values, f"2026-01-0{number + 1}T00:00:00+00:00",
                     model={"name": f"m{number // 4}", "fingerprint": "f"})  # fmt: skip
    return folder


def test_a_change_is_found_where_it_is(tmp_path: Path) -> None:
    (one,) = series(results(stepped(tmp_path)))
    (change,) = one.changes
    assert change.at == 4
    scores = [point.score for point in one.points]
    assert scores[0] is not None
    assert scores[4] is not None
    assert change.delta == pytest.approx(scores[4] - scores[0])
    assert series(results(tmp_path), alpha=change.p / 2)[0].changes == ()


def test_invalid_scores_are_shown_and_not_tested(tmp_path: Path) -> None:
    (one,) = series(results(stepped(tmp_path, invalid=1)))
    assert len(one.points) == 8
    assert one.points[1].invalid
    assert [(change.at, change.items) for change in one.changes] == [(4, 200)]


def test_a_run_without_any_score_is_a_point(tmp_path: Path) -> None:
    finished_run(tmp_path / "a", [None, None])
    (one,) = series(results(tmp_path))
    assert (one.points[0].score, one.points[0].n, one.changes) == (None, 0, ())


def test_tasks_and_models_can_be_chosen(tmp_path: Path) -> None:
    found = results(stepped(tmp_path))
    for tasks in (["toy"], ["toy@strict"], ["other", "toy"]):
        assert len(series(found, tasks=tasks)) == 1
    assert series(found, tasks=["toy@qwen"]) == []
    (one,) = series(found, model="m1")
    assert (len(one.points), one.changes) == (4, ())
    assert series(found, model="m") == []


def test_a_series_is_plain_data(tmp_path: Path) -> None:
    (one,) = series(results(stepped(tmp_path)))
    data = json.loads(json.dumps(asdict(one)))
    assert data["points"][0]["started"] == "2026-01-01T00:00:00+00:00"
    assert data["changes"][0]["at"] == 4
    assert data["key"]["metric"] == "accuracy"
