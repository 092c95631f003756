"""How far the work is, is said while it is done, however many processes do it."""

from __future__ import annotations

import random
from collections import defaultdict
from pathlib import Path

import pytest

from qwen_eval.train.data import pace
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.data.pipeline import Pipeline
from qwen_eval.train.data.recipe import Recipe
from tests.train.corpora import chinese
from tests.train.toy_corpus import rows

RECIPE = {
    "sources": {"zh": {"files": ["zh.jsonl"], "lang": "zh"}},
    "fuzzy": {},
    "pack": {"length": 64, "shard_sequences": 100},
}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_single_file_is_seen_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr(pace, "SECONDS", 0.001)
    rng = random.Random(1)
    rows(tmp_path / "zh.jsonl", [{"text": chinese(rng, 300)} for _ in range(1500)])
    ticks = defaultdict(list)
    Pipeline(
        *(Recipe.model_validate(RECIPE), tmp_path, tmp_path / "out", known_tests({}), 1 << 28),
        workers,
        lambda phase, done, total: ticks[phase].append((done, total)),
    ).run()
    phases = "hash zh,1-read,2-exact sign,2-exact compare,2-exact drop,3-fuzzy sign"
    phases += ",3-fuzzy compare,3-fuzzy drop,4-filter,7-tokens,packed"
    assert list(ticks) == phases.split(",")
    for phase, said in ticks.items():
        done = [one for one, _ in said]
        assert done == sorted(done), phase
        assert (done[0], said[-1][0]) == (0, said[-1][1]), phase
        assert len({total for _, total in said}) == 1, phase
    read = tmp_path / "zh.jsonl"
    assert ticks["1-read"][-1][1] == read.stat().st_size
    # One file, one unit: yet it is seen to go on.
    for phase in ("1-read", "3-fuzzy sign", "4-filter", "7-tokens"):
        assert len({done for done, _ in ticks[phase]}) > 4, phase


def test_what_an_earlier_start_did_is_not_done_again() -> None:
    pace.count_in(counter := pace.new_counter())
    ticks: list[tuple[str, int, int]] = []
    counter.value = 50  # of an earlier phase
    with pace.shown("a", 10, lambda *tick: ticks.append(tick), before=4):
        pace.counted(3)
    pace.count_in(None)
    assert (ticks[0], ticks[-1]) == (("a", 4, 10), ("a", 10, 10))


def test_a_phase_that_fails_does_not_end() -> None:
    ticks: list[tuple[str, int, int]] = []
    with (
        pytest.raises(ZeroDivisionError),
        pace.shown("a", 10, lambda *tick: ticks.append(tick)),
    ):
        raise ZeroDivisionError
    assert ticks == [("a", 0, 10)]
