"""An answer damaged so that no reader prefers it, for items that show whether annotators read.
Knows nothing of annotators."""

from __future__ import annotations

import random
import re

FEWEST = 12  # words and characters; with fewer, chance may leave a text that still answers
LEAST_MOVED = 0.6  # of them
_TRIES = 20
_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Kept, for the look: a fence with its language; marks of quotes, headings and lists.
_FIXED = r"^[ \t]*(?:```|~~~)[^\n]*|^[ \t]*(?:(?:>|#{1,6}|[-*+]|\d+[.)、])[ \t]*)+"
_PART = re.compile(
    rf"(?P<fixed>{_FIXED})|(?P<ideograph>[{_IDEOGRAPHS}])|(?P<word>[^\W_{_IDEOGRAPHS}]+)",
    re.MULTILINE,
)


def garble(text: str, seed: str) -> str:
    """The text with its words, and its Chinese and Japanese characters, each in the place of
    another, across sentences; punctuation, white space and the marks of Markdown stay, so that it
    looks as long and as neat as it was. The same for the same text and seed.

    Returns '' where that would damage too little: a text of fewer than FEWEST words and characters,
    or of nearly one and the same. Where a text comes back, it differs from the one given.
    """
    parts = list(_PART.finditer(text))
    groups = {
        kind: [part for part in parts if part.lastgroup == kind] for kind in ("ideograph", "word")
    }
    total = sum(map(len, groups.values()))
    if total < FEWEST:
        return ""
    draw = random.Random(f"{seed}\0{text}".encode("utf-8", "surrogatepass"))
    for _ in range(_TRIES):
        placed: dict[int, str] = {}
        for group in groups.values():
            words = [part[0] for part in group]
            draw.shuffle(words)
            placed |= {part.start(): word for part, word in zip(group, words, strict=True)}
        moved = sum(placed[part.start()] != part[0] for part in parts if part.start() in placed)
        if moved >= LEAST_MOVED * total:
            break
    else:
        return ""
    return _PART.sub(lambda part: placed.get(part.start(), part[0]), text)
