"""Whether a model knows a test set by heart, as far as its log-probabilities can show it.

Two readings. Min-K% (Shi et al. 2024, arXiv 2310.16789) is the mean log-probability of the least
likely fifth of a text's tokens: a text that was trained on has fewer surprises. It has no scale of
its own: plain texts have few surprises as well.

The order of rows (Oren et al. 2024, arXiv 2310.17623) has one: rows that carry no meaning in their
order are as likely in any other, unless a model was trained on the file. The set is cut into
stretches of neighbouring rows, each stretch is held against shuffles of itself, and the ranks are
added up. Where Oren et al. take a t-test over the stretches, ranks have an exact distribution, so p
holds for few stretches and any log-probabilities. A set whose neighbours share more words than
shuffled ones has an order that means something, and there the test says nothing: the same ranks of
shared words show it, without a model. Pure functions of texts and numbers; randomness is seeded.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_eval.ngrams import words

SHARE = 0.2  # of the tokens: the K of Min-K%, the one that Shi et al. found best
LEAST, MOST = 3, 8  # rows of a stretch
SEPARATOR = "\n\n"  # between rows


def min_k(logprobs: Sequence[float], share: float = SHARE) -> float:
    """Mean of the lowest `share` of the log-probabilities, of one at least. ValueError for none."""
    if not logprobs:
        raise ValueError("a text without tokens has no probability")
    lowest = sorted(logprobs)[: max(int(share * len(logprobs)), 1)]
    return math.fsum(lowest) / len(lowest)


def stretches(tokens: Sequence[int], groups: Sequence[str], room: int | None) -> list[range]:
    """Cut rows, in their order, into stretches of LEAST to MOST neighbours of one group that
    together have at most `room` tokens, None for any number. Rows left over are in none."""
    found: list[range] = []
    start = total = 0
    for at, (count, group) in enumerate(zip(tokens, groups, strict=True)):
        over = room is not None and total + count > room
        if over or at - start == MOST or group != groups[start]:
            found.append(range(start, at))
            start, total = at, 0
        total += count
    found.append(range(start, len(tokens)))
    return [one for one in found if len(one) >= LEAST]


def shuffles(rows: int, count: int, key: str) -> list[list[int]]:
    """`count` orders of so many rows, each of all as likely, the published one too: the same for
    the same key."""
    rng = random.Random(key)
    return [rng.sample(range(rows), rows) for _ in range(count)]


def rank(published: float, shuffled: Sequence[float]) -> int:
    """How many shuffles are at least as high as the published order, so ties count against it."""
    return sum(other >= published for other in shuffled)


def rank_sum_p(ranks: Sequence[int], count: int) -> float:
    """How surprising so low a sum of ranks would be, were every order as likely: each rank is then
    one of 0 … count at random (ties only make it higher). Exact but for rounding, one-sided.
    ValueError for no ranks."""
    import numpy as np

    if not ranks:
        raise ValueError("a test needs at least one rank")
    # Only sums up to the one found are needed.
    total = sum(ranks)
    chances, one = np.ones(1), np.full(count + 1, 1 / (count + 1))
    for _ in ranks:
        chances = np.convolve(chances, one)[: total + 1]
    return min(float(chances.sum()), 1.0)


def likeness(rows: Sequence[frozenset[int]], order: Sequence[int]) -> float:
    """Mean share of words that neighbours in this order have in common (Jaccard's index)."""
    pairs = itertools.pairwise(order)
    shares = [len(rows[a] & rows[b]) / max(len(rows[a] | rows[b]), 1) for a, b in pairs]
    return math.fsum(shares) / len(shares)


def vocabulary(text: str) -> frozenset[int]:
    """The words of a text, each once."""
    return frozenset(words(text).tolist())


@dataclass(frozen=True)
class OrderTest:
    """The published order of a task's rows against `shuffles` of each of its `stretches`.

    `beaten`: the share of shuffles that are less likely to the model than the published order; a
    half where it knows nothing of it. `gain`: by how many nats a token the published order is more
    likely than shuffles are on average. `p`: one-sided. `p_words`: the same test of shared words
    instead of probabilities; where it is small, the order means something and `p` says nothing.
    """

    stretches: int
    rows: int
    shuffles: int
    beaten: float
    gain: float
    p: float
    p_words: float


@dataclass(frozen=True)
class StretchScores:
    """Of one stretch: tokens, and what the published order has, and each shuffle: the sum of
    log-probabilities, and the likeness of neighbours."""

    rows: int
    tokens: int
    published: float
    shuffled: Sequence[float]
    alike: float
    alike_shuffled: Sequence[float]


def order_test(found: Sequence[StretchScores]) -> OrderTest:
    """Add up the stretches, all of which have equally many shuffles. ValueError for none."""
    if not found:
        raise ValueError("a test needs at least one stretch")
    count = len(found[0].shuffled)
    ranks = [rank(one.published, one.shuffled) for one in found]
    alike = [rank(one.alike, one.alike_shuffled) for one in found]
    gains = [one.published - math.fsum(one.shuffled) / count for one in found]
    return OrderTest(
        stretches=len(found),
        rows=sum(one.rows for one in found),
        shuffles=count,
        beaten=1 - math.fsum(ranks) / (count * len(ranks)),
        gain=math.fsum(gains) / max(sum(one.tokens for one in found), 1),
        p=rank_sum_p(ranks, count),
        p_words=rank_sum_p(alike, count),
    )
