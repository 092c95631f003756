"""The table, the page, the sheets and what a filled sheet says."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.stats import wilson_interval
from qwen_eval.train.data.review import COLUMNS, judge, write_sheets
from qwen_eval.train.data.stage import Folder, Sorter
from qwen_eval.train.data.summary import summarise, table, write_page
from qwen_eval.train.documents import Document

HOSTILE = "<script>alert(1)</script> & \u202egnihton"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = Folder(tmp_path / "3-fuzzy")
    folder.open("key")
    with Sorter(folder, "unit") as sorter:
        for i in range(30):
            sorter.keep(Document(f"{i:016x}", f"kept text {i}", "web", "en", {"origin": f"a#{i}"}))
        for i in range(30, 42):
            text = HOSTILE if i == 30 else f"=dropped {i}"
            one = Document(f"{i:016x}", text, "web", "en", {"origin": f"a#{i}"})
            sorter.drop(one, "fuzzy", "nearly the same text", f"of {i - 30:016x}")
        one = Document("f" * 16, "short", "books", "en", {"origin": "b"})
        sorter.drop(one, "rules", "words < 3")
    folder.finish()
    return tmp_path


def sheet(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def fill(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)


def test_the_table_counts_every_reason(out: Path) -> None:
    lines = table(summarise(out)).splitlines()
    assert lines[1].split() == ["3-fuzzy", "30", "350", "13", "30.2%"]
    assert lines[2].split() == ["fuzzy:", "nearly", "the", "same", "text", "12"]
    assert lines[3].split() == ["rules:", "words", "<", "3", "1"]


def test_the_page_shows_samples_and_runs_nothing(out: Path) -> None:
    for seed in range(20):  # some seed draws the hostile one
        write_page(out / "page.html", summarise(out), seed=seed)
        page = (out / "page.html").read_text()
        assert "<script" not in page
        assert page.count("<pre>") == 4
        assert "of 0000000000" in page
        if "alert(1)" in page:
            break
    else:
        pytest.fail("never drawn")
    assert "&lt;script&gt;" in page


def test_sheets_are_a_fixed_draw_of_both_decisions(out: Path) -> None:
    paths = write_sheets(out / "review", [Folder(out / "3-fuzzy")], 8, 1)
    assert [path.name for path in paths] == ["3-fuzzy-fuzzy.csv", "3-fuzzy-rules.csv"]
    rows = sheet(paths[0])
    assert [row["decision"] for row in rows].count("dropped") == 8
    assert [row["decision"] for row in rows].count("kept") == 8
    assert {row["verdict"] for row in rows} == {""}
    for row in rows:
        if row["decision"] == "dropped":
            assert row["like"] == f"kept text {int(row['id'], 16) - 30}"
        assert not row["text"].startswith("=")
    first = paths[0].read_bytes()
    write_sheets(out / "review", [Folder(out / "3-fuzzy")], 8, 1)
    assert paths[0].read_bytes() == first
    write_sheets(out / "review", [Folder(out / "3-fuzzy")], 8, 2)
    assert paths[0].read_bytes() != first
    assert len(sheet(paths[1])) == 9  # the one that was dropped, and eight that were not


def test_a_filled_sheet_gives_precision_with_an_interval(out: Path) -> None:
    path = write_sheets(out / "review", [Folder(out / "3-fuzzy")], 10, 1)[0]
    rows = sheet(path)
    verdicts = iter(["right", "Right ", "right", "wrong", ""] * 2)
    for row in rows:
        if row["decision"] == "dropped":
            row["verdict"] = next(verdicts)
    fill(path, rows)
    dropped, kept = judge(path)
    assert (dropped.decision, dropped.right, dropped.judged, dropped.rows) == ("dropped", 6, 8, 10)
    low, high = wilson_interval(6, 8)
    assert dropped.line() == (
        f"fuzzy, dropped: 6 of 8 right, 75.0% [{100 * low:.1f}, {100 * high:.1f}], 2 not judged"
    )
    assert kept.line() == "fuzzy, kept: no judgement, 10 not judged"


def test_what_is_no_sheet_or_no_verdict_is_named(out: Path) -> None:
    path = write_sheets(out / "review", [Folder(out / "3-fuzzy")], 2, 1)[0]
    rows = sheet(path)
    rows[0]["verdict"] = "maybe"
    fill(path, rows)
    with pytest.raises(UserError, match="line 2: verdict 'maybe'; write right or wrong"):
        judge(path)
    (out / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="no sheet"):
        judge(out / "other.csv")
    (out / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="cannot be read"):
        judge(out / "binary.csv")


def test_nothing_finished_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished stage"):
        summarise(tmp_path)
