"""What makes the sets in which something is hidden in a long text. `python -m
qwen_eval.tasks.hidden` writes them anew, byte by byte the same.

Knows nothing of models, lengths, or the texts that things are hidden in.
"""

from __future__ import annotations

from typing import Any

Rows = list[dict[str, Any]]
DEPTHS = (0, 25, 50, 75, 100)
"""Where a needle is hidden, in percent of the text."""
