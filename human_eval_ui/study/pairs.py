"""Which two answers are compared: one pair per item and two systems, and the attention pairs.

In an attention pair (gold) one answer stands beside itself, damaged. Names of pairs are opaque: no
system can be read out of them. Knows nothing of who compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..answers.garble import garble
from ..answers.shape import length, markdown_elements
from . import sides
from .spec import Answer, Study

DAMAGED = "(damaged)"


@dataclass(frozen=True)
class Pair:
    """Two answers to an item, of the systems `first` and `second`; `gold` pairs have DAMAGED as
    their second."""

    id: str
    item: str
    first: str
    second: str
    gold: bool = False


@dataclass(frozen=True)
class Pairs:
    """All pairs of a study by name; `damaged`: the second answers of gold pairs."""

    regular: Mapping[str, Pair]
    gold: Mapping[str, Pair]
    damaged: Mapping[str, Answer]

    def __getitem__(self, name: str) -> Pair:
        return self.regular.get(name) or self.gold[name]


def pairs_of(study: Study) -> Pairs:
    """Every pair that a study asks about."""
    regular = [
        Pair(sides.name(study.key, item, *both), item, *both)
        for item in study.items
        for both in study.versus
    ]
    gold: dict[str, Pair] = {}
    damaged: dict[str, Answer] = {}
    order = sorted(study.items, key=lambda item: sides.draw(study.key, "gold", item))
    for item in order:
        if len(gold) == study.spec.gold:
            break
        answers = study.items[item].answers
        system = min(answers, key=lambda s: sides.draw(study.key, "gold", item, s))
        name = sides.name(study.key, "gold", item)
        spoilt = garble(answers[system].text, name)
        # What is too short to be damaged visibly tells nothing of attention.
        if spoilt:
            gold[name] = Pair(name, item, system, DAMAGED, gold=True)
            damaged[name] = Answer(spoilt, 0, length(spoilt), markdown_elements(spoilt))
    return Pairs({pair.id: pair for pair in regular}, gold, damaged)
