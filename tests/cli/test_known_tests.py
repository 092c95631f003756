"""Which texts training data is held against: the tasks' questions, and no whole books."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from qwen_eval.cli import known_tests
from qwen_eval.taskspec import task_names
from qwen_eval.train.data.recipe import Decontaminate

BOOK = "it was a long and quiet year in which the old harbour master wrote nothing down at all. "


@pytest.mark.parametrize("there", [True, False])
def test_books_that_are_read_are_no_test_set(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    if there:
        (tmp_path / "longdoc").mkdir()
        for language in ("en", "zh"):
            with gzip.open(tmp_path / "longdoc" / f"{language}.jsonl.gz", "wt") as file:
                file.write(json.dumps({"text": BOOK * 9}) + "\n")
    known = known_tests.tests_of(Decontaminate(n=13), tmp_path)
    names = {name.removesuffix(" (sample)") for name in known.names}
    said = capsys.readouterr().err
    unknown = {line.partition(":")[0] for line in said.splitlines() if "NOTHING" in line}
    assert set(task_names()) - names - unknown == {"longppl_en", "longppl_zh"}
    assert "ifeval: NOTHING of its test set is known (--tasks ifeval: no data" in said
    assert known.found_in(BOOK * 2) is None
    needle = "Ruvane Thessaly wrote her last quartet on the back of a railway timetable."
    question = "On the back of what did Ruvane Thessaly write her last quartet?"
    assert known.found_in(f"Once {needle} So it is told.") == "needle_en"
    assert known.found_in(f"Tell me: {question}") is None, "too short for 13 words"
    assert "gsm8k: only the project's SAMPLE is known" in said
    assert "needle" not in said
