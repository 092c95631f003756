"""In which order, and how often, documents are seen.

A document's place is a hash of the seed, its id and the number of its copy: a shuffle of the whole
corpus that needs no memory for it, does not depend on how the corpus is cut into shards, and moves
no other document when one is added. The paper up-samples sources without saying which or how much;
the numbers are the recipe's. Knows nothing of tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from qwen_eval.ngrams import mix

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Bytes a copy takes while it is sorted: key, place, order, and once more in order.
_SORTING = 48


def copies(ids: NDArray[np.uint64], repeat: NDArray[np.float64], seed: int) -> NDArray[np.int64]:
    """How often each document is seen (documents,): `repeat` rounded down, and for the rest one
    more for that share of the documents."""
    import numpy as np

    whole = np.floor(repeat)
    return np.asarray(whole + (_drawn(ids, seed, "copies") < repeat - whole), np.int64)


def held_out(ids: NDArray[np.uint64], share: float, seed: int) -> NDArray[np.bool_]:
    """Which documents (documents,) are kept from training: a hash of seed and id says it."""
    import numpy as np

    return np.asarray(_drawn(ids, seed, "held out") < share, np.bool_)


def order(
    tables: Sequence[NDArray[Any]], repeats: Sequence[float], seed: int, memory: int
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(shards, rows) of all copies in the order in which they are seen, some at a time.

    tables: of every shard the documents' `id` and `source` (a number into repeats). memory: bytes
    that may be used for sorting.
    """
    import numpy as np

    often = np.asarray(repeats, np.float64)
    counts = [copies(t["id"], often[t["source"]], seed) for t in tables]
    total = sum(int(count.sum()) for count in counts)
    parts = max(1, -(-total * _SORTING // memory))
    edges = [math.ceil((part << 64) / parts) for part in range(parts + 1)]
    for low, high in pairwise(edges):
        keys, shards, rows = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], [np.empty(0, int)]
        for shard, (table, count) in enumerate(zip(tables, counts, strict=True)):
            for copy in range(int(count.max(initial=0))):
                there = np.flatnonzero(count > copy)
                key = mix(mix(table["id"][there] ^ _salt(seed, "order")) + np.uint64(copy))
                chosen = (key >= np.uint64(low)) & (key <= np.uint64(high - 1))
                keys.append(key[chosen])
                rows.append(there[chosen])
                shards.append(np.full(int(chosen.sum()), shard))
        key, shard_of, row = (np.concatenate(part) for part in (keys, shards, rows))
        placed = np.lexsort((row, shard_of, key))
        yield shard_of[placed], row[placed]


def shares(
    tables: Sequence[NDArray[Any]], names: Sequence[str], repeats: Sequence[float], seed: int
) -> dict[str, dict[str, int]]:
    """Of every source: documents, tokens, and both as they are seen with all copies."""
    import numpy as np

    said = {}
    for number, (name, repeat) in enumerate(zip(names, repeats, strict=True)):
        sums = np.zeros(4, np.int64)
        for table in tables:
            mine = table[table["source"] == number]
            seen = copies(mine["id"], np.full(len(mine), repeat), seed)
            lengths = mine["length"].astype(np.int64)
            sums += [len(mine), lengths.sum(), seen.sum(), (seen * lengths).sum()]
        keys = ("documents", "tokens", "seen_documents", "seen_tokens")
        said[name] = dict(zip(keys, sums.tolist(), strict=True))
    return said


def _drawn(ids: NDArray[np.uint64], seed: int, purpose: str) -> NDArray[np.float64]:
    """A number in [0, 1) for every document, the same in any corpus: 53 bits of a hash."""
    import numpy as np

    return np.asarray((mix(ids ^ _salt(seed, purpose)) >> np.uint64(11)) / float(1 << 53))


def _salt(seed: int, purpose: str) -> np.uint64:
    """A number for every seed and purpose, so that draws for two purposes are independent."""
    import numpy as np

    word = int.from_bytes(purpose.encode().ljust(8)[:8], "little")
    return np.uint64(int(mix(np.array([seed], np.uint64))[0]) ^ word)
