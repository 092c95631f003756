"""The models that come with the project: `tiny`, and `tiny-chat` as a delta over it.

Knows nothing of how they were made; model/checkpoints/MODEL_CARD.md says it.
"""

from __future__ import annotations

from pathlib import Path

NOTES = {
    "tiny": "our own Qwen v1 of 8 million parameters, bundled; a base model",
    "tiny-chat": "tiny after a short fine-tuning on conversations, bundled",
}


def folder(name: str) -> Path:
    """Where a bundled model lies."""
    return Path(__file__).parent / "checkpoints" / name
