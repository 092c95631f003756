"""Runs over long texts made by hand: every row of the table reads the same made-up books."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qwen_eval.context_table import ROWS
from qwen_eval.results import Run, SampleRecord
from tests.harness.toys import run_info, task_info

TRAINED = 1024
PAPER = tuple(row for row in ROWS if row.published)
# How fast the loss climbs with each doubling of the trained length.
CLIMB = {"base": 1.9, "ntk": 0.16, "ntk-logn": 0.06, "all": 0.03}
# What a row costs within the trained length.
PRICE = {"base": 0.0, "ntk": 0.02, "ntk-logn": 0.015, "all": 0.03}


def text_record(recipe: str, number: int, nats: Sequence[float], width: int, **fields: Any) -> Any:
    """A text that was read: `nats` per stretch of `width` positions, the first one a token
    short."""
    counts = [width - (i == 0) for i in range(len(nats))]
    total = math.fsum(nats)
    given: dict[str, Any] = {
        "id": f"{number:04x}", "task": recipe, "group": "", "target": "", "prefix": "",
        "text": f"book {number}", "responses": [],
        "values": {"nats_per_token": total / sum(counts), "tokens": float(sum(counts))},
        "answer": None, "status": "scored",
        "detail": {"segments": 1, "curve": {"width": width, "nats": list(nats), "counts": counts}},
    }  # fmt: skip
    return SampleRecord(**given | fields)


def books(
    row: str, recipe: str, length: int, count: int, short: int = 0, noise: float = 0.02
) -> list[SampleRecord]:
    """`count` texts of which the last `short` do not fill the length; seeded by all of this."""
    width = max(length // 64, 64)
    starts = np.arange(0, length, width)
    books = np.random.default_rng(7).normal(3.2, 0.25, count)
    random = np.random.default_rng([length, len(row), count])
    found = []
    for number in range(count):
        if number >= count - short:
            found.append(
                text_record(recipe, number, [1.0], 64, status="excluded", values={}, detail={})
            )
            continue
        places = starts + width / 2
        loss = books[number] + 1.3 * np.exp(-places / 150) + PRICE[row]
        loss = loss + CLIMB[row] * np.maximum(np.log2(places / TRAINED), 0.0)
        loss = loss + random.normal(0, noise, len(places))
        found.append(text_record(recipe, number, (loss * (width - (starts == 0))).tolist(), width))
    return found


def reading_runs(
    tasks: Sequence[str] = ("longppl_en",), lengths: Sequence[int] = (1024, 2048, 4096, 8192),
    count: int = 12, short: Mapping[int, int] | None = None, rows: Sequence[str] = tuple(CLIMB),
    noise: float = 0.02,
) -> dict[str, Run]:  # fmt: skip
    """Unfinished runs by row, as context_table takes them. `short`: how many texts do not fill a
    length."""
    found = {}
    for row in rows:
        records: list[SampleRecord] = []
        infos = {}
        for task in tasks:
            for length in lengths:
                recipe = f"{task}@{length}"
                infos[recipe] = task_info(
                    recipe=recipe, metric="nats_per_token", solver="long_perplexity"
                )
                records += books(row, recipe, length, count, (short or {}).get(length, 0), noise)
        found[row] = Run(Path(row), run_info(tasks=infos), records, finished=False)
    return found


def rows_named(*names: str) -> list[Any]:
    """The table's rows of these names."""
    return [row for row in ROWS if row.name in names]
