"""What is fetched once and kept: the data mirror and the default model."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.model import smollm2
from qwen_eval.taskspec import find_task, task_names
from tests.cli.command import qwen_eval, refused

ROW = {"question": "x?", "choices": ["a", "b", "c", "d"], "answer": 0, "subject": "anatomy"}
# What the conditions of some splits ask of their rows.
ROW |= {"label": 0, "category": "irrelevance", "function": []}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A mirror with one row in every split of every task; two splits of MBPP share a file."""
    for name in task_names():
        for split in find_task(name)[0].splits.values():
            if split.mirror is None:
                continue  # a set of the project's own is in no mirror
            path = tmp_path / "data" / split.mirror
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [ROW | {"task_id": n} for n in ((3, 12) if name == "mbpp" else (12,))]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            path.write_bytes(gzip.compress(lines.encode()))
    return tmp_path / "data"


def test_a_whole_mirror(data: Path) -> None:
    done = qwen_eval("data", "check", "--data", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert "mmlu: 1 rows, 1 dev rows, digest " in done.stdout


def test_every_split_is_read_and_every_fault_is_listed(data: Path) -> None:
    (data / "mmlu" / "dev.jsonl.gz").unlink()
    (data / "gsm8k" / "test.jsonl.gz").write_bytes(gzip.compress(b"{"))
    done = qwen_eval("data", "check", "--data", data)
    assert refused(done) == "data check: cannot be read whole: gsm8k, mmlu"
    assert "mmlu: " + str(data / "mmlu" / "dev.jsonl.gz") + ": missing" in done.stderr
    assert "gsm8k: " + str(data / "gsm8k" / "test.jsonl.gz") + ", line 1: not JSON" in done.stderr
    whole = [line.partition(":")[0] for line in done.stdout.splitlines()]
    assert not {"gsm8k", "mmlu"} & set(whole)
    assert {"humaneval", "longppl_en", "needle_zh", "passkey_en", "tiny_pairs"} <= set(whole)
    assert len(whole) == len(task_names()) - 2, "sets of the project's own need no mirror"


@pytest.mark.parametrize("place", ["/proc/xx", "{tmp}/file", "{tmp}/file/below"])
def test_a_mirror_that_cannot_be_written(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    place = place.format(tmp=tmp_path)
    line = refused(qwen_eval("data", "pull", "--tasks", "humaneval", "--to", place))
    assert line.startswith(f"data pull --to {place}: ")


def cached(folder: Path, *names: str) -> Path:
    (folder / "smollm2").mkdir(parents=True)
    for name in names:
        (folder / "smollm2" / name).write_text("{}")
    return folder


@pytest.mark.parametrize("missing", smollm2.FILES)
def test_a_model_without_a_file_is_not_ready_and_a_pull_mends_it(
    missing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cached(tmp_path / "cache", *(set(smollm2.FILES) - {missing}), "left over")
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(cache))
    with pytest.raises(UserError, match="not here yet; run `qwen-eval models pull smollm2`"):
        smollm2.require()

    def fetch(work: Path) -> Path:
        (work / smollm2.GGUF).write_text("gguf")
        return work / smollm2.GGUF

    def convert(_: Path, converted: Path) -> None:
        converted.mkdir()
        for name in smollm2.FILES:
            (converted / name).write_text("new")

    monkeypatch.setattr(smollm2, "_fetch", fetch)
    monkeypatch.setattr(smollm2, "_convert", convert)
    said: list[str] = []
    smollm2.pull(said.append)
    assert said[-1] == f"ready: {cache / 'smollm2'}"
    assert {p.name for p in smollm2.require().iterdir()} == {*smollm2.FILES, smollm2.GGUF}
    assert list(cache.iterdir()) == [cache / "smollm2"]
    smollm2.pull(said.append)
    assert said[-1] == f"already converted: {cache / 'smollm2'}"


def test_models_says_what_run_would_find(tmp_path: Path) -> None:
    half = cached(tmp_path / "half", "config.json")
    whole = cached(tmp_path / "whole", *smollm2.FILES)
    for cache, word in ((half, "not pulled yet"), (whole, "ready")):
        done = qwen_eval("models", QWEN_EVAL_CACHE=str(cache))
        (line,) = [line for line in done.stdout.splitlines() if line.startswith("smollm2")]
        assert line.endswith(f"; {word}")
    asked = ("run", "--tasks", "gsm8k", "--model", "smollm2")
    done = qwen_eval(*asked, QWEN_EVAL_CACHE=str(half), cwd=tmp_path)
    assert "models pull smollm2" in refused(done)


def test_a_cache_that_cannot_be_written() -> None:
    line = refused(qwen_eval("models", "pull", "smollm2", QWEN_EVAL_CACHE="/proc/x"))
    assert "/proc/x" in line
    assert "QWEN_EVAL_CACHE names another place" in line
