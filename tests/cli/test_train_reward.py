"""`qwen-eval train reward` and `reward-report` as a user meets them."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from qwen_eval.cli.main import app
from qwen_eval.errors import UserError
from qwen_eval.paper import tables
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint
from tests.train.toy_pairs import toy_rows, write_reward_recipe, write_rows
from tests.train.toy_training import TORCHRUN

pytestmark = pytest.mark.slow
SHARES: dict[str, Any] = {"toy": {"files": ["pairs.jsonl"], "share": [0, 0.7]}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("base") / "toy")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "pairs.jsonl", toy_rows(60))
    return folder


def words(recipe: Path, base: Path, data: Path, out: Path, *more: str) -> list[str]:
    said = ["train", "reward", str(recipe), "--model", str(base), "--data", str(data)]
    return [*said, "--out", str(out), *more]


def curve(out: Path) -> list[dict[str, Any]]:
    """The log without what the clock says."""
    timed = ("seconds", "tokens_per_second", "gflops")
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in timed} for row in rows]


def weights(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (out / "model").glob("*.safetensors")}


@pytest.mark.timeout(900)
def test_pretrained_on_preferences_then_tuned_then_reported(
    base: Path, data: Path, tmp_path: Path
) -> None:
    recipe = write_reward_recipe(tmp_path / "r.yaml", pairs=SHARES)
    pmp, rm = tmp_path / "pmp", tmp_path / "rm"
    done = qwen_eval(*words(recipe, base, data, pmp, "--half", "a"))
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{pmp / 'model'}: measure it with `qwen-eval train reward-report`\n"
    done = qwen_eval(*words(recipe, pmp / "model", data, rm, "--half", "b"))
    assert done.returncode == 0, done.stderr
    figures = {"accuracy", "margin", "reward", "loss"}
    assert all(figures <= row.keys() for row in curve(pmp))
    # It goes on from the score that it found: no first step by chance.
    assert curve(rm)[0]["margin"] > curve(pmp)[0]["margin"]
    assert sorted(weights(rm)) == ["model.safetensors", "score.safetensors"]
    sets = tmp_path / "sets.yaml"
    sets.write_text("held_out: {files: [pairs.jsonl], share: [0.7, 1]}\n")
    asked = ["train", "reward-report", pmp / "model", rm / "model", "--sets", sets, "--data", data]
    done = qwen_eval(*asked, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    table4 = next(table for table in tables() if table.table == "table4")
    assert told["paper"] == table4.rows
    found = told["models"][str(rm / "model")]["held_out"]
    assert found["low"] <= found["accuracy"] <= found["high"]
    shown = qwen_eval(*asked, COLUMNS="200")
    for text in (f"{100 * found['accuracy']:.1f}", "PMP", "74.78", "people", str(found["n"])):
        assert text in shown.stdout, shown.stdout


@pytest.mark.timeout(900)
def test_two_processes_are_one(base: Path, data: Path, tmp_path: Path) -> None:
    recipe = write_reward_recipe(tmp_path / "r.yaml", pairs=SHARES)
    one, two = tmp_path / "one", tmp_path / "two"
    assert qwen_eval(*words(recipe, base, data, one)).returncode == 0
    done = subprocess.run(
        [*TORCHRUN, "2", "-m", "qwen_eval", *words(recipe, base, data, two)],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(curve(one), curve(two), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5, abs=1e-5)
    for name in ("model.safetensors", "score.safetensors"):
        left, right = (load_file(out / "model" / name) for out in (one, two))
        assert max(float((left[key] - right[key]).abs().max()) for key in left) < 2e-5


@pytest.mark.timeout(900)
def test_ctrl_c_keeps_the_state(base: Path, data: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"pairs": SHARES, "epochs": 8, "save_every": 1000}
    recipe = write_reward_recipe(tmp_path / "r.yaml", **changes)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert qwen_eval(*words(recipe, base, data, whole)).returncode == 0
    with subprocess.Popen(
        [*PROGRAM, *words(recipe, base, data, broken)],
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
    step = len(curve(broken))
    assert f"stopped after step {step}; the same command goes on\n" in said
    done = qwen_eval(*words(recipe, base, data, broken))
    assert f"going on from step {step} of " in done.stderr
    assert (curve(broken), weights(broken)) == (curve(whole), weights(whole))


@pytest.mark.timeout(900)
def test_mistakes_are_one_line(
    base: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen_eval.cli import train_reward
    from qwen_eval.train.data.decontaminate import known_tests

    monkeypatch.setattr(train_reward, "tests_of", lambda *_: known_tests({}))
    recipe, out = write_reward_recipe(tmp_path / "r.yaml", pairs=SHARES), tmp_path / "out"

    def said(arguments: list[str]) -> str:
        """In this process: a start for every mistake would take a minute."""
        with pytest.raises(UserError) as told:
            app(arguments, standalone_mode=False)
        assert "\n" not in str(told.value)
        return str(told.value)

    def of_row(row: dict[str, Any]) -> str:
        folder = tmp_path / "bad"
        write_rows(folder / "pairs.jsonl", [*toy_rows(4), row])
        changed = write_reward_recipe(tmp_path / "x.yaml")
        return said(words(changed, base, folder, out))

    good = toy_rows(1)[0]
    assert "pairs.jsonl, row 5: an empty answer (chosen)" in of_row(good | {"chosen": ""})
    assert "row 5: chosen and rejected are equal" in of_row(good | {"chosen": good["rejected"]})
    assert "row 5: its prompt is longer than the context" in of_row(good | {"prompt": "x" * 999})
    assert "row 5: needs the texts" in of_row({"prompt": "x"})
    assert "row 5: the turns before the answers must end with a user's" in of_row(
        good | {"messages": []}
    )
    assert "recipes of ours: qwen-pmp" in said(words(Path("nothing"), base, data, out))
    changed = write_reward_recipe(tmp_path / "x.yaml", faulty="mend")
    assert "x.yaml, line 1: faulty" in said(words(changed, base, data, out))
    assert "only a model of our own engine" in said(words(recipe, Path("mock:oracle"), data, out))
    other = write_reward_recipe(tmp_path / "x.yaml", pairs={"toy": {"files": ["no.jsonl"]}})
    assert "pairs toy: no file is" in said(words(other, base, data, out))
    report = ["train", "reward-report", str(base), "--data", str(data)]
    assert "recipes of ours: tiny" in said([*report, "--sets", "nothing"])
    sets = tmp_path / "sets.yaml"
    sets.write_text("x: {files: [pairs.jsonl]}\n")
    assert "no reward model (score.safetensors is missing)" in said([*report, "--sets", str(sets)])
    sets.write_text("x: {files: [pairs.jsonl], colour: 1}\n")
    assert "sets.yaml, line 1: x.colour: unknown key" in said([*report, "--sets", str(sets)])
    assert "--limit" in refused(qwen_eval(*report, "--limit", "0"))
    assert not (out / "states").exists()
