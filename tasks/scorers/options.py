"""What an option's log-probability is divided by before options are held against each other.

A sum favours short options where they differ in length; the others are the usual remedies. All
take the options' texts, with the space that stands before them, and their counts of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence


def argmax(texts: Sequence[str], counts: Sequence[int]) -> list[int]:
    """One: the sum decides (lm-evaluation-harness's `acc`)."""
    return [1] * len(texts)


def argmax_per_character(texts: Sequence[str], counts: Sequence[int]) -> list[int]:
    """Characters without the space before them (lm-evaluation-harness's `acc_norm`)."""
    return [max(len(text.removeprefix(" ")), 1) for text in texts]


def argmax_per_byte(texts: Sequence[str], counts: Sequence[int]) -> list[int]:
    """UTF-8 bytes without the space before them."""
    return [max(len(text.removeprefix(" ").encode("utf-8", "surrogatepass")), 1) for text in texts]


def argmax_per_token(texts: Sequence[str], counts: Sequence[int]) -> list[int]:
    """Tokens of the model. Raises ValueError where the backend does not count them."""
    if len(counts) != len(texts):
        raise ValueError("this backend does not count an option's tokens; take another scorer")
    return [max(count, 1) for count in counts]
