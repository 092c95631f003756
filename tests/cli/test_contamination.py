"""`qwen-eval data contamination`: planted and known copies are found, and a run's score without
them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.cli.contamination import wordings
from qwen_eval.cli.setup import load_tasks
from qwen_eval.datasets import open_data
from qwen_eval.fileio import read_jsonl
from qwen_eval.stats import wilson_interval
from qwen_eval.taskspec import find_task
from tests.cli.command import qwen_eval, refused

ROWS = 30
COPIED = (3, 7, 19)  # planted whole
PLANTED = "The stray row {n} has {n} lamps and {n} doors, then how many of both has it in all?"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that are loaded here have the rows that come with the project."""
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def question(n: int) -> str:
    return PLANTED.format(n=1000 + n) if n else "How many?"  # the first one is too short


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mirror of GSM8K with rows of our own, a corpus that has three of them, and a run that is
    right on just those."""
    folder: Path = tmp_path_factory.mktemp("contamination")
    (folder / "data" / "gsm8k").mkdir(parents=True)
    rows = [{"question": question(n), "answer": f"It is {n}.\n#### {n}"} for n in range(ROWS)]
    with gzip.open(folder / "data" / "gsm8k" / "test.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    texts = [
        "nothing of note",
        *(f"Someone asked: {question(n).upper()} Nobody knew." for n in COPIED),
    ]
    half = question(11).partition(", then")[0]
    (folder / "corpus").mkdir()
    with gzip.open(folder / "corpus" / "web.jsonl.gz", "wt") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "corpus" / "notes.txt").write_text(f"first line\n{half}, then how\nmany more\n")
    script = [{"contains": question(n), "text": f"The answer is {n}."} for n in COPIED]
    script.append({"contains": "", "text": "The answer is 999999."})
    (folder / "script.jsonl").write_text("".join(json.dumps(rule) + "\n" for rule in script))
    words = ("run", "--tasks", "gsm8k", "--model", "mock:script.jsonl", "--data", "data")
    done = qwen_eval(*words, "--out", "run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


def measured(home: Path, *words: object) -> dict[str, Any]:
    done = qwen_eval(
        *("data", "contamination", "--corpus", "corpus", "--tasks", "gsm8k", "--data", "data"),
        *("--json", *words),
        cwd=home,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_what_was_planted_is_found_with_its_place(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "items.jsonl"
    found = measured(home, "--out", out)
    task = found["tasks"]["gsm8k@strict"]
    share = task["question"]
    assert (share["items"], share["short"], share["hit"], share["over"]) == (30, 1, 4, 3)
    interval = (share["estimate"]["low"], share["estimate"]["high"])
    assert interval == pytest.approx(wilson_interval(3, 29))
    assert task["verdicts"] == {"clean": 25, "partly": 1, "contaminated": 3, "too short": 1}
    assert (found["corpus"]["texts"], found["n"], found["threshold"]) == (5, 13, 0.7)
    items = list(read_jsonl(out))
    samples = open_data(find_task("gsm8k")[0], home / "data").samples()
    assert [item["id"] for item in items] == [sample.id for sample in samples]
    for n, item in enumerate(items):
        place = f"corpus/web.jsonl.gz, row {2 + COPIED.index(n)}" if n in COPIED else ""
        if n == 11:
            assert item["verdict"] == "partly"
            place = "corpus/notes.txt, line 1"
        assert item["where"] == place
        assert (item["question"] == 1.0) == (n in COPIED)


def test_a_smaller_n_sees_shorter_questions(home: Path) -> None:
    assert measured(home, "--n", 2)["tasks"]["gsm8k@strict"]["question"]["short"] == 0


def test_a_score_is_shown_with_and_without(home: Path) -> None:
    scores = measured(home, "--run", "run")["scores"]["gsm8k@strict"]
    values = {name: part and (part["n"], part["estimate"]) for name, part in scores.items()}
    assert values == {
        "all": (30, pytest.approx(0.1)),
        "clean": (25, 0.0),
        "partly": (1, 0.0),
        "contaminated": (3, 1.0),
        "too short": (1, 0.0),
        "without contaminated": (27, 0.0),
    }
    assert scores["clean"]["high"] == pytest.approx(wilson_interval(0, 25)[1])


def test_the_table_says_what_the_numbers_are(home: Path) -> None:
    words = ("data", "contamination", "--corpus", "corpus", "--tasks", "gsm8k", "--run", "run")
    done = qwen_eval(*words, "--data", "data", cwd=home)
    assert done.returncode == 0, done.stderr
    said = done.stdout
    assert "corpus: 2 files, 5 texts" in said
    assert "PaLM (arXiv 2204.02311)" in said
    assert "questions of fewer than 13 words: 1. Nothing is known of them" in said
    assert "without contaminated" in said
    assert "no proof" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--corpus", "gone"), "--corpus gone: no such file or folder"),
        (("--corpus", "run"), ""),
        (("--tasks", "gsm9k"), "--tasks gsm9k: no task or suite"),
        (("--n", "0"), "--n"),
        (("--out", "gone/a.jsonl"), "--out gone/a.jsonl: name a file in a folder that is there"),
        (("--run", "corpus"), "run.json: missing; is corpus a run directory?"),
        (("--run", "run", "--tasks", "tiny_cloze_en"), "tiny_cloze_en was not asked there"),
        (("--run", "run", "--data", "other"), "gsm8k was run on other rows than"),
    ],
)
def test_mistakes_are_named_before_the_corpus_is_read(
    home: Path, words: tuple[str, ...], reason: str
) -> None:
    (home / "other" / "gsm8k").mkdir(parents=True, exist_ok=True)
    row = {"question": question(1), "answer": "#### 1"}
    with gzip.open(home / "other" / "gsm8k" / "test.jsonl.gz", "wt") as file:
        file.write(json.dumps(row) + "\n")
    given = {"--corpus": "corpus", "--tasks": "gsm8k", "--data": "data"}
    given |= dict(zip(words[::2], words[1::2], strict=True))
    if given["--corpus"] == "run":
        given["--corpus"] = str(home / "empty.jsonl")
        (home / "empty.jsonl").write_text('{"n": 1}\n')
        reason = "there is no text in it; leave it out"
    flat = [word for pair in given.items() for word in pair]
    assert reason in refused(qwen_eval("data", "contamination", *flat, cwd=home))


def test_a_dump_of_the_file_is_found_as_well_as_the_question_as_it_is_asked() -> None:
    (task,) = load_tasks("mmlu", None, None)
    item = task.items[0]
    row = item.sample.row
    asked, stored = wordings(task, item)
    lines = [f"{letter}. {choice}" for letter, choice in zip("ABCD", row["choices"], strict=True)]
    assert asked == ("\n".join([row["question"].strip(), *lines]), "ABCD"[row["answer"]])
    assert stored[0].split("\n")[-4:] == row["choices"]
    assert row["subject"] in stored[0] + stored[1]


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("gsm8k", "answer"),
        ("humaneval", "canonical_solution"),
    ],
)
def test_the_answer_is_the_worked_solution(name: str, answer: str) -> None:
    (task,) = load_tasks(name, None, None)
    asked, *_ = wordings(task, task.items[0])
    row = task.items[0].sample.row
    assert asked == (row["prompt" if name == "humaneval" else "question"], row[answer])


def test_the_answer_to_a_choice_is_the_right_option() -> None:
    (task,) = load_tasks("tiny_cloze_en", None, None)
    row = task.items[0].sample.row
    asked, *_ = wordings(task, task.items[0])
    assert asked == (row["text"], row["choices"][row["answer"]].strip())


def test_preferences_made_of_test_questions_are_found(mirror: Path, tmp_path: Path) -> None:
    """gsm8k_solutions was made of GSM8K's test questions (the mirror's note 4): which, equality of
    texts says."""
    corpus = mirror / "prefs" / "gsm8k_solutions.jsonl.gz"
    out = tmp_path / "items.jsonl"
    words = ("--corpus", corpus, "--tasks", "gsm8k", "--data", mirror, "--out", out)
    done = qwen_eval("data", "contamination", *words)
    assert done.returncode == 0, done.stderr
    prompts = "\n".join(row["prompt"] for row in read_jsonl(corpus))
    rows = list(read_jsonl(mirror / "gsm8k" / "test.jsonl.gz"))
    whole = {n for n, row in enumerate(rows) if row["question"].strip() in prompts}
    items = list(read_jsonl(out))
    assert {n for n, item in enumerate(items) if item["question"] == 1.0} == whole
    assert len(whole) > 700
    partly = [item for n, item in enumerate(items) if n not in whole and item["verdict"] != "clean"]
    assert len(partly) < 5


@pytest.mark.slow
def test_old_novels_have_none(mirror: Path) -> None:
    words = ("--corpus", mirror / "pretrain" / "en_novels.jsonl.gz", "--tasks", "gsm8k")
    done = qwen_eval("data", "contamination", *words, "--data", mirror, "--json")
    assert done.returncode == 0, done.stderr
    task = json.loads(done.stdout)["tasks"]["gsm8k@strict"]
    assert task["verdicts"]["clean"] == task["question"]["items"] - task["verdicts"]["too short"]
