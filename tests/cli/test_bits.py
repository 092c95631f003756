"""A metric of which less is better, as a user meets it: run, compare, gate, report, rescore."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.command import qwen_eval, refused


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scripted models over the same texts: `b` needs a tenth of a bit more for each byte."""
    folder: Path = tmp_path_factory.mktemp("bits")
    for name, bits in (("a", 1.5), ("b", 1.6)):
        (folder / f"{name}.jsonl").write_text(json.dumps({"bits": bits}) + "\n")
        done = qwen_eval(
            *("run", "--tasks", "tiny_bits_zh", "--model", f"mock:{name}.jsonl", "--out", name),
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr
        assert f"{bits:.4f}" in done.stdout
        assert "bits per byte, less is better" in done.stdout
    return folder


def test_compare_calls_a_rise_a_loss(home: Path) -> None:
    done = qwen_eval("compare", "a", "b", "--json", cwd=home)
    assert "+0.1000" in done.stderr
    assert "bits per byte, less is better" in done.stderr
    assert "1.5000 → 1.6000 bits per byte" in done.stderr
    (task,) = json.loads(done.stdout)["tasks"]
    assert (task["lost"], task["gained"]) == (40, 0)
    assert task["paired"]["delta"] == pytest.approx(-0.1)
    assert task["p_adjusted"] < 0.001


@pytest.mark.parametrize(("before", "after", "code"), [("a", "b", 1), ("b", "a", 0), ("a", "a", 0)])
def test_the_gate_stops_a_rise(home: Path, before: str, after: str, code: int) -> None:
    rules = "rules:\n  - {task: tiny_bits_zh, type: non_inferiority, margin: 0.05}\n"
    (home / "gate.yaml").write_text(rules)
    done = qwen_eval(
        *("gate", "--rules", "gate.yaml", "--baseline", before, "--candidate", after), cwd=home
    )
    assert done.returncode == code, done.stderr
    assert "bits per byte" in done.stdout


@pytest.mark.parametrize(
    ("language", "said"), [("en", "bits per byte, less is better"), ("zh", "比特/字节，越小越好")]
)
def test_a_report_shows_bits_and_their_direction(home: Path, language: str, said: str) -> None:
    out = home / f"{language}.html"
    done = qwen_eval("report", "a", "b", "-o", out, "--language", language, cwd=home)
    assert done.returncode == 0, done.stderr
    page = out.read_text(encoding="utf-8")
    assert said in page
    assert "+0.1000" in page
    assert "1.6000" in page
    assert '<span class="t-bad">' in page
    assert '<span class="t-good">' not in page
    assert ">150.0<" not in page, "no bits in percent"


def test_there_is_nothing_to_rescore(home: Path) -> None:
    assert "texts were scored there" in refused(qwen_eval("rescore", "a", cwd=home))


def test_history_reads_bits(home: Path) -> None:
    done = qwen_eval("history", ".", "--json", cwd=home)
    assert "+0.1000" in done.stderr
    assert "bits per byte, less is better" in done.stderr
    assert "150.0" not in done.stderr


def test_a_plan_has_no_points_for_texts(home: Path) -> None:
    done = qwen_eval("run", "--tasks", "tiny", "--plan", "--json", cwd=home)
    plan = {row["task"]: row for row in json.loads(done.stdout.splitlines()[-1])["plan"]}
    assert plan["tiny_bits_zh@strict"]["detectable_difference"] is None
    assert plan["tiny_pairs@strict"]["detectable_difference"] > 0


def test_a_set_of_our_own_is_not_pulled(home: Path) -> None:
    done = qwen_eval("data", "pull", "--tasks", "tiny_pairs", "--to", "mirror", cwd=home)
    assert "the project's own" in refused(done)
