"""What is on disk survives a kill, and what is broken is named."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.fileio import (
    Journal,
    canonical_json,
    file_hash,
    open_watched,
    read_jsonl,
    text_hash,
    write_atomic,
)

RECORDS = [{"i": i, "text": "zwei\n" * i + "🦀\ud800"} for i in range(5)]


def test_every_cut_of_a_journal_keeps_all_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    journal = Journal(path)
    for record in RECORDS:
        journal.append(record)
    journal.close()
    whole = path.read_bytes()
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n")
        assert list(read_jsonl(path, torn_end=True)) == RECORDS[:kept]
        resumed = Journal(path)
        resumed.append({"new": 1})
        resumed.close()
        assert list(read_jsonl(path)) == [*RECORDS[:kept], {"new": 1}]


def test_an_appended_line_is_readable_before_the_journal_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append({"a": 1})
    assert list(read_jsonl(tmp_path / "j.jsonl")) == [{"a": 1}]
    journal.close()
    journal.close()


def test_a_torn_line_longer_than_the_search_block_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"a": 1}\n' + b"x" * 200_000)
    Journal(path).close()
    assert path.read_bytes() == b'{"a": 1}\n'


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._file.fileno())
    with pytest.raises(UserError, match=r"No space left.*finished samples are kept"):
        journal.append({"a": 1})
    os.close(full)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"a": 1}\n{"a": \n{"a": 3}\n', "line 2: not JSON"),
        (b'{"a": 1}\n[1]\n', "line 2: expected a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "line 2: not JSON"),
        (b'\n\n{"a"}\n', "line 3: not JSON"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, content: bytes, named: str) -> None:
    plain, packed = tmp_path / "d.jsonl", tmp_path / "d.jsonl.gz"
    plain.write_bytes(content)
    packed.write_bytes(gzip.compress(content))
    for path in (plain, packed):
        with pytest.raises(UserError) as error:
            list(read_jsonl(path))
        assert str(path) in str(error.value)
        assert named in str(error.value)


def test_a_truncated_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl.gz"
    packed = gzip.compress(b"".join(json.dumps({"i": i}).encode() + b"\n" for i in range(5000)))
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UserError, match=r"d\.jsonl\.gz, line \d+"):
        list(read_jsonl(path))
    path.write_bytes(b"not gzip at all")
    with pytest.raises(UserError, match=r"d\.jsonl\.gz, line 1"):
        list(read_jsonl(path))


def test_an_atomic_write_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    write_atomic(path, "old")

    def broken(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(UserError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict) -> None:
    backwards = dict(reversed(value.items()))
    assert canonical_json(value) == canonical_json(backwards)
    assert json.loads(canonical_json(value)) == value
    assert text_hash(canonical_json(value)) == text_hash(canonical_json(backwards))


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": float("nan")})


def test_a_damaged_gzip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl.gz"
    packed = bytearray(gzip.compress(json.dumps({"text": "some words " * 50}).encode()))
    packed[20:40] = b"\xff" * 20
    path.write_bytes(packed)
    with pytest.raises(UserError, match=r"d\.jsonl\.gz, line 1"):
        list(read_jsonl(path))


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_value_that_only_python_reads_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"a": 1}\n{"a": ' + value + "}\n")
    with pytest.raises(UserError, match="line 2: not JSON"):
        list(read_jsonl(path))


@pytest.mark.parametrize("name", ["w.jsonl", "w.jsonl.gz"])
def test_who_watches_is_told_of_every_byte_once(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    lines = "".join(
        json.dumps({"text": text_hash(str(i), 64)}) + "\n" for i in range(3000)
    ).encode()
    path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
    size, told = path.stat().st_size, list[int]()
    seen = [sum(told) for _ in read_jsonl(path, watch=told.append)]
    assert 0 < seen[0] < size / 2 < seen[-1] <= size
    assert sum(told) == size
    with open_watched(path, told.append) as file:
        assert file.read() == path.read_bytes()
    assert sum(told) == 2 * size
    assert file_hash(path, told.append) == file_hash(path)
    assert sum(told) == 3 * size


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no.jsonl", tmp_path / "no.jsonl.gz"):
        with pytest.raises(UserError, match="cannot be read"):
            list(read_jsonl(path))
    with pytest.raises(UserError, match="cannot write"):
        Journal(tmp_path)
