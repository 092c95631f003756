"""`qwen-eval train pretrain` as a user meets it: what it writes, refuses, and survives."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from qwen_eval.cli.main import app
from qwen_eval.errors import UserError
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.train.toy_training import TORCHRUN, write_packed, write_recipe

KILLS = int(os.environ.get("QWEN_EVAL_KILLS", "4"))
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_packed(tmp_path_factory.mktemp("data") / "corpus")


def words(recipe: Path, corpus: Path, out: Path, *more: str) -> list[str]:
    return ["train", "pretrain", str(recipe), "--corpus", str(corpus), "--out", str(out), *more]


def together(processes: int, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TORCHRUN, str(processes), "-m", "qwen_eval", *arguments],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def curve(out: Path) -> list[dict[str, Any]]:
    """The log without what the clock says."""
    timed = ("seconds", "tokens_per_second", "gflops")
    return [{k: v for k, v in row.items() if k not in timed} for row in rows(out / "log.jsonl")]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def test_a_run_and_the_same_once_more(corpus: Path, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml"), tmp_path / "out"
    done = qwen_eval(*words(recipe, corpus.parent / corpus.name, out))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{out / 'model'}: judge it with `qwen-eval run --model`\n"
    assert [row["step"] for row in curve(out)] == list(range(1, 11))
    assert "step 10/10" in done.stderr
    before, log = weights(out), curve(out)
    shutil.rmtree(out / "model")
    again = qwen_eval(*words(recipe, corpus, out))
    assert again.returncode == 0
    assert "all 10 steps are done" in again.stderr
    assert (weights(out), curve(out)) == (before, log)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.timeout(1200)
def test_killed_at_any_moment(corpus: Path, tmp_path: Path, dtype: str) -> None:
    stages = [{"length": 16, "tokens": 15 * 128}, {"length": 32, "tokens": 15 * 128}]
    recipe = write_recipe(tmp_path / "r.yaml", dtype=dtype, stages=stages, save_every=1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = qwen_eval(*words(recipe, corpus, whole))
    assert done.returncode == 0, done.stderr
    rng = random.Random(3)
    kills: list[int] = []
    while len(kills) < KILLS:
        with subprocess.Popen(
            [*PROGRAM, *words(recipe, corpus, broken)],
            env=environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            # From its first new step on, at any moment of those that follow.
            states, log = broken / "states", broken / "log.jsonl"
            begun = log.stat().st_mtime_ns if log.exists() else 0
            while process.poll() is None and not (log.exists() and log.stat().st_mtime_ns != begun):
                time.sleep(0.01)
            time.sleep(rng.uniform(0, 0.5))
            process.kill()
        kept = sorted(path.name for path in states.glob("step-*"))
        kills.append(int(kept[-1].removeprefix("step-")) if kept else 0)
        if (broken / "model").exists():
            shutil.rmtree(broken)
    print({"state_after_kill": kills})
    done = qwen_eval(*words(recipe, corpus, broken))
    assert done.returncode == 0, done.stderr
    assert curve(broken) == curve(whole)
    assert weights(broken) == weights(whole)
    assert sorted(os.listdir(broken / "states")) == sorted(os.listdir(whole / "states"))


def test_ctrl_c_keeps_the_state(corpus: Path, tmp_path: Path) -> None:
    stages = [{"length": 32, "tokens": 60 * 128}]
    recipe = write_recipe(tmp_path / "r.yaml", stages=stages, save_every=1000)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert qwen_eval(*words(recipe, corpus, whole)).returncode == 0
    with subprocess.Popen(
        [*PROGRAM, *words(recipe, corpus, broken)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not (broken / "log.jsonl").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    step = len(curve(broken))
    assert 1 <= step < 60
    assert f"stopped after step {step}; the same command goes on\n" in said
    assert said.endswith("qwen-eval: interrupted\n")
    assert os.listdir(broken / "states") == [f"step-{step:08}"]
    done = qwen_eval(*words(recipe, corpus, broken))
    assert f"going on from step {step} of 60" in done.stderr
    assert (curve(broken), weights(broken)) == (curve(whole), weights(whole))


def near(a: Path, b: Path) -> None:
    """The same curve and weights but for the order of sums in fp32."""
    for one, other in zip(curve(a), curve(b), strict=True):
        assert one == pytest.approx(other, rel=2e-5)
    mine, theirs = (load_file(out / "model" / "model.safetensors") for out in (a, b))
    assert mine.keys() == theirs.keys()
    assert max(float((mine[name] - theirs[name]).abs().max()) for name in mine) < 2e-5


@pytest.mark.timeout(900)
def test_two_processes_are_one_and_resume_as_one(corpus: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path / "r.yaml")
    one, two = tmp_path / "one", tmp_path / "two"
    assert qwen_eval(*words(recipe, corpus, one)).returncode == 0
    done = together(2, words(recipe, corpus, two))
    assert done.returncode == 0, done.stderr
    near(one, two)
    for name, first, then in (("two-one", two, 1), ("one-two", one, 2)):
        # What either left after step 8 is gone on with by the other number of processes.
        out = tmp_path / name
        shutil.copytree(first, out)
        shutil.rmtree(out / "states" / "step-00000010")
        shutil.rmtree(out / "model")
        done = together(then, words(recipe, corpus, out))
        assert done.returncode == 0, done.stderr
        assert "going on from step 8 of 10" in done.stderr
        near(one, out)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("processes", [1, 2])
def test_the_model_is_looked_at(corpus: Path, tmp_path: Path, processes: int) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml"), tmp_path / "out"
    looking = ["--evaluate", "mmlu", "--limit", "4", "--look-every", "7"]
    asked = words(recipe, corpus, out, *looking, "--prompt", "The", "--prompt", "")
    done = qwen_eval(*asked) if processes == 1 else together(2, asked)
    assert done.returncode == 0, done.stderr
    evaluated = rows(out / "evaluation.jsonl")
    assert [row.pop("step") for row in evaluated] == [7, 10]
    assert all(0 <= row["mmlu@strict"] <= 1 for row in evaluated)
    samples = rows(out / "samples.jsonl")
    assert sorted((row["step"], row["prompt"]) for row in samples) == [
        (step, prompt) for step in (7, 10) for prompt in ("", "The")
    ]
    for step in (7, 10):
        assert (out / "evaluations" / f"step-{step:08}" / "DONE").exists()
    if processes == 1:  # to be looked at changes not a bit
        assert qwen_eval(*words(recipe, corpus, tmp_path / "plain")).returncode == 0
        assert weights(tmp_path / "plain") == weights(out)


@pytest.mark.timeout(900)
def test_mistakes_are_one_line(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml"), tmp_path / "out"

    def said(recipe: Path, corpus: Path, out: Path, *more: str) -> str:
        """In this process: a start for every mistake would take a minute."""
        with pytest.raises(UserError) as told:
            app(words(recipe, corpus, out, *more), standalone_mode=False)
        assert "\n" not in str(told.value)
        return str(told.value)

    def changed(model: dict[str, Any] | None = None, **changes: Any) -> str:
        return said(write_recipe(tmp_path / "x.yaml", model, **changes), corpus, out)

    (tmp_path / "file").write_text("")
    assert "--out" in said(recipe, corpus, tmp_path / "file")
    assert "recipes of ours: code-14b" in said(Path("nothing"), corpus, out)
    assert "x.yaml, line 1: colour: unknown key" in changed(colour=1)
    assert "optimiser.momentum: unknown key" in changed(optimiser={"momentum": 0.9})
    assert "vocab_size 100 is too small for the 259 tokens" in changed({"vocab_size": 100})
    assert "a length of 24 does not divide the sequences of 32" in changed(
        stages=[{"length": 24, "tokens": 960}], batch_tokens=96, part_tokens=48
    )
    assert "batch_tokens 100 is no multiple of 16" in changed(batch_tokens=100)
    assert "hidden_size 33 is no multiple of 4" in changed({"hidden_size": 33})
    assert "num_kv_heads 2: a model of family qwen has none such" in changed({"num_kv_heads": 2})
    assert "manifest.json: missing" in said(recipe, tmp_path, out)
    silent = write_packed(tmp_path / "silent", readable=False)
    assert "has no tokenizer" in said(recipe, silent, out, "--prompt", "x")
    for name, line in (("00000.bin", "not the bytes of the manifest"), ("manifest.json", "pack")):
        damaged = tmp_path / f"damaged-{name}"
        shutil.copytree(corpus, damaged)
        content = bytearray((damaged / name).read_bytes())
        content[-10] ^= 1
        (damaged / name).write_bytes(content)
        assert line in said(recipe, damaged, out)
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "pip install wandb" in said(recipe, corpus, out, "--wandb", "x")
    line = refused(qwen_eval(*words(tmp_path / "x.yaml", corpus, out)))
    assert "num_kv_heads 2" in line
    assert not out.exists() or not (out / "states").exists()


@pytest.mark.timeout(900)
def test_mistakes_under_torchrun_are_told_once(corpus: Path, tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "r.yaml"), tmp_path / "out"
    for arguments, line in (
        (words(Path("nothing"), corpus, out), "recipes of ours: code-14b"),
        (words(recipe, corpus, out, "--wandb", "x"), "pip install wandb"),
    ):
        done = together(2, arguments)
        assert done.returncode == 1  # torchrun's own, whatever its processes left with
        own = [text for text in done.stderr.splitlines() if text.startswith("qwen-eval: ")]
        assert len(own) == 1, done.stderr
        assert line in own[0]
        assert "[rank" not in done.stderr
        assert "exitcode  : 2" in done.stderr
    odd = write_recipe(
        tmp_path / "odd.yaml",
        stages=[{"length": 32, "tokens": 960}],
        batch_tokens=96,
        part_tokens=32,
    )
    done = together(2, words(odd, corpus, out))
    assert done.stderr.count("a batch of 3 sequences cannot be shared by 2 processes") == 1


def test_two_runs_in_one_folder_are_refused(corpus: Path, tmp_path: Path) -> None:
    import fcntl

    recipe, out = write_recipe(tmp_path / "r.yaml"), tmp_path / "out"
    out.mkdir()
    with (out / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert "another run is at work there" in refused(qwen_eval(*words(recipe, corpus, out)))


def test_compiled_is_the_same(corpus: Path, tmp_path: Path) -> None:
    stages = [{"length": 32, "tokens": 3 * 128}]
    for name in ("plain", "compiled"):
        recipe = write_recipe(tmp_path / f"{name}.yaml", stages=stages, compile=name == "compiled")
        done = qwen_eval(*words(recipe, corpus, tmp_path / name))
        assert done.returncode == 0, done.stderr
    near(tmp_path / "plain", tmp_path / "compiled")
