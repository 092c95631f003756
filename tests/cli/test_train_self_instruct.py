"""`train self-instruct` from seeds to conversations that `train sft` reads."""

from __future__ import annotations

import csv
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.cli.setup import load_tasks
from qwen_eval.fileio import read_jsonl
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint

BAKER = "A baker makes 14 trays with 36 rolls each and sells 120 of them. How many stay?"
TREE = "What is the tallest kind of tree in the world?"
SCRIPT = [
    {
        "contains": "Observation: 384\nThought:",
        "text": " I know it.\nFinal Answer: 384 rolls stay.",
    },
    {
        "contains": "Examples of questions",
        "text": [
            f" {BAKER}\nThought: I work it out.\nAction: arithmetic\nAction Input: "
            '{"expression": "14 * 36 - 120"}',
            f" {TREE}\nThought: No tool knows that.\nFinal Answer: The redwood.",
            f" {TREE}\nThought: I guess.\nFinal Answer: The oak.",
            " Is it late?\nFinal Answer: No.",
        ],
    },
    {"text": " 现在几点了，请问？\nFinal Answer: 不知道。"},
]


def tool(name: str, *parameters: str) -> dict[str, Any]:
    return {
        "name_for_human": name,
        "name_for_model": name,
        "description_for_model": f"The tool {name}.",
        "parameters": [
            {"name": one, "description": "", "required": True, "schema": {"type": "string"}}
            for one in parameters
        ],
    }


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    script = tmp_path / "script.jsonl"
    script.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in SCRIPT))
    return [
        *("train", "self-instruct", "--model", f"mock:{script}", "--out", tmp_path / "out"),
        *("--asked", 40, "--rounds", 1),
    ]


def test_samples_are_written_judged_and_read_again(command: list[object], tmp_path: Path) -> None:
    done = qwen_eval(*command, "--json")
    assert done.returncode == 0, done.stderr
    assert "bfcl_tools: NOTHING of its test set is known" in done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    out = tmp_path / "out"
    rows = list(read_jsonl(out / "samples.jsonl"))
    assert summary["drafts"] == 40
    assert summary["kept"] == len(rows)
    assert {row["query"] for row in rows} <= {BAKER, TREE}
    assert TREE in {row["query"] for row in rows}
    assert sum(count for _, _, count in summary["dropped"]) == 40 - len(rows)
    assert (out / "page.html").read_text().count("The oak") >= 1
    for row in rows:
        turns = [(turn["role"], turn["content"]) for turn in row["messages"]]
        called = row["query"] == BAKER
        roles = ["assistant", "observation", "assistant"] if called else ["assistant"]
        assert [role for role, _ in turns] == ["system", "user", *roles]
        # What the assistant did not write itself ends where it takes up its own words.
        assert "".join(content for _, content in turns[2:]) == row["trace"]
        if called:
            assert turns[3][1] == " 384\nThought:"
            assert turns[2][1].endswith("\nObservation:")
    # What was written is a seed of the next build.
    more = [*command, "--seeds", out / "samples.jsonl", "--out", tmp_path / "next"]
    assert json.loads(qwen_eval(*more, "--json").stdout.splitlines()[-1])["seeds"] == 16 + len(rows)

    # A person finds the redwood wrong, and one that was dropped for its likeness right to stay.
    sheet = out / "review.csv"
    with sheet.open(newline="", encoding="utf-8") as file:
        marked = list(csv.DictReader(file))
    redwood = next(row for row in marked if row["decision"] == "kept" and "redwood" in row["text"])
    oak = next(row for row in marked if "oak" in row["text"])
    redwood["verdict"] = oak["verdict"] = "wrong"
    _write(sheet, marked)
    done = qwen_eval(*command)
    assert done.returncode == 0, done.stderr
    assert "likeness, dropped: 0 of 1 right" in done.stdout
    assert "all, kept: 0 of 1 right" in done.stdout
    answers = [row["trace"].rpartition(": ")[2] for row in read_jsonl(out / "samples.jsonl")]
    assert "The oak." in answers
    assert "The redwood." not in answers
    with sheet.open(newline="", encoding="utf-8") as file:
        assert sum(row["verdict"] == "wrong" for row in csv.DictReader(file)) == 2

    oak["verdict"] = "perhaps"
    _write(sheet, marked)
    assert "verdict 'perhaps'" in refused(qwen_eval(*command))


def _write(sheet: Path, rows: list[dict[str, str]]) -> None:
    with sheet.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)


def test_a_sample_is_asked_as_the_harness_asks(command: list[object], tmp_path: Path) -> None:
    """The prompt of a row of react_tools, with that row's tools and question put in."""
    from qwen_eval.cli.train_self_instruct import _renderer
    from qwen_eval.train.self_instruct.samples import Sample

    item = load_tasks("react_tools", None, "1")[0].items[0]
    row = item.sample.row
    sample = Sample(row["query"], tuple(row["tools"]), (), "x", "y")
    asked = [(turn.role, turn.content) for turn in item.prompt.messages]
    assert asked == _renderer()(sample)


def test_test_questions_are_no_seeds(command: list[object], tmp_path: Path) -> None:
    row = load_tasks("react_tools", None, "1")[0].items[0].sample.row
    seeds = tmp_path / "seeds.jsonl"
    trace = "Thought: x\nFinal Answer: y"
    rows = [{"query": row["query"], "tools": [tool("a", "b")], "trace": trace}]
    seeds.write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = qwen_eval(*command, "--seeds", seeds)
    assert done.returncode == 0, done.stderr
    assert "seeds: 1 left out, too near to a test set" in done.stderr


@pytest.mark.slow
def test_a_killed_build_goes_on_and_ends_alike(tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "toy", max_length=8192, trained_length=8192)
    words = ["train", "self-instruct", "--model", str(model), "--asked", "6", "--rounds", "2"]
    words += ["--max-tokens", "64", "--dtype", "float32", "--batch", "1", "--shots", "1", "--out"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with subprocess.Popen(
        [*PROGRAM, *words, str(broken)], env=environment(), stderr=subprocess.DEVNULL
    ) as process:
        journal = broken / "replies.jsonl"
        while process.poll() is None and not (journal.exists() and journal.stat().st_size):
            time.sleep(0.02)
        process.kill()
    assert not (broken / "summary.json").exists()
    for out in (broken, whole):
        done = qwen_eval(*words, out)
        assert done.returncode == 0, done.stderr
    for name in ("samples.jsonl", "dropped.jsonl", "summary.json", "review.csv", "page.html"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert journal.read_bytes().count(b"\n") == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--model", "nothing"], "--model nothing"),
        (["--seeds", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "nowhere"], "--data nowhere"),
    ],
)
def test_mistakes_are_one_line(command: list[object], changes: list[str], said: str) -> None:
    words = list(command)
    if changes[0] in words:
        words[words.index(changes[0]) + 1] = changes[1]
    else:
        words += changes
    assert said in refused(qwen_eval(*words))
