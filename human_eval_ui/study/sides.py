"""Who sees what where: drawn from the study's secret key, so nobody can foresee it, and anybody can
check it once the key is public. HMAC-SHA256. Knows nothing of votes.

The second of a pair's answers stands on the left in an assignment

    regular   where swapped(key, annotator, (first, second), number)
    gold      where draw(key, "side", annotator, pair) is odd
    repeat    where it did not in the annotator's regular assignment of the pair

with the values of the exported assignments.jsonl. A pair's name is name(key, item, first, second),
that of an attention pair name(key, "gold", item); study.json holds the hash of the key.
"""

from __future__ import annotations

import hashlib
import hmac
from itertools import combinations

BLOCK = 4  # of so many assignments on two systems half are swapped
_SWAPPED = tuple(combinations(range(BLOCK), BLOCK // 2))


def draw(key: bytes, *parts: object) -> int:
    """A number of 64 bits that depends on the parts alone, and on the key."""
    text = "\0".join(map(str, parts)).encode("utf-8", "surrogatepass")
    return int.from_bytes(hmac.digest(key, text, hashlib.sha256)[:8], "big")


def name(key: bytes, *parts: object) -> str:
    """An opaque name for the parts, of 16 hex digits: equal parts have equal names."""
    return f"{draw(key, 'name', *parts):016x}"


def swapped(key: bytes, annotator: str, versus: tuple[str, str], number: int) -> bool:
    """Whether the second of two systems stands on the left in the annotator's assignment of this
    number (from 0) on the two: so it is in two of every four, and which two cannot be foreseen."""
    block, place = divmod(number, BLOCK)
    return place in _SWAPPED[draw(key, "side", annotator, *versus, block) % len(_SWAPPED)]
