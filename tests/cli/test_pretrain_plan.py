"""`train pretrain --dry-run` as a user meets it."""

from __future__ import annotations

import json

import pytest

from tests.cli.command import qwen_eval, refused

PLAN = ("train", "pretrain", "qwen-7b", "--dry-run", "--world-size", 64)


def test_a_plan_of_the_papers_model() -> None:
    done = qwen_eval(*PLAN, "--mfu", 0.5, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["parameters"] == 7_721_324_544
    assert said["steps"] == 572_204
    assert said["fits"] is True
    # Seconds by hand: operations over 64 GPUs at half of 989 TFLOP/s.
    assert said["seconds"] == pytest.approx(said["flops"] / (64 * 494.5e12))
    moments = {name: sum(items.values()) for name, items in said["memory"].items()}
    assert said["peak_bytes"] == moments[said["peak_moment"]] == max(moments.values())
    assert f"{said['peak_bytes'] / 2**30:.1f} GiB at the most" in done.stderr
    assert "reaches 50% of 989 TFLOP/s" in done.stderr


def test_a_gpu_that_is_too_small_and_a_recipe_of_ones_own_size() -> None:
    done = qwen_eval(*PLAN, "--gpu-memory", "24GiB")
    assert done.returncode == 0
    assert "DOES NOT FIT in 21.6, 90% of 24 GiB" in done.stdout
    tiny = qwen_eval("train", "pretrain", "tiny", "--dry-run")
    assert "parameters  7,969,280" in tiny.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--world-size", 7), "--world-size 7: batch_tokens is 2048 sequences of 2048 tokens"),
        (("--gpu-memory", "lots"), "--gpu-memory lots: give a number and a unit"),
        (("--gpu-memory", "0GiB"), "--gpu-memory 0GiB: give more than nothing"),
        (("--peak-tflops", 0), "--peak-tflops 0.0: give a speed above 0"),
        (("--mfu", 1.5), "--mfu 1.5: give a share above 0"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(words: tuple[object, ...], said: str) -> None:
    assert refused(qwen_eval(*PLAN, *words)).startswith(said)


def test_no_process_at_all_is_refused() -> None:
    done = qwen_eval("train", "pretrain", "tiny", "--dry-run", "--world-size", 0)
    assert done.returncode == 2
    assert "--world-size" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nowhere", "--dry-run"), "RECIPE nowhere: no such file; recipes of ours: "),
        (("tiny", "--out", "run"), "--corpus: is missing; only --dry-run does without"),
        (("tiny", "--corpus", "x"), "--out: is missing; only --dry-run does without"),
        (("tiny", "--json"), "--json: is for --dry-run"),
    ],
)
def test_what_is_missing_is_named(words: tuple[str, ...], said: str) -> None:
    assert refused(qwen_eval("train", "pretrain", *words)).startswith(said)
