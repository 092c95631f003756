"""`train comparisons` from prompts to pairs, stopped in the middle, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.fileio import read_jsonl
from qwen_eval.model.weights import load_model
from qwen_eval.train.scalar_model import save_scalar_model, scalar_model
from tests.cli.command import PROGRAM, environment, qwen_eval, refused
from tests.model.toy_folder import toy_checkpoint

QUESTIONS = (
    "Write a short poem about the sea.",
    "Explain gravity to a child.",
    "把“谢谢”翻译成英文。",
    "Give me five ideas for a birthday party.",
)
# The judge's prompt holds the answer, which says what it is worth.
JUDGE = [
    {"contains": "fine answer", "text": "Score: 9\nGood."},
    {"contains": "poor answer", "text": "Score: 2"},
    {"contains": "odd answer", "text": "I cannot say."},
]
TAGGER = [
    {"contains": "poem", "text": '["Poetry", "sea", "brevity"]'},
    {"contains": "gravity", "text": '[{"tag": "Physics"}, {"tag": "explanation"}]'},
    {"contains": "翻译", "text": "no list"},
    {"text": '["poetry"]'},
]


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


@pytest.fixture
def command(tmp_path: Path) -> list[object]:
    """Of three scripted models by one sampler, into tmp_path / "out"."""
    prompts = lines(tmp_path / "prompts.jsonl", [{"prompt": text} for text in QUESTIONS])
    models = []
    for kind in ("fine", "poor", "odd"):
        path = lines(tmp_path / f"{kind}.jsonl", [{"text": f"a {kind} answer"}])
        models.append(f"mock:{path}")
    return [
        *("train", "comparisons", "--prompts", prompts, "--out", tmp_path / "out"),
        *("--models", ",".join(models), "--temperatures", "0.7"),
    ]


def test_prompts_become_pairs(command: list[object], tmp_path: Path) -> None:
    judge = lines(tmp_path / "judge.jsonl", JUDGE)
    tagger = lines(tmp_path / "tagger.jsonl", TAGGER)
    words = [*command, "--judge", f"mock:{judge}", "--tagger", f"mock:{tagger}"]
    done = qwen_eval(*words, "--count", 2, "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["prompts"] == {"read": 4, "chosen": 2}
    assert summary["tags"]["poetry"] == {"before": 2, "after": 1}
    assert summary["tags"]["physics"] == {"before": 1, "after": 1}
    assert summary["left out"]["prompts without a tag"] == 1
    assert summary["left out"]["answers without a score"] == 2
    out = tmp_path / "out"
    rows = list(read_jsonl(out / "comparisons.jsonl"))
    assert len(rows) == summary["pairs"] == 2
    assert {row["messages"][-1]["content"] for row in rows} == set(QUESTIONS[:2])
    for row in rows:
        assert (row["chosen"], row["rejected"]) == ("a fine answer", "a poor answer")
        assert row["margin"] == 7
        assert [source.rpartition("/")[2] for source in row["sources"]] == [
            "fine.jsonl@0.7",
            "poor.jsonl@0.7",
        ]
    assert rows[0]["tags"] == ["brevity", "poetry", "sea"]

    # Nobody is asked twice, and more prompts ask only for what is new.
    before = (out / "replies.jsonl").read_text()
    bytes_before = (out / "comparisons.jsonl").read_bytes()
    assert qwen_eval(*words, "--count", 2).returncode == 0
    assert (out / "replies.jsonl").read_text() == before
    assert (out / "comparisons.jsonl").read_bytes() == bytes_before
    assert qwen_eval(*words, "--count", 3).returncode == 0
    added = (out / "replies.jsonl").read_text().removeprefix(before).splitlines()
    assert len(added) == 6  # three answers and their scores


def test_people_score(command: list[object], tmp_path: Path) -> None:
    done = qwen_eval(*command)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    answers = list(read_jsonl(out / "answers.jsonl"))
    assert len(answers) == 12
    assert not (out / "comparisons.jsonl").exists()
    for row in answers:
        row["score"] = len(row["answer"])  # "a fine answer" and "a poor answer" are as long
    scores = lines(tmp_path / "scores.jsonl", answers)
    done = qwen_eval(*command, "--scores", scores)
    assert done.returncode == 0, done.stderr
    assert "pairs that are ties: 4" in done.stdout
    rows = list(read_jsonl(out / "comparisons.jsonl"))
    assert len(rows) == 8
    assert all(row["rejected"] == "a odd answer" and row["margin"] == 1 for row in rows)


def test_a_reward_model_scores(command: list[object], tmp_path: Path) -> None:
    folder = toy_checkpoint(tmp_path / "reward")
    save_scalar_model(scalar_model(load_model(folder), 3), folder)
    done = qwen_eval(*command, "--judge", folder, "--pairs", 1, "--count", 2)
    assert done.returncode == 0, done.stderr
    rows = list(read_jsonl(tmp_path / "out" / "comparisons.jsonl"))
    assert len(rows) == 2
    scores = {row["id"]: row["score"] for row in read_jsonl(tmp_path / "out" / "answers.jsonl")}
    assert len(set(scores.values())) == len(scores) == 6


@pytest.mark.slow
def test_a_killed_build_goes_on_and_ends_alike(command: list[object], tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "toy", max_length=1024, trained_length=1024)
    judge = lines(tmp_path / "judge.jsonl", [*JUDGE, {"text": "Score: 5"}])
    words = [str(word) for word in command]
    words[words.index("--models") + 1] += f",{model}"
    words += ["--judge", f"mock:{judge}", "--max-tokens", "400", "--batch", "1"]
    words += ["--out"]
    broken, whole = tmp_path / "broken", tmp_path / "whole"
    with subprocess.Popen(
        [*PROGRAM, *words, str(broken)], env=environment(), stderr=subprocess.DEVNULL
    ) as process:
        journal = broken / "replies.jsonl"
        # Three scripts answer at once; the toy's first answer shows that it is at work.
        while process.poll() is None and _lines(journal) < 13:
            time.sleep(0.02)
        process.kill()
    kept = _lines(journal)
    assert 13 <= kept < 32
    for out in (broken, whole):
        done = qwen_eval(*words, out)
        assert done.returncode == 0, done.stderr
    for name in ("answers.jsonl", "comparisons.jsonl", "summary.json"):
        assert (broken / name).read_bytes() == (whole / name).read_bytes()
    assert _lines(journal) == _lines(whole / "replies.jsonl") == 32


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"--models": "mock:random"}, "give at least 3"),
        ({"--models": "mock:random,mock:random"}, "twice"),
        ({"--temperatures": "warm"}, "--temperatures warm"),
        ({"--models": "a,b,c"}, "--model a"),
        ({"--prompts": "nowhere.jsonl"}, "nowhere.jsonl"),
        ({"--judge": "mock:random", "--scores": "x"}, "give one of them"),
        ({"--dtype": "float8"}, "--dtype float8"),
    ],
)
def test_mistakes_are_one_line(
    command: list[object], changes: dict[str, str], said: str, tmp_path: Path
) -> None:
    words = list(command)
    for flag, value in changes.items():
        if flag in words:
            words[words.index(flag) + 1] = value
        else:
            words += [flag, value]
    assert said in refused(qwen_eval(*words))


def test_scores_of_other_answers_are_refused(command: list[object], tmp_path: Path) -> None:
    scores = lines(tmp_path / "scores.jsonl", [{"id": "x", "score": 1}])
    assert "none of its ids" in refused(qwen_eval(*command, "--scores", scores))


def test_a_model_that_always_fails_ends_it(command: list[object], tmp_path: Path) -> None:
    judge = lines(tmp_path / "judge.jsonl", [{"error": "out of credit"}])
    done = qwen_eval(*command, "--judge", f"mock:{judge}")
    assert "out of credit" in refused(done, 4)
    assert _lines(tmp_path / "out" / "replies.jsonl") == 12
