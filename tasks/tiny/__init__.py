"""What makes the generated sets of the `tiny` suite: word lists and templates of the project, drawn
from a seed. `python -m qwen_eval.tasks.tiny` writes them anew, byte by byte the same.

The sets that are not made here (cloze, bits per byte) were written by hand: their data.jsonl is the
source. Knows nothing of models or of how a set is asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from . import arithmetic, brackets, indentation, pairs, pairs_zh
from .draw import Rows

GENERATED: Mapping[str, Callable[[], Rows]] = {
    "tiny_pairs": pairs.rows,
    "tiny_pairs_zh": pairs_zh.rows,
    "tiny_arithmetic": arithmetic.rows,
    "tiny_brackets": brackets.rows,
    "tiny_indentation": indentation.rows,
}
"""Task → what makes its rows."""


def text(task: str) -> str:
    """The data.jsonl of a generated task."""
    rows = GENERATED[task]()
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
