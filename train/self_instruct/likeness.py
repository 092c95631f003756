"""Which of many texts one is like, by Rouge-L (Wang et al. 2022, arXiv 2212.10560: a new
instruction stays if its Rouge-L with every one before is below 0.7).

The figure itself is handed in. It is computed only where the words that two texts share could reach
the bound at all: a common subsequence is no longer than what they share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

LIKE = 0.7


class Likeness:
    """Texts to be compared with.

    tokens: a text's words. f_measure: Rouge-L of two texts over these words, 2 c / (m + n).
    """

    def __init__(
        self,
        tokens: Callable[[str], Sequence[str]],
        f_measure: Callable[[str, str], float],
        least: float = LIKE,
    ) -> None:
        self._tokens, self._f_measure, self._least = tokens, f_measure, least
        self._texts: list[tuple[str, Counter[str], int]] = []

    def add(self, text: str) -> None:
        """One more."""
        words = Counter(self._tokens(text))
        self._texts.append((text, words, words.total()))

    def like(self, text: str) -> str | None:
        """The first of the texts whose Rouge-L with this one is not below the bound, or None."""
        words = Counter(self._tokens(text))
        size = words.total()
        for other, others, length in self._texts:
            both = self._least * (size + length)
            # The lengths alone decide most, and cost nothing. Bounds give way a little, so that
            # the rounding of a product never decides.
            if 2 * min(size, length) < both - 1e-9:
                continue
            if 2 * (words & others).total() < both - 1e-9:
                continue
            if self._f_measure(other, text) >= self._least:
                return other
        return None
