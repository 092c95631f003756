"""Guesses at what a sequence goes on with, looked up in what it has said already.

Prompt-lookup decoding: where the last few tokens stood before, what followed them then is tried
now. Code, worked answers and quotations repeat themselves. Knows nothing of models.
"""

from __future__ import annotations

from collections.abc import Sequence

GRAM = 3  # tokens that must have stood before
LONGEST = 8  # tokens tried at a time
REST = 16  # tokens written without a try once tries have failed


class Drafts:
    """An index of one growing sequence, and how far its guesses have been worth trying."""

    def __init__(self) -> None:
        self._after: dict[tuple[int, ...], int] = {}
        self._indexed = GRAM - 1
        self._length = LONGEST // 2
        self._again_at = 0

    def after(self, tokens: Sequence[int], most: int) -> tuple[int, ...]:
        """Up to `most` tokens that may follow; none where none are known or worth it."""
        if len(tokens) < self._again_at:
            return ()
        # The last few tokens themselves are not indexed: they would find nothing but their end.
        for end in range(self._indexed, len(tokens) - 1):
            self._after[tuple(tokens[end - GRAM + 1 : end + 1])] = end + 1
        self._indexed = max(self._indexed, len(tokens) - 1)
        found = self._after.get(tuple(tokens[-GRAM:]))
        if found is None:
            return ()
        self._again_at = len(tokens) + REST if self._length == 1 else 0
        return tuple(tokens[found : found + min(most, self._length)])

    def learn(self, *, tried: int, right: int) -> None:
        """Try more after a guess that held, less after one that did not."""
        if right == tried:
            self._length, self._again_at = min(2 * self._length, LONGEST), 0
        elif right == 0:
            self._length = max(self._length // 2, 1)
