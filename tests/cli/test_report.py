"""`report` as a user runs it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qwen_eval.run_writer import RunWriter
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.harness.toys import record, run_info
from tests.reports.test_ci import EVERY


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The right answers and answers at random, over the bundled samples."""
    folder = tmp_path_factory.mktemp("runs")
    for name, model in (("right", "mock:oracle"), ("chance", "mock:random")):
        done = qwen_eval("run", "--tasks", "mmlu,gsm8k", "--model", model, "--out", folder / name)
        assert done.returncode == 0, done.stderr
    return {name: folder / name for name in ("right", "chance")}


def test_one_page_of_two_runs(tmp_path: Path, runs: dict[str, Path]) -> None:
    page = tmp_path / "page.html"
    done = qwen_eval("report", runs["right"], runs["chance"], "-o", page)
    assert done.returncode == 0, done.stderr
    assert f"wrote {page}" in done.stdout
    html = page.read_text(encoding="utf-8")
    assert "Worse on 2 of 2" in html
    assert "SAMPLE questions" in html
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_the_same_bytes_in_another_process(tmp_path: Path, runs: dict[str, Path]) -> None:
    pages = []
    for seed in ("1", "2"):
        done = qwen_eval("report", runs["chance"], "-o", tmp_path / "r.html", PYTHONHASHSEED=seed)
        assert done.returncode == 0, done.stderr
        pages.append((tmp_path / "r.html").read_bytes())
    assert pages[0] == pages[1]


def test_chinese_and_without_samples(tmp_path: Path, runs: dict[str, Path]) -> None:
    done = qwen_eval("report", runs["chance"], "-o", tmp_path / "r.html", "--language", "zh",
                     "--no-samples")  # fmt: skip
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert 'lang="zh"' in html
    assert 'id="packed"' not in html


def test_json_and_csv_twins(tmp_path: Path, runs: dict[str, Path]) -> None:
    import pandas

    for name in ("r.json", "r.csv"):
        done = qwen_eval("report", runs["right"], runs["chance"], "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))
    stored = json.loads((runs["chance"] / "metrics.json").read_text(encoding="utf-8"))
    for task, score in found["runs"][1]["scores"].items():
        assert score["overall"] == stored["tasks"][task]["overall"]
    frame = pandas.read_csv(tmp_path / "r.csv")
    means = frame.groupby(["run", "task"])["accuracy"].mean()
    assert means[str(runs["right"]), "mmlu@strict"] == 1.0


def test_the_last_run_is_taken_where_none_is_named(tmp_path: Path) -> None:
    assert "name a run directory" in refused(qwen_eval("report", cwd=tmp_path))
    for seed in ("2", "1"):
        run = ("run", "--tasks", "gsm8k", "--model", "mock:random", "--seed", seed)
        done = qwen_eval(*run, "--out", f"runs/{seed}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    done = qwen_eval("report", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<code>runs/1</code>" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_gates_verdict_comes_first(tmp_path: Path, runs: dict[str, Path]) -> None:
    rules = tmp_path / "gate.yaml"
    rules.write_text("rules: [{task: mmlu, type: floor, minimum: 0.9}]")
    verdict = tmp_path / "v.json"
    done = qwen_eval("gate", "--rules", rules, "--baseline", runs["right"], "--candidate",
                     runs["chance"], "--out", verdict)  # fmt: skip
    assert done.returncode == 1
    done = qwen_eval("report", runs["right"], runs["chance"], "-o", tmp_path / "r.html", "--gate",
                     verdict)  # fmt: skip
    assert done.returncode == 0, done.stderr
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert html.index("Gate: FAIL") < html.index("Worse on 2 of 2")


@pytest.fixture
def going(tmp_path: Path, runs: dict[str, Path]) -> Path:
    """A run without its end."""
    folder = tmp_path / "going"
    shutil.copytree(runs["chance"], folder)
    (folder / "DONE").rename(tmp_path / "DONE")
    return folder


@contextmanager
def watching(going: Path) -> Iterator[subprocess.Popen[str]]:
    """`report --watch` on it, once its first page is there."""
    page = going.with_name("r.html")
    watch = subprocess.Popen(
        [*PROGRAM, "report", str(going), "-o", str(page), "--watch", "--every", "0.2"],
        env=environment(), stderr=subprocess.PIPE, text=True,
        # A test runner started in the background ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not page.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 'http-equiv="refresh"' in page.read_text(encoding="utf-8")
        assert watch.stderr
        assert "samples" in watch.stderr.readline()
        yield watch
    finally:
        watch.kill()
    assert 'http-equiv="refresh"' not in page.read_text(encoding="utf-8")
    assert "<h1>" in page.read_text(encoding="utf-8")


def test_watching_ends_when_the_run_does(going: Path) -> None:
    with watching(going) as watch:
        going.with_name("DONE").rename(going / "DONE")
        _, said = watch.communicate(timeout=60)
        assert watch.returncode == 0, said
    assert "unfinished" not in going.with_name("r.html").read_text(encoding="utf-8")


def test_interrupted_it_leaves_a_page_that_waits_for_nothing(going: Path) -> None:
    with watching(going) as watch:
        watch.send_signal(signal.SIGINT)
        _, said = watch.communicate(timeout=60)
        assert watch.returncode == 130
        assert said.splitlines()[-1] == "qwen-eval: interrupted"
        assert "Traceback" not in said


@pytest.mark.parametrize("what", ["gone", "damaged"])
def test_a_run_that_ends_badly_is_one_line(going: Path, what: str) -> None:
    with watching(going) as watch:
        if what == "gone":
            shutil.rmtree(going)
        else:
            (going / "run.json").write_text("{")
        _, said = watch.communicate(timeout=60)
        assert watch.returncode == 2
        assert said.splitlines()[-1].startswith(f"qwen-eval: {going}")
        assert "Traceback" not in said


def test_half_a_character_leaves_the_twins_readable(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path / "run", run_info(), [])
    writer.add(record(0, answer="\ud83d", group="组"))
    writer.close()
    for name in ("r.json", "r.csv", "r.html"):
        done = qwen_eval("report", tmp_path / "run", "-o", tmp_path / name)
        assert done.returncode == 0, done.stderr
        assert "组" in (tmp_path / name).read_text(encoding="utf-8") or name == "r.html"
    assert json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))


def test_names_of_files_do_not_act(tmp_path: Path, runs: dict[str, Path]) -> None:
    name = "a #?%41 \"q'\n\x1b[31m.html"
    done = qwen_eval("report", runs["chance"], "-o", tmp_path / name)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert done.stdout.count("\n") == 1
    said = refused(qwen_eval("report", tmp_path / "\x1b[31mnowhere"))
    assert "␛[31mnowhere" in said


@pytest.mark.parametrize(
    "damage",
    [
        {"rules": "all"},
        {"rules": [3]},
        {"rules": [{"rule": {}, "verdict": "PASS", "message": ""}]},
        {"quarantine": [{"task": "mmlu"}]},
        {"warnings": 1},
        {"verdict": None},
        {"candidate": "runs/a"},
        {"schema": 2},
    ],
)
def test_a_file_that_is_no_verdict(tmp_path: Path, runs: dict[str, Path], damage: dict) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(EVERY | damage))
    said = refused(qwen_eval("report", runs["chance"], "--gate", path, cwd=tmp_path))
    assert f"--gate {path}: not a verdict" in said


