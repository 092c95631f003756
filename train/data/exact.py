"""Texts that are the same but for case, blanks and punctuation: the first is kept.

Equality is that of a 128-bit hash of the normalised text (the paper: "exact-match deduplication
after normalization"; which normalisation is not published, so this one is ours). Memory does not
grow with the corpus: the hashes lie in files and are sorted part by part. Knows nothing of stages.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..documents import Document
from .pace import counted
from .shards import load_array

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNHEARD = re.compile(r"[\W_]+")
HASH_TYPE = [("high", "<u8"), ("low", "<u8"), ("id", "<u8")]
# Where a document stands, and the id of the one that is kept in its stead.
DROP_TYPE = [("shard", "<u4"), ("row", "<u4"), ("kept", "<u8")]
# Bytes a hash takes while it is sorted: itself, its place, the order.
_SORTING = 64


def normalised(text: str) -> str:
    """NFKC, case folded, letters, marks and digits only; a text without any stays as it is."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _UNHEARD.sub("", text.casefold()) or text


def hashes(documents: Iterable[Document]) -> NDArray[Any]:
    """Hash and id of every document, in order (documents,) of HASH_TYPE."""
    import numpy as np

    rows = []
    for document in documents:
        data = normalised(document.text).encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(data, digest_size=16).digest()
        rows.append(
            (
                int.from_bytes(digest[:8], "little"),
                int.from_bytes(digest[8:], "little"),
                int(document.id, 16),
            )
        )
    return np.array(rows, HASH_TYPE)


def repeats(files: Sequence[Path], memory: int) -> NDArray[Any]:
    """Documents whose text stood before (repeats,) of DROP_TYPE, in order of shard and row.

    files: the saved hashes of all shards, in order. memory: bytes that may be used for sorting.
    """
    import numpy as np

    sizes = [len(load_array(path, mapped=True)) for path in files]
    parts = max(1, -(-sum(sizes) * _SORTING // memory))
    found = [np.empty(0, DROP_TYPE)]
    for part in range(parts):
        chosen, places = [np.empty(0, HASH_TYPE)], [np.empty((0, 2), np.uint32)]
        for shard, path in enumerate(files):
            table = load_array(path, mapped=True)
            rows = np.flatnonzero(table["high"] % np.uint64(parts) == part)
            chosen.append(table[rows])
            counted(chosen[-1].nbytes)
            places.append(np.stack([np.full(len(rows), shard), rows], 1).astype(np.uint32))
        table, place = np.concatenate(chosen), np.concatenate(places)
        # A stable sort: equal hashes stay in the order of their places.
        order = np.lexsort((table["low"], table["high"]))
        table, place = table[order], place[order]
        same = np.zeros(len(table), np.bool_)
        same[1:] = (table["high"][1:] == table["high"][:-1]) & (
            table["low"][1:] == table["low"][:-1]
        )
        first = np.maximum.accumulate(np.where(same, 0, np.arange(len(table))))
        drops = np.empty(int(same.sum()), DROP_TYPE)
        drops["shard"], drops["row"] = place[same, 0], place[same, 1]
        drops["kept"] = table["id"][first[same]]
        found.append(drops)
    return np.sort(np.concatenate(found), order=("shard", "row"))
