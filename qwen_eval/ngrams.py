"""Words and n-grams of words as hashes: fast to make, small to keep, quick to look up.

A word is a lower-case run of letters, marks and digits; punctuation and blanks only part words, as
in Brown et al. 2020 (GPT-3, arXiv 2005.14165, appendix C: "a gram is a lowercase, whitespace
delimited word with no punctuation"). A Han letter is a word of its own, since Chinese is written
without blanks; that part is ours. Hashes are the same in every process and on every machine. Knows
nothing of what the texts are for.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

# Code points by what they are to a word.
_PARTS, _INSIDE, _ALONE = 0, 1, 2
_HAN = (
    (0x3007, 0x3007),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3134F),
)


def words(text: str) -> Hashes:
    """Hashes of a text's words in order (words,)."""
    return words_of([text])[0]


def words_of(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of the words of some texts, one text's behind another's, and how many each text has.
    For short texts far faster than one at a time."""
    import numpy as np

    lowered = [text.lower() for text in texts]
    # The line break parts the last word of a text from the first one of the next.
    points = np.frombuffer("\n".join(lowered).encode("utf-32-le", "surrogatepass"), np.uint32)
    kinds = _kinds()[points]
    joined = np.zeros(len(points), np.bool_)
    joined[1:] = (kinds[:-1] == _INSIDE) & (kinds[1:] == _INSIDE)
    starts = np.flatnonzero((kinds != _PARTS) & ~joined)
    ends = np.cumsum([len(text) + 1 for text in lowered])
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    if not len(starts):
        return np.empty(0, np.uint64), counts
    # A word's hash is the sum of its mixed letters, each with its place in the word; what stands
    # between words adds nothing.
    spans = np.diff(starts, append=len(points))
    places = np.arange(starts[0], len(points)) - np.repeat(starts, spans)
    letters = points[starts[0] :].astype(np.uint64) + (places.astype(np.uint64) << np.uint64(21))
    mixed = mix(letters)
    mixed[kinds[starts[0] :] == _PARTS] = 0
    return np.add.reduceat(mixed, starts - starts[0]), counts


def ngrams(hashes: Hashes, n: int) -> Hashes:
    """Hashes of the n-grams of words in order (words - n + 1,); none for a shorter text."""
    import numpy as np

    if len(hashes) < n:
        return np.empty(0, np.uint64)
    grams = np.zeros(len(hashes) - n + 1, np.uint64)
    for i in range(n):
        # Horner's rule with an odd factor, modulo 2^64: every place counts differently.
        grams *= np.uint64(0x9E3779B97F4A7C15)
        grams += hashes[i : len(hashes) - n + 1 + i]
    return mix(grams)


def ngrams_of(texts: Sequence[str], n: int) -> tuple[Hashes, NDArray[np.int64]]:
    """Hashes of the n-grams of some texts, and the place of each one's text among them."""
    import numpy as np

    hashes, counts = words_of(texts)
    grams = ngrams(hashes, n)
    text_of = np.repeat(np.arange(len(counts)), counts)
    first, last = text_of[: len(grams)], text_of[n - 1 :]
    return grams[first == last], first[first == last]


def mix(values: Hashes) -> Hashes:
    """The values spread over all 64 bits (the finaliser of SplitMix64, Steele et al. 2014)."""
    import numpy as np

    values = values + np.uint64(0x9E3779B97F4A7C15)
    values ^= values >> np.uint64(30)
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values


@cache
def _kinds() -> NDArray[np.uint8]:
    """What every code point is to a word (1114112,)."""
    import numpy as np

    kinds = np.zeros(0x110000, np.uint8)
    for point in range(0x110000):
        if unicodedata.category(chr(point))[0] in "LMN":
            kinds[point] = _INSIDE
    for first, last in _HAN:
        kinds[first : last + 1] = _ALONE
    return kinds
