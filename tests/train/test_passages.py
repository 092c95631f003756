"""Every text of a corpus with its place; nothing is lost between two blocks of lines."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.ngrams import ngrams, words
from qwen_eval.train.data import passages as module
from qwen_eval.train.data.passages import corpus_files, passages
from tests.train.corpora import english


def test_a_row_is_its_text_or_all_its_strings(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [
        {"text": "one", "note": "no"},
        {"q": "a", "n": 3, "options": ["b", {"c": "d"}]},
        {"n": 1},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read: list[int] = []
    assert list(passages(path, 12, read.append)) == [
        (f"{path}, row 1", "one"),
        (f"{path}, row 2", "a\nb\nd"),
    ]
    assert sum(read) == path.stat().st_size


def test_blocks_of_lines_overlap_by_so_many_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(0)
    lines = [english(rng, rng.randrange(9)) for _ in range(200)]
    path = tmp_path / "a.txt"
    path.write_text("\n".join(lines), encoding="utf-8")
    whole = set(ngrams(words("\n".join(lines)), 13).tolist())
    monkeypatch.setattr(module, "BLOCK_BYTES", 300)
    found = list(passages(path, 12))
    assert len(found) > 10
    assert {gram for _, text in found for gram in ngrams(words(text), 13).tolist()} == whole
    for where, text in found:
        at = int(where.removeprefix(f"{path}, line ")) - 1
        assert text.splitlines()[0] == lines[at]


def test_a_folder_of_train_data_is_what_was_packed(tmp_path: Path) -> None:
    for stage in ("1-read", "2-exact", "4-filter", "6-instructions"):
        for part in ("kept", "dropped"):
            (tmp_path / stage / part).mkdir(parents=True)
            (tmp_path / stage / part / "0.jsonl").write_text("{}\n")
    assert len(corpus_files([tmp_path], "--corpus")) == 8, "a folder like any other"
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed" / "manifest.json").write_text("{}")
    found = [str(path.relative_to(tmp_path)) for path in corpus_files([tmp_path], "--corpus")]
    assert found == ["4-filter/kept/0.jsonl", "6-instructions/kept/0.jsonl"]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.jsonl", b'{"n": 1}\n', "there is no text in it"),
        ("a.txt", b" \n\n", "there is no text in it"),
        ("a.txt", b"", "there is no text in it"),
        ("a.txt", b"good\n\xff\xfe\n", "in the lines from 1 on: not UTF-8"),
        ("a.jsonl", b"{", "line 1: not JSON"),
    ],
)
def test_a_file_without_text_is_named(
    tmp_path: Path, name: str, content: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        list(passages(tmp_path / name, 12))
    assert str(tmp_path / name) in str(caught.value)
