"""Two ways to find repeats, of one shape: parts are signed one by one, then all are compared.

Signing a part needs that part alone, so any process or machine may do it; comparing needs the
signatures alone. Knows nothing of stages.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..documents import Document
from .exact import hashes, repeats
from .minhash import KEYS, Corpus, FuzzySettings, MinHasher, clusters, near_repeats, save_signed
from .shards import beside, save_array

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Method(Protocol):
    """A way to find repeats. name, reason: of what is dropped."""

    name: str
    reason: str

    def settings(self) -> tuple[Any, ...]:
        """All that the result depends on besides the documents."""
        ...

    def sign(self, stem: Path, documents: Iterable[Document]) -> None:
        """Write what is to be known of a part's documents to files of this stem."""
        ...

    def signed(self, stem: Path) -> Path:
        """The file that is there once a part is signed."""
        ...

    def find(self, stems: Sequence[Path], memory: int) -> NDArray[Any]:
        """Documents to drop (repeats,) of DROP_TYPE, by part and row, of all parts in order.

        memory: bytes that may be used for sorting.
        """
        ...


@dataclass(frozen=True)
class Exact:
    """Texts that are the same but for case, blanks and punctuation: the first is kept."""

    name = "exact"
    reason = "same text"

    def settings(self) -> tuple[Any, ...]:
        """None."""
        return ()

    def sign(self, stem: Path, documents: Iterable[Document]) -> None:
        """Write the hashes."""
        save_array(self.signed(stem), hashes(documents))

    def signed(self, stem: Path) -> Path:
        """The hashes."""
        return beside(stem, ".npy")

    def find(self, stems: Sequence[Path], memory: int) -> NDArray[Any]:
        """Equal hashes."""
        return repeats([self.signed(stem) for stem in stems], memory)


@dataclass(frozen=True)
class Near:
    """Texts that are nearly the same, by MinHash."""

    fuzzy: FuzzySettings
    name = "fuzzy"
    reason = "nearly the same text"

    def settings(self) -> tuple[Any, ...]:
        """Those of MinHash."""
        return (self.fuzzy,)

    def sign(self, stem: Path, documents: Iterable[Document]) -> None:
        """Write the signatures."""
        save_signed(stem, MinHasher(self.fuzzy).sign(documents))

    def signed(self, stem: Path) -> Path:
        """The keys of bands, which are written last."""
        return beside(stem, KEYS)

    def find(self, stems: Sequence[Path], memory: int) -> NDArray[Any]:
        """Clusters of similar signatures, and what is like the text kept of each."""
        corpus = Corpus(stems)
        return near_repeats(corpus, clusters(corpus, self.fuzzy, memory), self.fuzzy)
