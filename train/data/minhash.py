"""Texts that nearly say the same: MinHash signatures, bands, and the clusters they make.

Shingles are n-grams of words (a Han letter is a word). A signature holds, for each of bands * rows
hash functions, the least hash of any shingle; two signatures agree in a place with the chance of
their texts' Jaccard similarity (Broder 1997). Two texts that agree on a whole band are compared by
their signatures, and joined where the estimated similarity reaches the threshold; of each cluster
one text is kept. The paper: "fuzzy deduplication using MinHash and LSH"; bands, rows and threshold
are ours.

The signatures lie in files; memory is a number a document and a budget for sorting. The same texts
in the same order give the same clusters. Knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from qwen_eval.ngrams import mix, ngrams, words
from qwen_eval.schema import Closed

from ..documents import Document
from .exact import DROP_TYPE
from .pace import counted
from .shards import beside, load_array, save_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Shingles hashed at a time: the numbers of one hash function then stay in the processor's cache.
_BATCH = 1 << 15
# Bytes a band's key takes while it is sorted: key, place, order, and the two once more in order.
_SORTING = 40
# Pairs compared at a time.
_PAIRS = 1 << 14
SIGNATURE, KEYS, ABOUT = ".signature.npy", ".keys.npy", ".about.npy"


class FuzzySettings(Closed):
    """How near-duplicates are found. A pair of similarity s is looked at with the chance
    1 - (1 - s**rows)**bands: with these, 99.99% at 0.8 and 0.4% at 0.2."""

    shingle: Annotated[int, Field(ge=1)] = 5
    bands: Annotated[int, Field(ge=1)] = 24
    rows: Annotated[int, Field(ge=1)] = 5
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.7
    keep: Literal["longest", "first"] = "longest"
    seed: Annotated[int, Field(ge=0)] = 0


@dataclass(frozen=True)
class Signed:
    """Signatures of some documents. count: shingles, 0 for a text without words."""

    signature: NDArray[np.uint32]  # (documents, bands * rows)
    keys: NDArray[np.uint64]  # (bands, documents)
    about: NDArray[Any]  # (documents,) of ABOUT_TYPE


ABOUT_TYPE = [("id", "<u8"), ("length", "<u4"), ("count", "<u4")]


class MinHasher:
    """Signs documents under fixed settings."""

    def __init__(self, settings: FuzzySettings) -> None:
        import numpy as np

        self.settings = settings
        rng = np.random.default_rng(settings.seed)
        size = settings.bands * settings.rows
        # x -> a x + b modulo 2^32 with odd a is a permutation of 32-bit numbers.
        self._factors = rng.integers(0, 1 << 32, size, np.uint32) | np.uint32(1)
        self._offsets = rng.integers(0, 1 << 32, size, np.uint32)

    def shingles(self, text: str) -> NDArray[np.uint32]:
        """Hashes of a text's shingles; a shorter text is one shingle, no words are none."""
        import numpy as np

        hashes = words(text)
        if not len(hashes):
            return np.empty(0, np.uint32)
        grams = ngrams(hashes, min(self.settings.shingle, len(hashes)))
        return (grams >> np.uint64(32)).astype(np.uint32)

    def sign(self, documents: Iterable[Document]) -> Signed:
        """Signatures, band keys and lengths of documents, in order."""
        import numpy as np

        about, signatures = [], [np.empty((0, len(self._factors)), np.uint32)]
        batch: list[NDArray[np.uint32]] = []
        pending = 0
        for document in documents:
            found = self.shingles(document.text)
            about.append((int(document.id, 16), len(document.text), len(found)))
            # One without words is signed as if it had one; it is never compared.
            batch.append(found if len(found) else np.zeros(1, np.uint32))
            pending += len(batch[-1])
            if pending >= _BATCH:
                signatures.append(self._least(batch))
                batch, pending = [], 0
        if batch:
            signatures.append(self._least(batch))
        signature = np.concatenate(signatures)
        return Signed(signature, self._keys(signature), np.array(about, ABOUT_TYPE))

    def _least(self, batch: Sequence[NDArray[np.uint32]]) -> NDArray[np.uint32]:
        import numpy as np

        shingles = np.concatenate(batch)
        starts = np.cumsum([0, *map(len, batch[:-1])])
        signature = np.empty((len(self._factors), len(batch)), np.uint32)
        hashed = np.empty_like(shingles)
        for k, (factor, offset) in enumerate(zip(self._factors, self._offsets, strict=True)):
            np.multiply(shingles, factor, out=hashed)
            np.add(hashed, offset, out=hashed)
            np.minimum.reduceat(hashed, starts, out=signature[k])
        return signature.T

    def _keys(self, signature: NDArray[np.uint32]) -> NDArray[np.uint64]:
        import numpy as np

        bands = signature.reshape(len(signature), self.settings.bands, self.settings.rows)
        keys = np.zeros(bands.shape[:2], np.uint64)
        for row in range(self.settings.rows):
            keys = mix(keys + bands[:, :, row].astype(np.uint64))
        return np.ascontiguousarray(keys.T)


def save_signed(stem: Path, signed: Signed) -> None:
    """Three arrays beside each other; the keys last, so where they are, all are."""
    save_array(beside(stem, SIGNATURE), signed.signature)
    save_array(beside(stem, ABOUT), signed.about)
    save_array(beside(stem, KEYS), signed.keys)


