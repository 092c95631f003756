"""The generated sets by the task that asks them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from . import Rows, needles, passkey

GENERATED: Mapping[str, Callable[[], Rows]] = {
    "passkey_en": lambda: passkey.rows("passkey, English"),
    "passkey_zh": lambda: passkey.rows("passkey, Chinese"),
    "needle_en": lambda: needles.rows(needles.ENGLISH),
    "needle_zh": lambda: needles.rows(needles.CHINESE),
}
"""Task → what makes its rows."""


def text(task: str) -> str:
    """The data.jsonl of a generated task."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in GENERATED[task]())
