"""Votes as files for other programs: JSON lines, CSV and parquet, a row per vote, a column per
field of Vote. read_votes reads the rows of the JSON lines back.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import encodable, write_atomic

from ..analysis.votes import Vote

_COLUMNS = [field.name for field in fields(Vote)]
# A spreadsheet takes a cell that begins so as a formula, which may send the sheet somewhere.
_FORMULA = (*"=+-@＝＋－＠", "\t", "\r", "\n")


def votes_table(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """Plain data, in the order of the votes."""
    return [asdict(vote) | {"tags": list(vote.tags)} for vote in votes]


def write_votes(votes: Sequence[Vote], out: Path) -> list[Path]:
    """votes.jsonl, votes.csv and votes.parquet in a folder; the three paths.

    In the CSV tags are joined by `; `, and text that a spreadsheet would run is given an apostrophe
    in front (as is what begins with apostrophes and then would be, so that one is always to be
    taken away). Raises UserError where a file cannot be written."""
    rows = votes_table(votes)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_atomic(out / "votes.jsonl", encodable("".join(lines)))
    write_atomic(out / "votes.csv", votes_csv(votes))
    _write_parquet(rows, out / "votes.parquet")
    return [out / f"votes.{form}" for form in ("jsonl", "csv", "parquet")]


def votes_csv(votes: Sequence[Vote]) -> str:
    """The text of votes.csv."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fieldnames=_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in votes_table(votes):
        cells = row | {"tags": "; ".join(row["tags"])}
        writer.writerow({key: _as_text(value) for key, value in cells.items()})
    return encodable(file.getvalue())


def _as_text(value: Any) -> Any:
    runs = isinstance(value, str) and value.lstrip("'").startswith(_FORMULA)
    return f"'{value}" if runs else value


def _write_parquet(rows: Sequence[dict[str, Any]], path: Path) -> None:
    import pandas as pd

    clean = [
        {k: encodable(v) if isinstance(v, str) else v for k, v in row.items()}
        | {"tags": [encodable(tag) for tag in row["tags"]]}
        for row in rows
    ]
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        frame = pd.DataFrame(clean, columns=_COLUMNS)
        frame.to_parquet(temporary, index=False)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
