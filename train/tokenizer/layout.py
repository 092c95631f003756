"""From counted pieces to the array of symbols that merges are learnt on.

Symbols are ids of the base vocabulary: what is learnt goes on where its own merges end. Knows
nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

import numpy as np
from numpy.typing import NDArray

from .merges import BORDER, Pieces

BATCH = 1 << 16
# A byte that UTF-8 never has, so it can stand between pieces.
NO_TEXT = b"\xff"


def lay_out(counts: Mapping[str, int], base: Sequence[bytes]) -> Pieces:
    """Pieces encoded by the base, in groups of equal counts, the most frequent first.

    base: tokens by rank, every byte among them.
    """
    texts = list(counts)
    often = np.fromiter(counts.values(), np.int64, len(texts))
    order = np.argsort(-often, kind="stable")
    often = often[order]
    border = np.array([BORDER], np.int32)
    sorted_texts = (texts[i] for i in order)
    encode = _by_bytes if len(base) == 256 else _by_merges
    symbols = np.concatenate([border, *encode(sorted_texts, base)])
    last = np.flatnonzero(np.append(often[1:] != often[:-1], True))  # the last of every group
    ends = np.flatnonzero(symbols == BORDER)[1:][last]
    return Pieces(symbols, ends, often[last], len(base))


def _by_bytes(texts: Iterable[str], base: Sequence[bytes]) -> Iterator[NDArray[np.int32]]:
    table = np.full(256, BORDER, np.int32)
    for rank, token in enumerate(base):
        table[token[0]] = rank
    table[NO_TEXT[0]] = BORDER
    for batch in _batches(texts):
        joined = NO_TEXT.join([*(text.encode() for text in batch), b""])
        yield table[np.frombuffer(joined, np.uint8)]


def _by_merges(texts: Iterable[str], base: Sequence[bytes]) -> Iterator[NDArray[np.int32]]:
    import tiktoken

    # A pattern that splits nothing: the texts are pieces already.
    encoding = tiktoken.Encoding(
        "base",
        pat_str=r"(?s:.+)",
        mergeable_ranks={token: rank for rank, token in enumerate(base)},
        special_tokens={},
    )
    for batch in _batches(texts):
        # Not encode_ordinary_batch, which makes a future of every text.
        ids = ((*encoding.encode_ordinary(text), BORDER) for text in batch)
        yield np.fromiter(chain.from_iterable(ids), np.int32)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, BATCH)):
        yield batch
