"""Votes as files: read back whole, and inert in a spreadsheet."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl
from qwen_eval.human_eval_ui.analysis.votes import read_votes
from qwen_eval.human_eval_ui.findings.export import votes_table, write_votes
from tests.human_eval_ui.studies import styled

VOTES = styled(np.random.default_rng(1), 6, 2, {"sft": (0.4, 0.2, 0.4)})
VOTES[0] = replace(VOTES[0], item="=HYPERLINK(1)", annotator="-a", tags=("格式", "@x"), choice=-2)
VOTES[1] = replace(VOTES[1], item="'=1", category='a,"b"\nc')
VOTES[2] = replace(VOTES[2], item="\t+1", annotator="＝1")
VOTES[3] = replace(VOTES[3], item="half \ud800")


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("votes") / "inner"
    paths = write_votes(VOTES, folder)
    assert sorted(folder.iterdir()) == sorted(paths)
    return folder


def test_json_lines_are_the_votes_again(out: Path) -> None:
    assert read_votes(read_jsonl(out / "votes.jsonl")) == VOTES
    assert votes_table(VOTES)[0]["tags"] == ["格式", "@x"]
    json.dumps(votes_table(VOTES))


def test_no_cell_of_text_is_a_formula(out: Path) -> None:
    with (out / "votes.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(VOTES)
    numbers = {"choice", "seconds"}
    for row in rows:
        for key, cell in row.items():
            assert key in numbers or not cell.startswith(tuple("=+-@\t\r\n＝"))
    assert [row["item"] for row in rows[:3]] == ["'=HYPERLINK(1)", "''=1", "'\t+1"]
    assert rows[0]["choice"] == "-2"
    assert rows[0]["tags"] == "格式; @x"
    assert rows[1]["category"] == 'a,"b"\nc'


def test_parquet_is_the_same_table(out: Path) -> None:
    frame = pd.read_parquet(out / "votes.parquet")
    expected = votes_table(VOTES)
    assert list(frame.columns) == list(expected[0])
    for key in ("choice", "left", "seconds", "masked", "annotator"):
        assert frame[key].tolist() == [row[key] for row in expected]
    assert [*frame["tags"][0]] == ["格式", "@x"]


def test_no_votes_are_files_with_a_head(tmp_path: Path) -> None:
    write_votes([], tmp_path)
    assert (tmp_path / "votes.jsonl").read_text() == ""
    assert (tmp_path / "votes.csv").read_text().startswith("item,category,annotator")
    assert len(pd.read_parquet(tmp_path / "votes.parquet")) == 0


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--out"):
        write_votes(VOTES, tmp_path / "file" / "votes")
