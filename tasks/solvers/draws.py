"""Several replies to one question: a seed for each, and what they say together.

The vote over sampled answers is self-consistency (Wang et al. 2022, arXiv 2203.11171).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import replace

from qwen_eval.fileio import text_hash
from qwen_eval.types import GenerateRequest, Item, Score

from ..scorers import vote_of

SEEDS = 2**31
"""Seeds lie below it: there are servers that keep one in 32 bits and read all ones as none."""


def draws(item: Item) -> Iterator[GenerateRequest]:
    """A request for each reply of an item, none of which depends on what else is asked, or when.

    The seed of a draw comes from the run's seed, the sample's id and the draw's number. Greedy
    replies have none.
    """
    for number in range(item.repeats):
        decoding = item.decoding
        if decoding.temperature:
            drawn = int(text_hash(f"{decoding.seed}\0{item.sample.id}\0{number}"), 16)
            decoding = replace(decoding, seed=drawn % SEEDS)
        yield GenerateRequest(item.prompt, decoding, reference=item.reference)


def sizes(item: Item, kind: str) -> Iterator[tuple[str, int]]:
    """Of what is measured of several replies together, `pass@10` as that and 10, if there are so
    many."""
    for name in item.also:
        found, _, count = name.partition("@")
        if found == kind and int(count) <= item.repeats:
            yield name, int(count)


def together(item: Item, scores: Sequence[Score]) -> Score:
    """The score of an item by those of its replies: the mean of each value, and of the first k
    replies whether their majority is right (`maj@k`). The answer is that of the majority of all."""
    names = dict.fromkeys(name for score in scores for name in score.values)
    values = {n: sum(s.values.get(n, 0.0) for s in scores) / len(scores) for n in names}
    for name, count in sizes(item, "maj"):
        chosen = majority(scores[:count], item.scorer)
        values[name] = chosen.values.get(item.metric, 0.0) if chosen else 0.0
    chosen = majority(scores, item.scorer)
    return Score(
        values,
        answer=chosen.answer if chosen else None,
        status="scored" if chosen else "no_answer",
        detail={"draws": [score.answer if _is_read(score) else None for score in scores]},
    )


def majority(scores: Sequence[Score], scorer: str) -> Score | None:
    """The first of the replies that give the most frequent answer, of equally frequent ones that
    which came first; None where none could be read."""
    votes: dict[Hashable, list[Score]] = {}
    for score in filter(_is_read, scores):
        votes.setdefault(vote_of(scorer, score.answer or ""), []).append(score)
    return max(votes.values(), key=len)[0] if votes else None


def _is_read(score: Score) -> bool:
    return score.status == "scored"