class Corpus:
    """The saved signatures of all shards, numbered through. Raises UserError for a broken file."""

    def __init__(self, stems: Sequence[Path]) -> None:
        import numpy as np

        self._keys = [load_array(beside(s, KEYS), mapped=True) for s in stems]
        self._signatures = [load_array(beside(s, SIGNATURE), mapped=True) for s in stems]
        self._about = [load_array(beside(s, ABOUT), mapped=True) for s in stems]
        self.starts = np.cumsum([0, *map(len, self._about)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def lengths(self) -> NDArray[np.uint32]:
        """Characters of every document (documents,)."""
        import numpy as np

        return np.concatenate([np.empty(0, np.uint32), *(a["length"] for a in self._about)])

    def keys(self, band: int, part: int, parts: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """(keys, documents) of a band, those of one part of all keys; texts without words left
        out."""
        import numpy as np

        found, numbers = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
        for start, keys, about in zip(self.starts, self._keys, self._about, strict=False):
            rows = np.flatnonzero((keys[band] % np.uint64(parts) == part) & (about["count"] > 0))
            found.append(keys[band][rows])
            numbers.append(rows + start)
        return np.concatenate(found), np.concatenate(numbers)

    def similarity(self, left: NDArray[Any], right: NDArray[Any]) -> NDArray[np.float64]:
        """Estimated Jaccard similarity of pairs of documents (pairs,)."""
        import numpy as np

        parts = [np.empty(0)]
        for i in range(0, len(left), _PAIRS):
            same = self._rows(left[i : i + _PAIRS]) == self._rows(right[i : i + _PAIRS])
            parts.append(same.mean(axis=1))
        return np.concatenate(parts)

    def ids(self, documents: NDArray[Any]) -> NDArray[np.uint64]:
        """Ids of documents by their numbers."""
        return self._gather([a["id"] for a in self._about], documents)

    def places(self, documents: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """(shards, rows) of documents by their numbers."""
        import numpy as np

        shards = np.searchsorted(self.starts, documents, side="right") - 1
        return shards, documents - self.starts[shards]

    def _rows(self, documents: NDArray[Any]) -> NDArray[np.uint32]:
        return self._gather(self._signatures, documents)

    def _gather(self, tables: Sequence[NDArray[Any]], documents: NDArray[Any]) -> NDArray[Any]:
        import numpy as np

        shards, rows = self.places(documents)
        out = np.empty((len(documents), *tables[0].shape[1:]), tables[0].dtype)
        for shard in np.unique(shards):
            chosen = shards == shard
            out[chosen] = tables[shard][rows[chosen]]
        return out


def clusters(corpus: Corpus, settings: FuzzySettings, memory: int) -> NDArray[np.int64]:
    """The first document of every document's cluster (documents,), its own number if it is alone.

    memory: bytes that may be used for sorting one band's keys.
    """
    import numpy as np

    parents = np.arange(len(corpus))
    parts = max(1, -(-len(corpus) * _SORTING // memory))
    for band in range(settings.bands):
        for part in range(parts):
            keys, documents = corpus.keys(band, part, parts)
            counted(keys.nbytes)
            order = np.argsort(keys, kind="stable")
            for left, right in _pairs(keys[order], documents[order], corpus, settings.threshold):
                _join(parents, left, right)
    return _roots(parents, np.arange(len(parents)))


def _pairs(
    keys: NDArray[Any], documents: NDArray[Any], corpus: Corpus, threshold: float
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Similar pairs among documents with equal keys (sorted by key).

    In each round the first of every group is compared with the rest, which leaves the group if it
    is like the first; so a big cluster costs one comparison a document, not one a pair.
    """
    import numpy as np

    while True:
        first = np.ones(len(keys), np.bool_)
        first[1:] = keys[1:] != keys[:-1]
        leaders = np.flatnonzero(first)
        rest = np.flatnonzero(~first)
        if not len(rest):
            return
        left = documents[leaders[np.cumsum(first)[rest] - 1]]
        right = documents[rest]
        alike = corpus.similarity(left, right) >= threshold
        yield left[alike], right[alike]
        keys, documents = keys[rest[~alike]], documents[rest[~alike]]


def _join(parents: NDArray[np.int64], left: NDArray[Any], right: NDArray[Any]) -> None:
    """Union by the least number, all pairs at once."""
    import numpy as np

    while len(left):
        left, right = _roots(parents, left), _roots(parents, right)
        apart = left != right
        left, right = left[apart], right[apart]
        np.minimum.at(parents, np.maximum(left, right), np.minimum(left, right))


def _roots(parents: NDArray[np.int64], documents: NDArray[Any]) -> NDArray[np.int64]:
    roots: NDArray[np.int64] = parents[documents]
    while True:
        above = parents[roots]
        if (above == roots).all():
            parents[documents] = roots
            return roots
        roots = above


def near_repeats(corpus: Corpus, roots: NDArray[np.int64], settings: FuzzySettings) -> NDArray[Any]:
    """Documents that are like one that is kept (repeats,) of DROP_TYPE, in order of shard and row.

    In each cluster the first of those to be kept (by `settings.keep`; the earlier of equals) stays,
    what is like it goes, and so on with the rest: the ends of a chain may be unlike each other.
    """
    import numpy as np

    numbers = np.arange(len(roots))
    members = np.flatnonzero(np.isin(roots, roots[roots != numbers]))
    if not len(members):
        return np.empty(0, DROP_TYPE)
    preferred = -corpus.lengths[members].astype(np.int64) * (settings.keep == "longest")
    members = members[np.lexsort((members, preferred, roots[members]))]
    kept, dropped = [numbers[:0]], [numbers[:0]]
    for left, right in _pairs(roots[members], members, corpus, settings.threshold):
        kept.append(left)
        dropped.append(right)
    gone = np.concatenate(dropped)
    drops = np.empty(len(gone), DROP_TYPE)
    drops["shard"], drops["row"] = corpus.places(gone)
    drops["kept"] = corpus.ids(np.concatenate(kept))
    return np.sort(drops, order=("shard", "row"))
