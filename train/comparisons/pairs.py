"""From scored answers to a prompt to pairs of which one answer is preferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from qwen_eval.fileio import text_hash


@dataclass(frozen=True)
class Answer:
    """An answer to a prompt. source: such as `smollm2@0.7`. score: the higher the better."""

    prompt: str
    source: str
    text: str
    score: float | None = None

    @property
    def id(self) -> str:
        """What a file of scores calls it; the same for the same text to the same prompt."""
        return text_hash(f"{self.prompt}\0{self.text}")


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt, the first of which has the higher score."""

    chosen: Answer
    rejected: Answer
    margin: float


def distinct(answers: Sequence[Answer]) -> list[Answer]:
    """Without those whose text, but for blanks around it, stands before."""
    first: dict[tuple[str, str], Answer] = {}
    for answer in answers:
        first.setdefault((answer.prompt, answer.text.strip()), answer)
    return list(first.values())


def pairs_of(
    answers: Sequence[Answer], most: int | None, seed: int
) -> tuple[list[Comparison], int]:
    """All pairs of different scores of one prompt's answers, or a seeded draw of `most` of them, in
    the order of the answers; and the number of ties. An answer without a score is in none."""
    found, ties = list[Comparison](), 0
    for one, other in combinations(answers, 2):
        if one.score is None or other.score is None:
            continue
        margin = one.score - other.score
        if not margin:
            ties += 1
            continue
        better, worse = (one, other) if margin > 0 else (other, one)
        found.append(Comparison(better, worse, abs(margin)))
    if most is not None and len(found) > most:
        lots = sorted(found, key=lambda p: text_hash(f"{seed} {p.chosen.id} {p.rejected.id}"))
        drawn = {(pair.chosen.id, pair.rejected.id) for pair in lots[:most]}
        found = [pair for pair in found if (pair.chosen.id, pair.rejected.id) in drawn]
    return found, ties
