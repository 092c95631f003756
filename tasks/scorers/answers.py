"""Whether a reply says anything. What it is worth is for people to say."""

from __future__ import annotations

from qwen_eval.types import Score


def answered(text: str, target: str, metric: str) -> Score:
    """1 where the reply holds something other than white space."""
    if text.strip():
        return Score({metric: 1.0})
    return Score({metric: 0.0}, status="no_answer")
