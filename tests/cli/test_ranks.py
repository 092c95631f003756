"""Several processes on one run: dealt alike, merged by the last, nothing lost with a dead one."""

from __future__ import annotations

import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.ranks import Rank, deal, rank_of
from qwen_eval.results import read_info, read_metrics, read_samples
from qwen_eval.types import Item, Prompt, Sample
from tests.cli.command import environment, qwen_eval
from tests.model.toy_folder import toy_checkpoint


def item(number: int, group: int, length: int, prefix: int) -> Item:
    prompt = Prompt(prefix=f"{group} " * prefix, text="x" * length)
    return Item(
        Sample(str(number), "task", {}, str(group)), "task@strict", prompt, "", "exact", "acc"
    )


items_of = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40)), max_size=60).map(
    lambda rows: [item(n, group, length, group) for n, (group, length) in enumerate(rows)]
)


@given(items=items_of, count=st.integers(1, 5))
def test_every_sample_goes_to_one_hand(items: list[Item], count: int) -> None:
    hands = deal(items, count)
    assert len(hands) == count
    dealt = [item.sample.id for hand in hands for item in hand]
    assert sorted(dealt) == sorted(item.sample.id for item in items)
    assert hands == deal(list(items), count), "every process deals alike"


def test_groups_stay_whole_and_hands_are_even() -> None:
    items = [item(n, n // 10, 50, 100) for n in range(400)]
    hands = deal(items, 4)
    sizes = [len(hand) for hand in hands]
    assert sizes == [100] * 4
    for hand in hands:
        groups = [one.sample.group for one in hand]
        assert len(set(groups)) == 10, "no group is in two hands"


def test_a_group_too_large_for_one_hand_is_cut() -> None:
    hands = deal([item(n, 0, 50, 100) for n in range(400)], 4)
    assert [len(hand) for hand in hands] == [100] * 4
    for hand in hands:
        numbers = [int(one.sample.id) for one in hand]
        assert sum(b != a + 1 for a, b in pairwise(numbers)) <= 3


def test_the_environment_says_who_one_is() -> None:
    assert rank_of({}) is None
    assert rank_of({"RANK": "0", "WORLD_SIZE": "1"}) is None
    torchrun = {"RANK": "1", "WORLD_SIZE": "3", "TORCHELASTIC_RUN_ID": "a", "MASTER_PORT": "9"}
    rank = rank_of(torchrun)
    assert rank == rank_of(dict(torchrun))
    assert isinstance(rank, Rank)
    assert (rank.index, rank.count) == (1, 3)
    again = rank_of(torchrun | {"TORCHELASTIC_RESTART_COUNT": "1"})
    assert again is not None
    assert again.launch != rank.launch
    for wrong in ({"RANK": "3", "WORLD_SIZE": "3"}, {"RANK": "x"}, {"RANK": "1"}):
        with pytest.raises(UserError, match="torchrun"):
            rank_of(wrong)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return toy_checkpoint(folder, max_length=8192, trained_length=8192)


@pytest.fixture(scope="module")
def command(model: Path, mirror: Path) -> list[object]:
    asked = ["run", "--tasks", "mmlu@lm-eval,mmlu", "--limit", "8", "--dtype", "float32"]
    return [*asked, "--model", model, "--data", mirror, "--out"]


@pytest.fixture(scope="module")
def whole(command: list[object], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "whole"
    done = qwen_eval(*command, out, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    return out


def assert_same_run(one: Path, other: Path) -> None:
    """Not a bit differs, and nothing is left over."""
    assert read_samples(one) == read_samples(other)
    assert read_metrics(one) == read_metrics(other)
    assert {path.name for path in one.iterdir()} == {path.name for path in other.iterdir()}


@pytest.mark.slow
def test_torchrun_with_two_processes_gives_one_workers_result(
    command: list[object], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         "-m", "qwen_eval", *map(str, command), str(out)],
        env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("mmlu@strict:") == 1, "one of them prints the table"
    assert_same_run(out, whole)
    assert sorted(i["rank"] for i in read_info(out).invocations) == [0, 1]
    assert sum(i["samples"] for i in read_info(out).invocations) == 16


@pytest.mark.slow
def test_a_dead_ranks_samples_are_taken_by_the_next_start_of_any_size(
    command: list[object], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"

    def start(index: int, count: int, launch: str) -> str:
        done = qwen_eval(
            *command,
            out,
            RANK=str(index),
            WORLD_SIZE=str(count),
            TORCHELASTIC_RUN_ID=launch,
            OMP_NUM_THREADS="1",
        )
        assert done.returncode == 0, done.stderr
        return done.stderr + done.stdout

    # Of the first launch only rank 1 lives, and its last line is torn.
    said = start(1, 2, "first")
    assert "rank 1: done;" in said
    assert "of 16 samples are with others" in said
    (journal,) = out.glob("samples.*-1.jsonl")
    lines = journal.read_text().splitlines(keepends=True)
    kept = [line for line in lines if "invocation" not in line[:14]]
    journal.write_text("".join(kept[:-1]) + kept[-1][:40])
    assert len(read_samples(out)) == len(kept) - 1
    assert not (out / "DONE").exists()
    # Three take over; the second dies before it begins; one alone ends it.
    start(2, 3, "second")
    start(0, 3, "second")
    before = len(read_samples(out))
    assert len(kept) - 1 < before < 16
    done = qwen_eval(*command, out, OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stderr
    assert f"{before} samples kept" in done.stderr
    assert_same_run(out, whole)
    assert [i.get("ranks") for i in read_info(out).invocations] == [None, 3, 3]
