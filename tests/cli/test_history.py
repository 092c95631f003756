"""`history` as a user runs it."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from tests.cli.command import qwen_eval, refused
from tests.harness.toys import finished_run

TASKS = "mmlu,gsm8k"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The right answers three times, then answers at random; a smaller run beside them."""
    folder = tmp_path_factory.mktemp("history") / "runs"
    for name, model, more in (
        ("1", "mock:oracle", ()),
        ("2", "mock:oracle", ()),
        ("3", "mock:oracle", ()),
        ("later/4", "mock:random", ()),
        ("later/5", "mock:random", ("--seed", "1")),
        ("few", "mock:random", ("--limit", "20")),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        done = qwen_eval("run", "--tasks", TASKS, "--model", model, "--out", folder / name, *more)
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copied(runs: Path, tmp_path: Path) -> Path:
    """The same, for a test to change."""
    return shutil.copytree(runs, tmp_path / "runs")


def score(run: Path) -> float:
    """Percent, as the run itself says."""
    metrics = json.loads((run / "metrics.json").read_text())
    return 100 * float(metrics["tasks"]["mmlu@strict"]["overall"]["estimate"])


def test_the_drop_is_marked_where_it_is(copied: Path) -> None:
    done = qwen_eval("history", "runs", "--tasks", "mmlu", cwd=copied.parent, COLUMNS="120")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.strip().split("\n\n")
    title, spark, _, header, *rows = first.splitlines()
    assert title.startswith("mmlu@strict · n 171 · 5 runs · SAMPLE")
    assert re.fullmatch(r"███[▁▂]{2}  \d\d\.\d – 100\.0", spark)
    assert header.split() == ["when", "(UTC)", "model", "n", "score", "95%", "interval", "run",
                              "change"]  # fmt: skip
    marked = [re.search(r"▼ (−\d\d\.\d) p<0\.001", row) for row in rows[:5]]
    assert [bool(mark) for mark in marked] == [False, False, False, True, False]
    fourth, fifth = (score(copied / "later" / name) for name in ("4", "5"))
    assert rows[3].split()[2:4] == ["mock:random", "171"]
    assert f" −{100 - fourth:.1f} " in rows[3]
    assert f"▼ −{100 - (fourth + fifth) / 2:.1f} " in rows[3]
    note = rows[5]
    assert note.startswith(
        f"−{100 - (fourth + fifth) / 2:.1f} points from runs/later/4 on: p<0.001"
    )
    assert note.endswith("qwen-eval compare runs/3 runs/later/4")
    assert second.splitlines()[0].startswith("mmlu@strict · n 20 · 1 run")


def test_json_is_what_the_table_shows(copied: Path) -> None:
    done = qwen_eval("history", copied, "--json")
    found = json.loads(done.stdout)
    assert (found["schema"], found["unfinished"], found["damaged"]) == (1, 0, [])
    names = [(one["task"], one["differs"], len(one["points"])) for one in found["series"]]
    assert sorted(names) == [
        ("gsm8k@strict", "n 20", 1),
        ("gsm8k@strict", "n 30", 5),
        ("mmlu@strict", "n 171", 5),
        ("mmlu@strict", "n 20", 1),
    ]
    for one in found["series"]:
        scores = [point["score"] for point in one["points"]]
        assert [change["at"] for change in one["changes"]] == ([3] if len(scores) > 1 else [])
        for change in one["changes"]:
            assert change["delta"] == pytest.approx(sum(scores[3:]) / 2 - 1)
    assert "mmlu@strict" in done.stderr, "the table is there too, out of the way"


def test_the_compare_command_it_names_works(copied: Path) -> None:
    done = qwen_eval("history", "runs", "--tasks", "gsm8k", cwd=copied.parent)
    (line,) = re.findall(r"qwen-eval (compare .*)", done.stdout)
    compared = qwen_eval(*line.split(), cwd=copied.parent)
    assert compared.returncode == 0, compared.stderr


def test_filters(copied: Path) -> None:
    done = qwen_eval("history", copied, "--model", "mock:oracle", "--tasks", "mmlu", "--json")
    (one,) = json.loads(done.stdout)["series"]
    assert [point["model"] for point in one["points"]] == ["mock:oracle"] * 3
    message = refused(qwen_eval("history", copied, "--model", "none"))
    assert "--model mock:oracle, mock:random" in message
    assert "--tasks are gsm8k@strict, mmlu@strict" in message


def test_what_is_left_out_is_said(copied: Path) -> None:
    (copied / "1" / "DONE").unlink()
    (copied / "2" / "samples.jsonl").write_text("")
    done = qwen_eval("history", copied)
    assert done.returncode == 0, done.stderr
    damaged, unfinished = done.stderr.splitlines()
    assert damaged == (
        f"left out: {copied}/2/samples.jsonl: damaged since the run ended; restore it or run anew"
    )
    assert unfinished == "left out: 1 unfinished"
    assert " 3 runs " in done.stdout


def test_an_index_that_cannot_be_kept_is_a_notice(copied: Path) -> None:
    (copied / ".history.sqlite").mkdir()
    done = qwen_eval("history", copied)
    assert done.returncode == 0
    assert done.stderr == (
        "the index cannot be written here, so all runs were read; --index FILE keeps it\n"
    )
    done = qwen_eval("history", copied, "--index", copied.parent / "index")
    assert (done.returncode, done.stderr) == (0, "")
    assert (copied.parent / "index").stat().st_size > 0


def test_mistakes_are_one_line(copied: Path) -> None:
    empty = copied / "empty"
    empty.mkdir()
    assert "no finished run; `qwen-eval run --out" in refused(qwen_eval("history", empty))
    assert "no such folder" in refused(qwen_eval("history", cwd=copied)), "runs is the default"
    index = copied / "1" / "samples.jsonl"
    assert "is another file" in refused(qwen_eval("history", copied, "--index", index))


def test_an_invalid_score_is_not_printed(tmp_path: Path) -> None:
    finished_run(tmp_path / "a", [1.0, 0.0], "2026-01-01T00:00:00+00:00")
    finished_run(tmp_path / "b", [1.0, None], "2026-01-02T00:00:00+00:00")
    done = qwen_eval("history", tmp_path, COLUMNS="120")
    rows = [line.split() for line in done.stdout.splitlines() if line.startswith("2026")]
    assert rows[0][:5] == ["2026-01-01", "00:00", "m", "2", "50.0"]
    assert rows[1] == ["2026-01-02", "00:00", "m", "1", "invalid"]
    assert f"{tmp_path}/b is invalid: errors 50% > 2%" in done.stdout


def test_a_change_says_what_it_was_tested_on(tmp_path: Path) -> None:
    for number, value in enumerate((1.0, 1.0, None, 0.0, 0.0)):
        finished_run(tmp_path / str(number), [value] * 40, f"2026-01-0{number + 1}T00:00:00+00:00")
    done = qwen_eval("history", tmp_path)
    assert (
        f"−100.0 points from {tmp_path}/3 on, same fingerprint: p<0.001 over 3 places, 40 items, "
        f"exact McNemar; qwen-eval compare {tmp_path}/1 {tmp_path}/3\n"
    ) in done.stdout


def test_names_from_files_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[31m[bold]x[/]\u202e:smile:\n\\"
    finished_run(tmp_path / "a\x1b[2J", [1.0, 1.0], model={"name": hostile, "fingerprint": "f"})
    finished_run(tmp_path / "b", [1.0, None], model={"name": hostile, "fingerprint": "f"})
    (tmp_path / "a\x1b[2J" / "DONE").write_text("{}")
    for width in ("120", "40"):
        done = qwen_eval("history", tmp_path, COLUMNS=width)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
        assert "\u202e" not in done.stdout
        assert "␛[31m[bold]x[/]⟨U+202E⟩:smile: \\" in done.stdout
    message = refused(qwen_eval("history", tmp_path, "--model", "none"))
    assert "\x1b" not in message


def test_no_number_is_cut_on_a_narrow_terminal(copied: Path) -> None:
    done = qwen_eval("history", copied, "--tasks", "mmlu", COLUMNS="40")
    assert "    95% interval 97.8 – 100.0" in done.stdout
    assert "…" not in done.stdout


def test_a_page_is_drawn(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs" / "a", [1.0, 0.0])
    page = tmp_path / "h.html"
    done = qwen_eval("history", tmp_path / "runs", "-o", page)
    assert done.returncode == 0, done.stderr
    assert f"wrote {page}" in done.stderr
    assert page.read_text(encoding="utf-8").count("<circle") == 1
    assert "end it in .html" in refused(qwen_eval("history", tmp_path / "runs", "-o", "h.pdf"))
