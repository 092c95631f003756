"""Sheets on which a person judges what filters did, and what the judgements say.

The paper reviews samples by hand. A sheet holds a seeded draw of texts that one filter dropped and
of texts that it kept; a person writes `right` or `wrong` in the last column. Precision is the share
of drops that were right, with Wilson's interval. Reads the stages' folders only.
"""

from __future__ import annotations

import csv
import heapq
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl, text_hash, write_atomic
from qwen_eval.stats import wilson_interval

from .stage import Folder

COLUMNS = ("filter", "decision", "reason", "source", "id", "text", "like", "verdict")
VERDICTS = ("right", "wrong")
SHOWN = 2000
# A cell that begins so is a formula to a spreadsheet.
_FORMULA = tuple("=+-@\t\r")


@dataclass(frozen=True)
class Judged:
    """Judgements of one decision of one filter: how many were right, of how many given."""

    filter: str
    decision: str
    right: int
    judged: int
    rows: int

    def line(self) -> str:
        """`rules, dropped: 41 of 48 right, 85.4% [72.8, 92.8], 2 not judged`."""
        head = f"{self.filter}, {self.decision}: "
        left = f", {self.rows - self.judged} not judged" if self.judged < self.rows else ""
        if not self.judged:
            return f"{head}no judgement{left}"
        low, high = wilson_interval(self.right, self.judged)
        return (
            f"{head}{self.right} of {self.judged} right, {self.right / self.judged:.1%} "
            f"[{100 * low:.1f}, {100 * high:.1f}]{left}"
        )


def write_sheets(out: Path, folders: Iterable[Folder], count: int, seed: int) -> list[Path]:
    """A sheet for every filter that dropped something: `count` texts of each decision, or all."""
    written = []
    for folder in folders:
        filters = sorted({filter_ for filter_, _, _ in folder.counts().dropped})
        for filter_ in filters:
            mine = (r for r in _records(folder.dropped()) if r["filter"] == filter_)
            dropped = _draw(mine, count, seed)
            kept = _draw(_records(folder.kept()), count, seed)
            wanted = {r["detail"].removeprefix("of ") for r in dropped if r["detail"]}
            like = {
                r["id"]: r["text"]
                for r in (_records(folder.kept()) if wanted else ())
                if r["id"] in wanted
            }
            rows = [_row(filter_, "dropped", record, like) for record in dropped]
            rows += [_row(filter_, "kept", record, like) for record in kept]
            rows.sort(key=lambda row: text_hash(f"{seed} {row[4]}"))
            text = io.StringIO()
            writer = csv.writer(text)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
            path = out / f"{folder.name}-{filter_}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, text.getvalue())
            written.append(path)
    return written


def judge(path: Path) -> list[Judged]:
    """What a filled sheet says. Raises UserError as read_sheet does."""
    return tally(
        ((row["filter"], row["decision"]), verdict) for row, verdict in read_sheet(path, COLUMNS)
    )


def tally(verdicts: Iterable[tuple[tuple[str, str], str]]) -> list[Judged]:
    """How many decisions were found right, from (filter, decision) and verdict of each."""
    counts: dict[tuple[str, str], list[int]] = {}
    for key, verdict in verdicts:
        count = counts.setdefault(key, [0, 0, 0])
        count[0] += verdict == "right"
        count[1] += bool(verdict)
        count[2] += 1
    return [Judged(*key, *count) for key, count in sorted(counts.items())]


def read_sheet(path: Path, columns: Sequence[str]) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a sheet, each with its verdict, empty where there is none yet. Raises UserError
    for a file that is no sheet, and naming the line of a verdict that is none."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            if not set(columns) <= set(reader.fieldnames or ()):
                raise UserError(f"{path}: no sheet; its first line must be {','.join(columns)}")
            for row in reader:
                verdict = (row["verdict"] or "").strip().lower()
                if verdict and verdict not in VERDICTS:
                    raise UserError(
                        f"{path}, line {reader.line_num}: verdict {verdict[:40]!r}; "
                        f"write {' or '.join(VERDICTS)}, or nothing"
                    )
                yield row, verdict
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _records(shards: Iterable[Path]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        yield from read_jsonl(shard)


def _draw(records: Iterable[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """The records whose hashes with the seed are least: a fair draw that needs no memory."""
    drawn = ((text_hash(f"{seed} {r['id']}"), r["id"], r) for r in records)
    return [record for _, _, record in heapq.nsmallest(count, drawn, key=lambda e: e[:2])]


def _row(filter_: str, decision: str, record: dict[str, Any], like: dict[str, str]) -> list[str]:
    other = like.get(record.get("detail", "").removeprefix("of "), "")
    cells = [record["source"], record["id"], record["text"][:SHOWN], other[:SHOWN]]
    return [filter_, decision, record.get("reason", ""), *map(cell, cells), ""]


def cell(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    text = text.replace("\x00", "")
    return f"'{text}" if text.startswith(_FORMULA) else text
