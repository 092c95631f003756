"""The figures of the table against plain sums over the samples."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from qwen_eval.context_table import build, is_proven
from qwen_eval.errors import UserError
from qwen_eval.paired import Paired, difference
from qwen_eval.results import Run, SampleRecord
from tests.harness.long_texts import PAPER, TRAINED, reading_runs, rows_named
from tests.harness.toys import run_info, task_info

LENGTHS = (1024, 2048, 4096, 8192)


def read(run: Run, recipe: str) -> dict[str, tuple[float, float]]:
    """Nats and tokens of each text that was read, by the sums of its curve."""
    return {
        record.id: (sum(record.detail["curve"]["nats"]), sum(record.detail["curve"]["counts"]))
        for record in run.samples
        if record.task == recipe and record.status == "scored"
    }


def test_every_cell_is_the_sum_of_nats_over_the_sum_of_tokens() -> None:
    runs = reading_runs(short={4096: 1, 8192: 3})
    (block,) = build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED).blocks
    assert (block.texts, block.short, block.failed, block.asked) == (9, 3, 0, 12)
    for row, run in runs.items():
        everywhere = set(read(run, "longppl_en@8192"))
        for length in LENGTHS:
            pairs = [v for k, v in read(run, f"longppl_en@{length}").items() if k in everywhere]
            nats, tokens = (np.array(column) for column in zip(*pairs, strict=True))
            mean = nats.sum() / tokens.sum()
            cell = block.cells[row][length]
            assert cell.value.n == len(pairs) == 9
            assert cell.value.estimate == pytest.approx(mean, abs=1e-12)
            # All texts weigh alike here, so the ratio's interval is Student's of the plain mean.
            low, high = stats.t.interval(0.95, 8, mean, stats.sem(nats / tokens))
            assert (cell.value.low, cell.value.high) == pytest.approx((low, high))
            assert cell.perplexity is not None
            assert cell.perplexity.estimate == pytest.approx(math.exp(mean))
            assert (cell.perplexity.low, cell.perplexity.high) == pytest.approx(
                (math.exp(low), math.exp(high))
            )


def test_differences_are_paired_by_text_against_base_and_the_row_above() -> None:
    runs = reading_runs(short={8192: 2})
    (block,) = build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED).blocks
    names = [row.name for row in PAPER]
    assert block.cells["base"][8192].to_base is None
    for at, row in enumerate(names[1:], 1):
        own = read(runs[row], "longppl_en@8192")
        cell = block.cells[row][8192]
        for other, found in ((names[0], cell.to_base), (names[at - 1], cell.to_above)):
            there = read(runs[other], "longppl_en@8192")
            saved = [own[key][0] - there[key][0] for key in own]
            assert found is not None
            assert found.n == 10
            assert found.delta == pytest.approx(sum(saved) / sum(own[key][1] for key in own))
            assert found.low <= found.delta <= found.high


def test_profile_and_crossover_are_of_the_longest_context() -> None:
    runs = reading_runs(count=5, noise=0.0)
    (block,) = build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED).blocks
    profile = block.profiles["ntk"]
    texts = [r for r in runs["ntk"].samples if r.task == "longppl_en@8192"]
    at = profile.starts.index(2048)
    assert profile.end == 8192
    assert profile.nats[at] == pytest.approx(sum(r.detail["curve"]["nats"][16] for r in texts))
    assert profile.tokens[at] == 5 * 128
    for row in ("ntk", "ntk-logn", "all"):
        # As made: base climbs from the trained length on, the others cost a little before it.
        assert block.crossovers[row].position == TRAINED
        assert block.crossovers[row].texts == 5


def test_a_failed_text_is_left_out_everywhere_and_counted() -> None:
    runs = reading_runs(count=8, short={8192: 1})
    broken = [
        replace(r, status="error", values={}, error="down")
        if (r.id, r.task) == ("0002", "longppl_en@2048")
        else r
        for r in runs["all"].samples
    ]
    missing = [r for r in runs["ntk"].samples if (r.id, r.task) != ("0003", "longppl_en@1024")]
    runs["all"] = replace(runs["all"], samples=broken)
    runs["ntk"] = replace(runs["ntk"], samples=missing)
    (block,) = build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED).blocks
    assert (block.texts, block.short, block.failed) == (5, 1, 2)
    counts = {cell.value.n for cells in block.cells.values() for cell in cells.values()}
    assert counts == {5}


def test_where_no_text_is_left_there_are_no_cells() -> None:
    runs = reading_runs(count=3, short={8192: 3})
    table = build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED)
    (block,) = table.blocks
    assert (block.texts, block.short) == (0, 3)
    assert not any(block.cells.values())
    assert not block.profiles
    assert not block.crossovers
    json.dumps(table.to_json(), allow_nan=False)


def test_a_cell_worse_than_the_one_above_is_a_disagreement_beyond_the_trained_length_only() -> None:
    runs = reading_runs(count=6)
    runs["ntk-logn"], runs["all"] = runs["all"], runs["ntk-logn"]
    (block,) = build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED).blocks
    found = {(one.row, one.length) for one in block.disagreements}
    # The one that is called `all` climbs faster now; at 1,024 it is better, and not beyond.
    assert found == {("all", 4096), ("all", 8192)}
    for one in block.disagreements:
        assert one.above == "ntk-logn"
        assert one.by.delta > 0


def test_one_text_has_a_figure_and_no_interval() -> None:
    runs = reading_runs(count=1, rows=("base", "ntk"))
    table = build(runs, rows_named("base", "ntk"), ["longppl_en"], LENGTHS, TRAINED)
    cell = table.blocks[0].cells["ntk"][8192]
    assert cell.perplexity is not None
    assert (cell.perplexity.low, cell.perplexity.high) == (None, None)
    assert not is_proven(cell.to_base)


def test_few_texts_prove_nothing_however_alike_they_are() -> None:
    def of(n: int) -> Paired:
        return difference([3.0] * n, [2.0 + i / 1000 for i in range(n)], weights=[9.0] * n)

    assert not is_proven(of(5))
    assert is_proven(of(6))
    assert not is_proven(None)


def test_runs_of_two_models_are_no_table() -> None:
    runs = reading_runs(count=2)
    info = replace(runs["all"].info, model=runs["all"].info.model | {"fingerprint": "another"})
    runs["all"] = replace(runs["all"], info=info)
    with pytest.raises(UserError, match="all: of another model, its fingerprint is another"):
        build(runs, PAPER, ["longppl_en"], LENGTHS, TRAINED)


def answered(row: str, right: float) -> Run:
    """Twenty answers at two depths and two lengths, so many of them right."""
    records, infos = [], {}
    for length in (1024, 2048):
        recipe = f"passkey_en@{length}"
        infos[recipe] = task_info(recipe=recipe)
        for number in range(20):
            hit = float(number < right * 20 * (1.0 if length == 1024 else 0.5))
            records.append(
                SampleRecord(
                    f"{number:04x}", recipe, f"{50 * ((number + 1) % 2)}", "7", "", "?", [],
                    {"accuracy": hit}, "7", "scored", {},
                )
            )  # fmt: skip
    return Run(Path(row), run_info(tasks=infos), records, finished=False)


def test_answers_are_shares_with_a_grid_by_depth() -> None:
    runs = {"base": answered("base", 0.5), "ntk": answered("ntk", 1.0)}
    table = build(runs, rows_named("base", "ntk"), ["passkey_en"], (1024, 2048), TRAINED)
    (block,) = table.blocks
    assert [block.cells["base"][n].value.estimate for n in (1024, 2048)] == [0.5, 0.25]
    assert block.cells["base"][1024].perplexity is None
    gain = block.cells["ntk"][1024].to_base
    assert gain is not None
    assert (gain.delta, gain.method, is_proven(gain)) == (0.5, "exact McNemar", True)
    assert not block.disagreements
    assert not block.profiles
    grid = block.depths["base"][2048]
    assert {name: (one.n, one.estimate) for name, one in grid.items()} == {
        "0": (10, 0.2),
        "50": (10, 0.3),
    }
    assert list(grid) == ["0", "50"], "from the beginning to the end, not as they were drawn"
