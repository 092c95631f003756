"""Perplexity by length of context as a user meets it."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from tests.cli.command import qwen_eval, refused

WORDS = "the bell rang {n} times over the {n}th house and nobody counted. "


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror with three English books, one of them too short, and the runs of two scripts."""
    folder: Path = tmp_path_factory.mktemp("longppl")
    books = ["".join(WORDS.format(n=n * k) for n in range(200)) for k in (1, 3)] + ["short. "]
    (folder / "data" / "longdoc").mkdir(parents=True)
    with gzip.open(folder / "data" / "longdoc" / "en.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": book}) + "\n" for book in books)
    for name, bits in (("a", 1.5), ("b", 1.6)):
        (folder / f"{name}.jsonl").write_text(json.dumps({"bits": bits}) + "\n")
        done = qwen_eval(
            *("run", "--tasks", "longppl_en@1024", "--model", f"mock:{name}.jsonl"),
            *("--data", "data", "--out", name),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        assert f"{bits * math.log(2):.4f}" in done.stdout
        assert "longppl_en@1024: nats per token, less is better" in done.stdout
        assert "1 of 3 samples excluded as too short for the recipe" in done.stdout
    return folder


def test_a_run_counts_what_it_excludes(home: Path) -> None:
    (row,) = json.loads((home / "a" / "metrics.json").read_text())["tasks"].values()
    assert (row["counts"]["excluded"], row["counts"]["errors"], row["invalid"]) == (1, 0, [])
    assert (row["overall"]["n"], row["overall"]["estimate"]) == (
        2,
        pytest.approx(1.5 * math.log(2)),
    )
    lines = (home / "a" / "samples.jsonl").read_text().splitlines()
    (short,) = (one for one in map(json.loads, lines) if one["status"] == "excluded")
    assert short["detail"]["excluded"] == "7 tokens do not fill a window of 1024"


def test_compare_and_gate_leave_it_out(home: Path) -> None:
    done = qwen_eval("compare", "a", "b", "--json", cwd=home)
    assert "left out: 1 excluded" in done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert task["paired"]["delta"] == pytest.approx(-0.1 * math.log(2))
    rule = "rules:\n  - {{task: longppl_en@1024, type: ceiling, maximum: {}}}\n"
    for maximum, code in ((1.1, 0), (1.0, 1)):
        (home / "gate.yaml").write_text(rule.format(maximum))
        words = ("gate", "--rules", "gate.yaml", "--baseline", "a", "--candidate", "a")
        done = qwen_eval(*words, cwd=home)
        assert done.returncode == code, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("language", "said"),
    [("en", "1 of 3 samples excluded as too short"), ("zh", "3 个样本中有 1 个过短，不计入")],
)
def test_a_report_and_the_history_say_so(home: Path, language: str, said: str) -> None:
    done = qwen_eval("report", "a", "b", "-o", "r.html", "--language", language, cwd=home)
    assert done.returncode == 0, done.stderr
    page = (home / "r.html").read_text(encoding="utf-8")
    assert said in page
    assert "+0.0693" in page
    assert "1.0397" in page
    done = qwen_eval("history", ".", "--json", cwd=home)
    assert done.returncode == 0, done.stderr


def test_what_is_longer_than_the_context_is_left_out(home: Path) -> None:
    words = ("run", "--model", "tiny", "--data", "data", "--dtype", "float32", "--tasks")
    names = "longppl_en@1024,longppl_en@8192,longppl_en@16384"
    done = qwen_eval(*words, names, "--limit", 1, "--out", "left", "--json", cwd=home)
    assert done.returncode == 0, done.stderr
    said = (
        "longppl_en@8192, longppl_en@16384: longer than this model's context of 4,096 tokens; "
        "left out (--max-length, --ntk)"
    )
    assert said in done.stderr.splitlines()
    assert list(json.loads(done.stdout)["tasks"]) == ["longppl_en@1024"]
    done = qwen_eval(*words, "longppl_en@8192", "--out", "none", cwd=home)
    assert "longppl_en@8192: longer than this model's context of 4,096 tokens" in refused(done)
    done = qwen_eval(*words, "longppl_en", "--kv-memory", "8M", "--out", "none", cwd=home)
    assert "a sequence of 4,096 tokens needs" in refused(done)
    assert "--kv-memory" in refused(done)
    assert not (home / "none").exists()


def test_there_is_no_sample_of_books(home: Path) -> None:
    said = refused(qwen_eval("run", "--tasks", "longppl_zh", "--model", "mock:oracle", cwd=home))
    assert said == "--tasks longppl_zh: no data; name a mirror with --data"


@pytest.mark.slow
@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_bundled_model_reads_a_book(mirror: Path, tmp_path: Path, language: str) -> None:
    task = f"longppl_{language}@1024"
    done = qwen_eval(
        *("run", "--tasks", task, "--model", "tiny", "--limit", 1, "--dtype", "float32"),
        *("--data", mirror, "--out", tmp_path / "run"),
    )
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "samples.jsonl").read_text())
    values = [value for r in record["responses"] for value in r.get("logprobs", ())]
    assert record["values"]["tokens"] == len(values) == 32 * 1023
    mean = -math.fsum(values) / len(values)
    assert record["values"]["nats_per_token"] == pytest.approx(mean)
    assert 2.0 < mean < 7.0, "better than chance among 8,192, and no wonder"
    curve = record["detail"]["curve"]
    assert sum(curve["counts"]) == len(values)
    first, last = (curve["nats"][i] / curve["counts"][i] for i in (0, -1))
    assert last < first, "more context, fewer nats"
