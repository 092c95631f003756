"""`qwen-eval train sft` as a user meets it: what it says, refuses and writes; adapters together."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.cli.command import environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint
from tests.train.toy_training import TORCHRUN, write_packed, write_recipe
from tests.train.toy_tuning import RECIPE

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("model") / "base")


def write_rows(folder: Path, rows: list[dict[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "toy.jsonl").write_text("".join(lines), encoding="utf-8")


def write_tuning(folder: Path, **changes: Any) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(RECIPE | {"length": 64, "steps": 4} | changes))
    return path


ROWS = [{"prompt": f"{n}?", "response": f"{n + 1}。"} for n in range(12)]


def words(recipe: Path, base: Path, out: Path) -> list[str]:
    data = str(recipe.parent)
    return [
        *("train", "sft", str(recipe), "--model", str(base)),
        *("--data", data, "--out", str(out)),
    ]


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def test_what_is_left_out_or_cut_is_said(base: Path, tmp_path: Path) -> None:
    long = {"prompt": "a" * 80, "response": "b"}
    write_rows(tmp_path, [*ROWS, long, long, {"prompt": "a", "response": "b" * 80}])
    out = tmp_path / "out"
    done = qwen_eval(*words(write_tuning(tmp_path, packing=False), base, out))
    assert done.returncode == 0, done.stderr
    assert "conversations: toy 15; 13 sequences of 64 tokens" in done.stderr
    assert "left out, no answer within 64 tokens: 2" in done.stderr
    assert "cut at their end, longer than 64 tokens: 1" in done.stderr
    assert len(losses(out)) == 4


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a", "response": ""}, "turn 2, the assistant's, is empty"),
        ({"messages": [{"role": "user", "content": "a"}]}, "no answer of an assistant in it"),
    ],
)
def test_a_row_without_an_answer_is_named(
    base: Path, tmp_path: Path, row: dict[str, Any], problem: str
) -> None:
    write_rows(tmp_path, [*ROWS, row])
    done = qwen_eval(*words(write_tuning(tmp_path), base, tmp_path / "out"))
    assert refused(done) == f"{tmp_path / 'toy.jsonl'}, row 13: {problem}; leave the row out"


def test_adapters_of_two_processes_are_those_of_one(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    write_rows(tmp_path, ROWS)
    lora = {"rank": 4, "alpha": 8, "dropout": 0}
    recipe = write_tuning(tmp_path, lora=lora)
    alone, together = tmp_path / "alone", tmp_path / "together"
    done = qwen_eval(*words(recipe, base, alone))
    assert done.returncode == 0, done.stderr
    arguments = [*TORCHRUN, "2", "-m", "qwen_eval", *words(recipe, base, together)]
    done = subprocess.run(
        arguments, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert losses(together) == pytest.approx(losses(alone), abs=1e-4)
    written = [load_file(out / "model" / "model.safetensors") for out in (alone, together)]
    before = load_file(base / "model.safetensors")
    assert written[0].keys() == before.keys()
    for name, weight in written[0].items():
        assert (weight - written[1][name]).abs().max() < 1e-3
    changed = {name for name in before if not written[0][name].equal(before[name])}
    assert changed
    assert not any("norm" in name or "wte" in name or "ln" in name for name in changed)


def test_pretraining_goes_on_from_a_model(tmp_path: Path) -> None:
    corpus = write_packed(tmp_path / "corpus")
    first, out = tmp_path / "first", tmp_path / "out"
    begun = write_recipe(tmp_path / "first.yaml")
    pretrain = ("train", "pretrain")
    done = qwen_eval(*pretrain, begun, "--corpus", corpus, "--out", first)
    assert done.returncode == 0, done.stderr
    on = write_recipe(tmp_path / "on.yaml", continues=True, optimiser={"warmup_share": 0.5})
    said = (*pretrain, on, "--corpus", corpus, "--out", out)
    assert refused(qwen_eval(*said)) == "--model: is missing; this recipe goes on from a model"
    done = qwen_eval(*said, "--model", first / "model")
    assert done.returncode == 0, done.stderr
    assert losses(out)[0] < losses(first)[0]
    other = write_packed(tmp_path / "other", readable=False)
    done = qwen_eval(
        *(*pretrain, on, "--corpus", other, "--out", tmp_path / "no", "--model", first / "model")
    )
    assert refused(done).startswith(f"--corpus {other}: packed with another tokenizer than that of")
