"""Learned scorers of texts: logistic regression over hashed n-grams of words.

A text's features are its 1-, 2- and 3-grams of words (a Han letter is a word), hashed into 2^18
places, 1 + ln(count) in each, scaled to length one; the score is the chance that it is like the
positive examples. One class of scorer serves quality and offensive content alike; what it is
depends on the examples. The paper names "language models, text-quality scoring models and
offensive or inappropriate content models" and publishes none of them. Knows nothing of recipes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.ngrams import mix, ngrams, words

from ..documents import rows
from .shards import load_array, save_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BITS = 18
LENGTHS = (1, 2, 3)
# What a text is like is known from its beginning.
HEAD = 20_000


@dataclass(frozen=True)
class Scorer:
    """weights: one for every place, and the constant last (2**BITS + 1,)."""

    weights: NDArray[np.float32]

    def score(self, text: str) -> float:
        """The chance, from 0 to 1, that a text is like the positive examples."""
        import numpy as np

        places, values = features(text)
        logit = float(self.weights[places].astype(np.float64) @ values) + float(self.weights[-1])
        return float(1 / (1 + np.exp(-logit)))


def features(text: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(places, values) of a text's features, both (features,)."""
    import numpy as np

    hashes = words(text[:HEAD])
    # Mixed with their length, so that a word and an n-gram never count as the same.
    grams = [mix(ngrams(hashes, n) ^ np.uint64(n)) >> np.uint64(64 - BITS) for n in LENGTHS]
    places, counts = np.unique(np.concatenate(grams), return_counts=True)
    values = 1 + np.log(counts)
    norm = np.sqrt((values**2).sum())
    return places.astype(np.int64), values / norm if norm else values


def train(positive: Sequence[str], negative: Sequence[str], penalty: float = 1.0) -> Scorer:
    """Fit to examples: the mean log-loss plus penalty / (2 n) times the squared weights, at its
    minimum, with both classes weighing the same. Raises UserError without examples of both.
    """
    import numpy as np
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    if not positive or not negative:
        raise UserError("a scorer needs examples of both kinds")
    rows = [features(text) for text in (*positive, *negative)]
    ends = np.cumsum([0, *(len(places) for places, _ in rows)])
    x = csr_matrix(
        (np.concatenate([v for _, v in rows]), np.concatenate([p for p, _ in rows]), ends),
        shape=(len(rows), 1 << BITS),
    )
    sign = np.array([1.0] * len(positive) + [-1.0] * len(negative))
    weight = np.where(sign > 0, 0.5 / len(positive), 0.5 / len(negative))
    strength = penalty / len(rows)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margin = sign * (x @ w[:-1] + w[-1])
        slope = -weight * sign / (1 + np.exp(margin))
        value = weight @ np.logaddexp(0, -margin) + strength / 2 * (w[:-1] @ w[:-1])
        return float(value), np.append(x.T @ slope + strength * w[:-1], slope.sum())

    found: Any = minimize(loss, np.zeros((1 << BITS) + 1), jac=True, method="L-BFGS-B")
    return Scorer(found.x.astype(np.float32))


def save_scorer(path: Path, scorer: Scorer) -> None:
    """Write a scorer as one array."""
    save_array(path, scorer.weights)


def load_scorer(path: Path) -> Scorer:
    """Read a scorer. Raises UserError for a file that is none."""
    weights = load_array(path)
    if weights.shape != ((1 << BITS) + 1,) or weights.dtype.kind != "f":
        raise UserError(f"{path}: no scorer; train one with `qwen-eval train data-scorer`")
    return Scorer(weights)


def examples(files: Sequence[Path], key: str) -> dict[str, str]:
    """The texts of JSON lines, each once, with the row that it stands in. Raises UserError naming
    file and row for one without."""
    found: dict[str, str] = {}
    for path in files:
        for number, text, _ in rows(path, key):
            found.setdefault(text, f"{path.name}#{number}")
    return found


def held_out(texts: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(nine tenths, one tenth) by a hash of the row: two texts of one row, such as the better and
    the worse reply to a question, are always on the same side."""
    out = {text: int(text_hash(row), 16) % 10 == 0 for text, row in texts.items()}
    kept = [text for text, is_out in out.items() if not is_out]
    return kept, [text for text, is_out in out.items() if is_out]