def test_a_verdict_on_other_runs_is_not_shown(tmp_path: Path, runs: dict[str, Path]) -> None:
    path = tmp_path / "v.json"
    path.write_text(json.dumps(EVERY))
    said = refused(qwen_eval("report", runs["chance"], "--gate", path, cwd=tmp_path))
    assert "judges m (runs/a), which is none of the runs named" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("nowhere",), "is nowhere a run directory?"),
        (("RUN", "-o", "page.pdf"), "--out page.pdf: end it in .html, .json, .csv"),
        (("RUN", "RUN"), "a run is named twice"),
        (("RUN", "RUN/../chance"), "a run is named twice"),
        (("a" * 300,), "cannot be read (File name too long)"),
        (("RUN", "-o", "RUN/run.json"), "run.json: belongs to a run; choose another name"),
        (("RUN", "-o", "."), "--out .: end it in"),
        (("RUN", "-o", "a.html"), "--out a.html: a folder; name a file in it"),
        (("RUN", "--alpha", "1e-300"), "--alpha 1e-300"),
        (("RUN", "--every", "inf", "--watch"), "--every"),
        (("RUN", "--language", "fr"), "--language fr: choose one of en, zh"),
        (("RUN", "--alpha", "1"), "--alpha 1.0"),
        (("RUN", "--gate", "none.json"), "--gate none.json: cannot be read"),
        (("RUN", "--gate", "RUN/metrics.json"), "not a verdict"),
        (("RUN", "-o", "no/such/folder/r.html"), "r.html: No such file or directory"),
        (("RUN", "-o", "r.json", "--watch"), "--watch: only a .html page"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, runs: dict[str, Path], arguments: tuple[str, ...], says: str
) -> None:
    (tmp_path / "a.html").mkdir()
    words = [word.replace("RUN", str(runs["chance"])) for word in arguments]
    assert says in refused(qwen_eval("report", *words, cwd=tmp_path))
