"""Made-up texts in two languages, and near-duplicates planted among them."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from qwen_eval.train.documents import Document, identity

# Frequencies fall as words' do, so that unrelated texts share some shingles.
SYLLABLES = [a + b for a in "bcdfghjklm" for b in "ao"]
VOCABULARY = [a + b + c for a in SYLLABLES for b in SYLLABLES for c in ("", "n", "s")]
SIGNS = [chr(0x4E00 + 7 * i) for i in range(1200)]
WEIGHTS = [1 / (rank + 3) for rank in range(1200)]


def document(text: str, origin: str, source: str = "made") -> Document:
    return Document(identity(origin), text, source)


def english(rng: random.Random, words: int) -> str:
    drawn = rng.choices(VOCABULARY[: len(WEIGHTS)], WEIGHTS, k=words)
    parts = [" ".join(drawn[i : i + 12]) for i in range(0, words, 12)]
    return "\n".join(part.capitalize() + "." for part in parts)


def chinese(rng: random.Random, signs: int) -> str:
    drawn = rng.choices(SIGNS, WEIGHTS, k=signs)
    return "。\n".join("".join(drawn[i : i + 15]) for i in range(0, signs, 15)) + "。"


def edited(rng: random.Random, text: str, share: float) -> str:
    """Words or signs left out, doubled or replaced: that share of all of them."""
    parts = text.split(" ") if " " in text else list(text)
    for i in rng.sample(range(len(parts)), max(1, int(share * len(parts)))):
        parts[i] = rng.choice(["", parts[i] + parts[i], "另" if " " not in text else "changed"])
    return (" " if " " in text else "").join(parts)


def framed(rng: random.Random, text: str) -> str:
    """The text in another layout, between a heading and a footer of another site."""
    number = rng.randrange(10**6)
    return f"Page {number}\n\n{text.replace('. ', '.  ').upper()}\n\nCopied from site {number}"


def jaccard(left: Sequence[object], right: Sequence[object]) -> float:
    a, b = set(left), set(right)
    return len(a & b) / len(a | b) if a | b else 0.0


def plain_words(text: str) -> list[str]:
    """The definition, read off a regular expression (for texts without marks)."""
    return re.findall(r"[㐀-䶿一-鿿]|[^\W_㐀-䶿一-鿿]+", text.lower())


def plain_shingles(text: str, n: int = 5) -> set[tuple[str, ...]]:
    words = plain_words(text)
    n = min(n, len(words))
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)} if n else set()
