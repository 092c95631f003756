"""`qwen-eval run` with the mock models: tables, JSON, run directories, resume."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from qwen_eval.results import read_info, read_metrics, read_samples
from tests.cli.command import qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint


def test_the_oracle_gets_everything_right_and_chance_gets_a_quarter(
    mirror: Path, tmp_path: Path
) -> None:
    for model, low, high in (("mock:oracle", 1.0, 1.0), ("mock:random", 0.22, 0.28)):
        out = tmp_path / model.replace(":", "-")
        done = qwen_eval(
            "run", "--tasks", "mmlu", "--model", model, "--data", mirror, "--out", out, "--limit",
            "2000", "--json",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        row = json.loads(done.stdout.splitlines()[-1])["tasks"]["mmlu@strict"]
        assert low <= row["overall"]["estimate"] <= high
        assert row["overall"]["n"] == 2000
        assert row["overall"]["low"] <= row["overall"]["estimate"] <= row["overall"]["high"]
        assert set(row["categories"]) == {"stem", "humanities", "social_sciences", "other"}
        assert sum(e["n"] for e in row["categories"].values()) == 2000


def test_gsm8k_oracle_under_every_recipe(mirror: Path, tmp_path: Path) -> None:
    done = qwen_eval(
        "run", "--tasks", "gsm8k,gsm8k@qwen,gsm8k@lm-eval", "--model", "mock:oracle", "--data",
        mirror, "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.splitlines()[-1])["tasks"]
    scores = {name: row["overall"]["estimate"] for name, row in rows.items()}
    assert scores["gsm8k@strict"] == scores["gsm8k@lm-eval"] == 1.0
    # Its reading loses a sign: the golds below zero are wrong even for an oracle.
    assert 0.99 < scores["gsm8k@qwen"] <= 1.0


def test_the_sample_is_never_called_the_benchmark(tmp_path: Path) -> None:
    done = qwen_eval(
        "run", "--tasks", "mmlu,gsm8k", "--model", "mock:oracle", "--out", tmp_path / "run",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("SAMPLE") >= 4, "a notice before, a mark and a footnote after"
    rows = json.loads(done.stdout.splitlines()[-1])["tasks"]
    assert {row["data"] for row in rows.values()} == {"sample"}
    assert rows["mmlu@strict"]["overall"]["n"] == 171
    assert rows["gsm8k@strict"]["overall"]["n"] == 30
    assert read_info(tmp_path / "run").tasks["mmlu@strict"].data_kind == "sample"


@pytest.mark.parametrize(
    ("limit", "asked"),
    [("5", (5, 5)), ("mmlu=5,gsm8k@lm-eval=3", (5, 3)), ("mmlu=5", (5, 30)), ("4,mmlu=5", (5, 4))],
)
def test_a_limit_holds_for_all_tasks_or_for_those_named(
    limit: str, asked: tuple[int, int], tmp_path: Path
) -> None:
    done = qwen_eval(
        "run", "--tasks", "mmlu,gsm8k@lm-eval", "--model", "mock:oracle", "--limit", limit, "--out",
        tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tasks = read_info(tmp_path / "run").tasks
    assert (tasks["mmlu@strict"].selected, tasks["gsm8k@lm-eval"].selected) == asked
    assert len(read_samples(tmp_path / "run")) == sum(asked)


def test_the_table_names_everything_that_weakens_a_score(mirror: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "I would rather not say."}\n')
    done = qwen_eval(
        "run", "--tasks", "gsm8k", "--model", f"mock:{script}", "--data", mirror, "--limit", "20",
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = next(line for line in done.stdout.splitlines() if line.startswith("gsm8k@strict "))
    assert row.split() == ["gsm8k@strict", "20", "invalid", "20", "0", "0", "0", "mirror"]
    assert "gsm8k@strict is invalid: no_answer 100% > 20%" in done.stdout
    assert "20 of 1319 samples" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if "run directory" not in line)


def test_the_same_command_resumes_to_the_same_result(mirror: Path, tmp_path: Path) -> None:
    command = ["run", "--tasks", "mmlu", "--model", "mock:random", "--data", mirror]
    command += ["--limit", "300", "--out"]
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    for out in (whole, torn):
        assert qwen_eval(*command, out).returncode == 0
    lines = (torn / "samples.jsonl").read_text().splitlines(keepends=True)
    (torn / "samples.jsonl").write_text("".join(lines[:100]) + lines[100][:50])
    (torn / "DONE").unlink()
    (torn / "metrics.json").unlink()
    done = qwen_eval(*command, torn)
    assert done.returncode == 0
    assert "100 samples kept" in done.stderr
    assert read_samples(torn) == read_samples(whole)
    assert read_metrics(torn) == read_metrics(whole)
    assert (torn / "DONE").exists()
    assert len(read_info(torn).invocations) == 2


def test_a_run_without_a_folder_finds_its_own_again(mirror: Path, tmp_path: Path) -> None:
    command = ["run", "--tasks", "mmlu", "--model", "mock:random", "--data", mirror, "--limit", "9"]
    first = qwen_eval(*command, cwd=tmp_path)
    again = qwen_eval(*command, cwd=tmp_path)
    other = qwen_eval(*command, "--seed", "1", cwd=tmp_path)
    folders = [re.findall(r"runs/\S+", done.stdout)[0] for done in (first, again, other)]
    assert folders[0] == folders[1] != folders[2]
    assert "9 samples kept" in again.stderr


def test_context_switches_are_part_of_what_a_run_is(tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "model")
    command = ["run", "--tasks", "mmlu", "--limit", "1", "--model", model, "--out"]
    switched = [*command, tmp_path / "switched", "--window-sizes", "16,full"]
    assert qwen_eval(*switched, "--yarn", "2").returncode == 0
    info = read_info(tmp_path / "switched")
    assert (info.settings["window_sizes"], info.settings["yarn"]) == ("16,full", 2.0)
    assert (info.model["detail"]["windows"], info.model["max_length"]) == ([16, None], 512)
    assert info.settings["windows"] == [16, None]
    assert "settings.yarn is 2.0 there, None here" in refused(qwen_eval(*switched))
    # The windows of a schedule are there in figures, so that another schedule is another run.
    written = json.loads((tmp_path / "switched" / "run.json").read_text(encoding="utf-8"))
    written["settings"]["windows"] = [8, None]
    (tmp_path / "switched" / "run.json").write_text(json.dumps(written), encoding="utf-8")
    assert "settings.windows is [8, None] there" in refused(qwen_eval(*switched, "--yarn", "2"))
    # A run without them has the settings, and so the folder, that it had before there were any.
    assert qwen_eval(*command, tmp_path / "plain").returncode == 0
    settings = read_info(tmp_path / "plain").settings
    nothing = dict.fromkeys(("max_length", "ntk", "logn", "window"))
    assert settings == {"seed": 0, "batch_invariant": True} | nothing


def test_the_plan_asks_no_model(mirror: Path) -> None:
    done = qwen_eval(
        "run", "--tasks", "mmlu", "--model", "nowhere", "--data", mirror, "--plan", "--json"
    )
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout.splitlines()[-1])["plan"][0]
    assert (plan["samples"], plan["shared_prefixes"]) == (14042, 57)
    assert 0 < plan["detectable_difference"] < 0.01


def test_samples_hold_all_that_a_scorer_needs(mirror: Path, tmp_path: Path) -> None:
    qwen_eval(
        "run", "--tasks", "gsm8k", "--model", "mock:oracle", "--data", mirror, "--limit", "5",
        "--out", tmp_path,
    )  # fmt: skip
    prefixes = json.loads((tmp_path / "prompts.json").read_text())
    for record in read_samples(tmp_path):
        assert prefixes[record.prefix].startswith("Q: There are 15 trees")
        assert record.text.startswith("Q: ")
        assert record.responses[0]["text"].startswith("The answer is")
        assert (record.status, record.values) == ("scored", {"accuracy": 1.0})


def test_rescore_reads_stored_replies_with_every_scorer(mirror: Path, tmp_path: Path) -> None:
    script, out = tmp_path / "script.jsonl", tmp_path / "run"
    # Right for nobody but readable by some: the last digit is lost by one, commas by another.
    script.write_text('{"text": "The answer is 1,018"}\n')
    qwen_eval(
        "run", "--tasks", "gsm8k", "--model", f"mock:{script}", "--data", mirror, "--limit", "8",
        "--out", out,
    )  # fmt: skip
    before = (out / "samples.jsonl").read_bytes()
    done = qwen_eval("rescore", out, "--data", mirror, "--json")
    assert done.returncode == 0, done.stderr
    scorers = json.loads(done.stdout.splitlines()[-1])["tasks"]["gsm8k@strict"]["scorers"]
    assert set(scorers) == {
        "number", "qwen_last_digits", "lm_eval_strict_match", "lm_eval_flexible_extract",
    }  # fmt: skip
    assert scorers["number"]["no_answer"] == 0
    assert scorers["qwen_last_digits"]["no_answer"] == 8, "018 is no Python integer"
    assert (out / "samples.jsonl").read_bytes() == before


@pytest.mark.parametrize("command", ["tasks", "models"])
def test_listings(command: str) -> None:
    done = qwen_eval(command)
    assert done.returncode == 0
    assert "mmlu" in done.stdout if command == "tasks" else "Q4_1" in done.stdout


def test_data_check_names_every_source(mirror: Path) -> None:
    done = qwen_eval("data", "check", "--data", mirror)
    assert "mmlu: 14042 rows" in done.stdout
    assert "gsm8k: 1319 rows" in done.stdout
    assert "humaneval: 164 rows" in done.stdout
    assert "SAMPLE" in qwen_eval("data", "check").stdout
