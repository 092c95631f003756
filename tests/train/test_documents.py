"""What files hold becomes text, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.train.documents import Format, identity, read_raw


def lines(path: Path, *rows: object) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    data = text.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_rows_of_text(tmp_path: Path, name: str) -> None:
    path = lines(tmp_path / name, {"text": "one", "lang": "en"}, {"text": "二"})
    found = list(read_raw(path, "x/a", "text"))
    assert [(r.origin, r.content, r.lang) for r in found] == [
        ("x/a#1", "one", "en"),
        ("x/a#2", "二", ""),
    ]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"instruction": "Add.", "input": "1 2", "output": "3"}, "Add.\n1 2\n\n3"),
        ({"instruction": "Hi", "input": "", "output": "Hello"}, "Hi\n\nHello"),
        (
            {"instruction": "Who?", "context": "Bob ran.", "response": "Bob"},
            "Who?\nBob ran.\n\nBob",
        ),
        ({"prompt": "Hi", "response": "Hello"}, "Hi\n\nHello"),
        ({"messages": [{"role": "user", "content": "a"}, {"content": "b"}]}, "a\n\nb"),
    ],
)
def test_an_instruction_is_one_text(tmp_path: Path, row: dict[str, object], text: str) -> None:
    (found,) = read_raw(lines(tmp_path / "a.jsonl", row), "a", "instruction")
    assert found.content == text


@pytest.mark.parametrize(
    ("row", "format", "said"),
    [
        ({"body": "x"}, "text", "row 1: text is missing"),
        ({"text": 3}, "text", "row 1: text is missing"),
        ({"text": "x"}, "html", "row 1: html is missing"),
        ({"text": "x"}, "instruction", "row 1: an instruction needs"),
        ({"messages": "x"}, "instruction", "row 1: messages"),
    ],
)
def test_a_row_without_its_text_is_named(
    tmp_path: Path, row: dict[str, object], format: Format, said: str
) -> None:
    path = lines(tmp_path / "a.jsonl", row)
    with pytest.raises(UserError, match=said):
        list(read_raw(path, "a", format))


def test_a_corrupt_file_is_named(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl.gz", *({"text": f"line {i}" * 9} for i in range(500)))
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"a\.jsonl\.gz, line \d+: .*mend or replace"):
        list(read_raw(path, "a", "text"))


def test_files_are_kept_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe")
    (tmp_path / "a.html").write_bytes(b"<p>")
    (text,) = read_raw(tmp_path / "a.txt", "a.txt", "text")
    (page,) = read_raw(tmp_path / "a.html", "a.html", "html")
    assert (text.content, text.is_html) == (b"\xff\xfe", False)
    assert (page.content, page.is_html) == (b"<p>", True)


def test_an_unknown_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"use \.jsonl"):
        list(read_raw(tmp_path / "a.pdf", "a", "text"))


def test_an_id_says_where_a_text_stood() -> None:
    assert identity("a#1") == identity("a#1") != identity("a#2")
    assert len(identity("a#1")) == 16
