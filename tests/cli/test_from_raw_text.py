"""From raw text to a model that answers and is judged, by the commands of `make tiny`."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from qwen_eval.fileio import read_jsonl
from tests.cli.command import qwen_eval, refused
from tests.train.toy_corpus import RECIPE, rows, write_corpus

pytestmark = pytest.mark.slow

PRETRAIN = {
    "model": {
        "vocab_size": 512,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 2,
        "ffn_size": 64,
        "max_length": 4096,
        "ntk": True,
        "logn": True,
    },
    "stages": [{"length": 64, "tokens": 10240}, {"length": 128, "tokens": 10240}],
    "batch_tokens": 512,
    "part_tokens": 256,
    "optimiser": {"learning_rate": 1e-2, "warmup_steps": 5},
    "save_every": 20,
}
SFT = {
    "conversations": {"asked": {"files": ["talks.jsonl"]}},
    "length": 128,
    "epochs": 10,
    "batch": 4,
    "part": 2,
    "optimiser": {"learning_rate": 1e-2},
}
TALKS = [
    {"instruction": f"How wide is the river at {place}?", "output": f"It is {n} miles at {place}."}
    for n, place in enumerate(("Ashby", "Brook", "Corn Hill", "Dale", "Elm", "Ford") * 4)
]


def made(*words: object) -> str:
    done = qwen_eval(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raw text, recipes and a base model made of them in base/model."""
    home: Path = tmp_path_factory.mktemp("raw")
    write_corpus(home / "raw")
    rows(home / "raw" / "talks.jsonl", TALKS)
    (home / "data.yaml").write_text(RECIPE.replace("length: 64", "length: 128") + "heldout: 0.1\n")
    (home / "pretrain.yaml").write_text(yaml.safe_dump(PRETRAIN))
    (home / "sft.yaml").write_text(yaml.safe_dump(SFT))
    corpus = ("train", "data", home / "data.yaml", "--data", home / "raw", "--workers", "1")
    made(*corpus, "--out", home / "corpus")
    kept = home / "corpus" / "5-heldout" / "kept"
    made("train", "tokenizer", "--text", kept, "--vocab-size", 300, "--out", home / "vocabulary")
    made(*corpus, "--out", home / "corpus", "--tokenizer", home / "vocabulary")
    run = ("train", "pretrain", home / "pretrain.yaml", "--corpus", home / "corpus")
    made(*run, "--out", home / "base")
    return home


def losses(run: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(run / "log.jsonl")]


def test_a_base_model_learns_and_is_judged(base: Path) -> None:
    loss = losses(base / "base")
    assert len(loss) == 40
    # ln 508 = 6.2 nats a token at first; the made-up words' letters are learnt soon.
    assert loss[0] == pytest.approx(6.2, abs=0.3)
    assert sum(loss[-5:]) / 5 < loss[0] - 1.5
    config = json.loads((base / "base" / "model" / "config.json").read_text())
    assert config["max_position_embeddings"] == 4096
    assert config["seq_length"] == 128
    assert config["use_dynamic_ntk"]
    assert config["use_logn_attn"]
    out = base / "judged"
    told = made(
        *("run", "--tasks", "mmlu", "--limit", "2", "--model", base / "base" / "model"),
        *("--out", out, "--json"),
    )
    assert json.loads(told.splitlines()[-1])["model"]["detail"]["family"] == "qwen"
    assert (out / "DONE").exists()


def test_it_is_tuned_to_answer_and_kept_as_a_delta(base: Path) -> None:
    run = base / "chat"
    tune = ("train", "sft", base / "sft.yaml", "--model", base / "base" / "model")
    made(*tune, "--data", base / "raw", "--out", run)
    loss = losses(run)
    assert loss[-1] < loss[0] / 2
    delta = base / "delta"
    said = made(
        *("convert", run / "model", "--delta-from", base / "base" / "model"),
        *("--size", "60KiB", "--out", delta),
    )
    assert "hold" in said
    assert (delta / "delta.safetensors").stat().st_size <= 60 << 10
    # It answers in the form that it was taught, and ends by itself.
    question = TALKS[0]["instruction"]
    reply = qwen_eval("chat", "--model", delta, "--max-tokens", 40, stdin=f"{question}\n")
    assert re.fullmatch(r"It is \d miles at [A-Z][A-Za-z ]+\.\n", reply.stdout), reply.stdout


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "no conversation"}, "talks.jsonl, row 1: needs messages"),
        ({"messages": [{"role": "user", "content": "Hello"}]}, "no answer of an assistant"),
    ],
)
def test_a_row_that_is_no_conversation_is_one_line(
    base: Path, tmp_path: Path, row, said: str
) -> None:
    rows(tmp_path / "talks.jsonl", [row])
    tune = ("train", "sft", base / "sft.yaml", "--model", base / "base" / "model")
    line = refused(qwen_eval(*tune, "--data", tmp_path, "--out", tmp_path / "out"))
    assert said in line


def test_only_an_own_model_is_tuned(base: Path, tmp_path: Path) -> None:
    tune = ("train", "sft", base / "sft.yaml", "--model", "mock:oracle", "--data", base / "raw")
    line = refused(qwen_eval(*tune, "--out", tmp_path / "out"))
    assert "only a model of our own engine" in line
