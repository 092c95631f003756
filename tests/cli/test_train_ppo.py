"""`qwen-eval train ppo` and its report as a user meets them: what they write, refuse, survive."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.model.tokenizer import tokenizer_files
from qwen_eval.model.weights import load_model
from qwen_eval.train.scalar_model import save_scalar_model, scalar_model
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint
from tests.train.corpora import english
from tests.train.toy_training import TORCHRUN, write_packed

pytestmark = pytest.mark.slow
RECIPE: dict[str, Any] = {
    "prompts": {"some": {"files": ["some.jsonl"]}},
    "held_out": 0.3,
    "steps": 5,
    "queries": 4,
    "max_tokens": 6,
    "value_warmup": 1,
    "part": 4,
    "optimiser": {"learning_rate": 1e-3},
    "value_optimiser": {"learning_rate": 1e-3},
    "dtype": "float32",
    "save_every": 1,
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a chat model, two reward models, prompts and a corpus."""
    folder = tmp_path_factory.mktemp("toy")
    chat = toy_checkpoint(folder / "chat")
    for name, seed in (("reward", 1), ("judge", 2)):
        save_scalar_model(scalar_model(load_model(chat), seed), folder / name)
        for path in tokenizer_files(chat):
            shutil.copyfile(path, folder / name / path.name)
    rng = random.Random(3)
    asked = [{"prompt": english(rng, 4), "chosen": "A.", "rejected": "B."} for _ in range(20)]
    asked.append({"prompt": english(rng, 300), "chosen": "A.", "rejected": "B."})
    (folder / "some.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    write_packed(folder / "corpus")
    return folder


def words(toy: Path, out: Path, *more: str, **changes: Any) -> list[str]:
    recipe = out.parent / f"{out.name}.yaml"
    recipe.write_text(json.dumps(RECIPE | changes))
    said = ["train", "ppo", str(recipe), "--model", str(toy / "chat"), "--data", str(toy)]
    return [*said, "--reward", str(toy / "reward"), "--out", str(out), *more]


def curve(out: Path) -> list[dict[str, Any]]:
    """The log without what the clock says."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.endswith("_seconds")} for row in rows]


def weights(out: Path) -> bytes:
    return (out / "model" / "model.safetensors").read_bytes()


def test_killed_resumed_and_judged(toy: Path, tmp_path: Path) -> None:
    extra = {"pretraining_gradient": {"coefficient": 0.1, "length": 16, "batch": 2}}
    corpus = ("--corpus", str(toy / "corpus"))
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    done = qwen_eval(*words(toy, whole, *corpus, **extra))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{whole / 'model'}: judge it with `qwen-eval run --model`\n"
    assert "left out, longer than 250 tokens: 1" in done.stderr
    assert "step 5/5" in done.stderr
    assert [row["step"] for row in curve(whole)] == [1, 2, 3, 4, 5]
    assert "policy_loss" not in curve(whole)[0]
    assert {"reward", "kl", "clip_fraction", "ptx_loss"} <= curve(whole)[1].keys()
    assert "share without an end" in (whole / "ppo.svg").read_text()

    command = [*PROGRAM, *words(toy, broken, *corpus, **extra)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL) as process:
        while not (broken / "log.jsonl").exists() or len(curve(broken)) < 2:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    assert not (broken / "model").exists()
    done = qwen_eval(*words(toy, broken, *corpus, **extra))
    assert done.returncode == 0, done.stderr
    assert "going on from step" in done.stderr
    assert (weights(broken), curve(broken)) == (weights(whole), curve(whole))

    said = ["--recipe", str(tmp_path / "whole.yaml"), "--model", str(toy / "chat")]
    said += ["--reward", str(toy / "reward"), "--judge", str(toy / "judge"), "--data", str(toy)]
    done = qwen_eval(
        "train", "ppo-report", whole / "model", toy / "chat", *said, "--draws", 4, "--json"
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    base, policy, same, *several = told["rows"]
    names = [str(toy / "chat"), str(whole / "model"), str(toy / "chat")]
    assert [row["name"] for row in (base, policy, same)] == names
    assert {"best of 2", "best of 4"} <= {row["name"] for row in several}
    assert same == base, "the same model gains nothing"
    assert base["gain"] == base["kl"] == 0
    assert policy["kl"] != 0
    rewards = [row["reward"] for row in (base, *several)]
    assert rewards == sorted(rewards), "the best of more is no worse"


def test_interrupted(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [*PROGRAM, *words(toy, out, steps=1000, save_every=1000)]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        while not (out / "log.jsonl").exists() or not curve(out):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "the same command goes on" in said
    (state,) = (out / "states").iterdir()
    assert state.name == f"step-{len(curve(out)):08}"


def test_two_processes_draw_and_learn_what_one_does(toy: Path, tmp_path: Path) -> None:
    """But for the order in which sums are taken."""
    done = qwen_eval(*words(toy, tmp_path / "one"))
    assert done.returncode == 0, done.stderr
    together = subprocess.run(
        [*TORCHRUN, "2", "-m", "qwen_eval", *words(toy, tmp_path / "two")],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert together.returncode == 0, together.stderr
    for one, two in zip(curve(tmp_path / "one")[:2], curve(tmp_path / "two")[:2], strict=True):
        assert one == pytest.approx(two, abs=1e-3)


def test_mistakes_are_one_line(toy: Path, tmp_path: Path) -> None:
    done = qwen_eval(*words(toy, tmp_path / "a", "--corpus", str(toy / "corpus")))
    assert "no pretraining_gradient" in refused(done)
    done = qwen_eval(*words(toy, tmp_path / "b", max_tokens=256))
    assert "max_tokens: 256 leave no room for a prompt in the 256 tokens" in refused(done)
    done = qwen_eval(*words(toy, tmp_path / "c", compile=True))
    assert "compile: replies differ in length" in refused(done)
    said = words(toy, tmp_path / "d")
    said[said.index("--reward") + 1] = str(toy / "chat")
    assert "no reward model" in refused(qwen_eval(*said))
