"""Counting the pieces into which Qwen's pattern splits text; no token ever crosses a piece.

Memory is bounded: when too many distinct pieces are held, the rarest are forgotten, and how far
that can falsify a count is stated. Knows nothing of merges or files.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import regex

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import QWEN_PATTERN, normal_form

from ..documents import Document

# Distinct pieces held at most, about 130 bytes each. 112 MB of English, Chinese and code have
# 2.1 million.
MOST_PIECES = 5_000_000
# Longer pieces (base64, rules of dashes) are counted in parts of so many characters.
LONGEST_PIECE = 1000


@dataclass
class PieceCounts:
    """How often every piece occurs, weights applied.

    `documents` and `bytes` (of UTF-8, before normalisation) are what was read. `digest` is the sum
    of the documents' SHA-256 modulo 2^256, so it does not depend on their order. `occurrences` is
    the sum of all counts, forgotten ones included. After forgetting, a piece's count is at most
    `undercount` too low, and `forgotten` occurrences are missing altogether; both 0 mean exact
    counts, which do not depend on the order of the documents.
    """

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    documents: int = 0
    bytes: int = 0
    occurrences: int = 0
    undercount: int = 0
    forgotten: int = 0
    digest: str = ""


def count_pieces(
    documents: Iterable[Document],
    weights: Mapping[str, int] | None = None,
    most: int = MOST_PIECES,
) -> PieceCounts:
    """Count the pieces of all documents in their NFC form.

    weights: whole numbers by source; a document of weight 3 counts as three. Raises UserError if
    there is no text, or a weight's source does not occur.
    """
    weights = weights or {}
    pattern = regex.compile(QWEN_PATTERN)
    found, seen, digest = PieceCounts(), set(), 0
    for document in documents:
        raw = document.text.encode("utf-8", "surrogatepass")
        found.documents += 1
        found.bytes += len(raw)
        digest += int.from_bytes(hashlib.sha256(raw).digest())
        seen.add(document.source)
        weight = weights.get(document.source, 1)
        for piece, count in Counter(pattern.findall(normal_form(document.text))).items():
            found.occurrences += count * weight
            for start in range(0, len(piece), LONGEST_PIECE):
                found.counts[piece[start : start + LONGEST_PIECE]] += count * weight
        if len(found.counts) > most:
            _forget(found, most // 2)
    if not found.counts:
        raise UserError("--text: no text in it; nothing can be learnt")
    if unknown := sorted(set(weights) - seen):
        raise UserError(
            f"--weights {unknown[0]}: no document has this source; there are "
            + ", ".join(sorted(seen)[:20])
        )
    found.digest = f"{digest % (1 << 256):064x}"
    return found


def _forget(found: PieceCounts, kept: int) -> None:
    """Drop every piece that is not more frequent than the one at rank `kept`.

    A dropped piece may come again and then counts from 0, so each call adds its threshold to what
    a count can lack (as in Misra and Gries' summaries).
    """
    threshold = sorted(found.counts.values(), reverse=True)[kept]
    for piece in [p for p, count in found.counts.items() if count <= threshold]:
        found.forgotten += found.counts.pop(piece)
    found.undercount += threshold
