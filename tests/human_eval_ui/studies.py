"""Studies made up for the tests: votes by a known law."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from qwen_eval.human_eval_ui.analysis.votes import Vote

CATEGORIES = ("knowledge", "understanding", "writing", "mathematics", "coding")


def mirrored(vote: Vote) -> Vote:
    """The same opinion, had the answers stood on the other sides."""
    return replace(
        vote,
        left=vote.right,
        right=vote.left,
        choice=-vote.choice,
        left_length=vote.right_length,
        right_length=vote.left_length,
        left_markdown=vote.right_markdown,
        right_markdown=vote.left_markdown,
    )


def doubled(votes: Sequence[Vote]) -> list[Vote]:
    """With a second annotator beside each, who says the very same."""
    return [*votes, *(replace(vote, annotator=vote.annotator + "'") for vote in votes)]


def copied(
    random: np.random.Generator,
    items: int,
    votes: int,
    chances: Sequence[float],
    correlation: float,
) -> list[Vote]:
    """Votes of `new` against `old`. `chances`: of lose, tie, win. Every vote is the item's own draw
    with the square root of `correlation` as its chance, else a draw of its own, so that two votes
    on an item have just that correlation."""
    found = []
    for i in range(items):
        own = random.choice(3, p=chances) - 1
        for k in range(votes):
            said = own if random.random() < correlation**0.5 else random.choice(3, p=chances) - 1
            category = CATEGORIES[i % 5]
            vote = Vote(f"i{i:03}", category, f"a{k}", "old", "new", int(said))
            found.append(mirrored(vote) if random.random() < 0.5 else vote)
    return found


def styled(
    random: np.random.Generator,
    items: int,
    votes: int,
    systems: Mapping[str, Sequence[float]],
    baseline: str = "base",
) -> list[Vote]:
    """Every system against the baseline, each with its chances of lose, tie and win, and with
    lengths, markdown, times and marks by chance."""
    found = []
    for system, chances in systems.items():
        names = {"new": system, "old": baseline}
        found += [
            replace(
                vote,
                left=names[vote.left],
                right=names[vote.right],
                left_length=int(random.integers(50, 900)),
                right_length=int(random.integers(50, 900)),
                left_markdown=int(random.integers(0, 9)),
                right_markdown=int(random.integers(0, 9)),
                seconds=float(random.uniform(8, 90)),
                masked=bool(random.random() < 0.1),
                both_bad=bool(random.random() < 0.1),
            )
            for vote in copied(random, items, votes, chances, 0.5)
        ]
    return found


def davidson(
    random: np.random.Generator,
    items: int,
    votes: int,
    strengths: dict[str, float],
    *,
    ties: float = -0.7,
    side: float = 0.0,
    length: float = 0.0,
    spread: float = 0.0,
) -> list[Vote]:
    """Every item is voted on `votes` times for each pair of systems, by Davidson's law. `ties`: log
    of its ties; `length`: per unit of (left - right) / (left + right); `spread`: of a draw per item
    and pair that all its votes share."""
    names = sorted(strengths)
    found = []
    for i in range(items):
        lengths = {name: int(random.integers(50, 1000)) for name in names}
        for at, one in enumerate(names):
            for other in names[at + 1 :]:
                shift = random.normal(0, spread) if spread else 0.0
                for k in range(votes):
                    left, right = (one, other) if random.random() < 0.5 else (other, one)
                    tilt = (lengths[left] - lengths[right]) / (lengths[left] + lengths[right])
                    ahead = strengths[left] - strengths[right] + side + length * tilt
                    ahead += shift if left == one else -shift
                    wins, even = math.exp(ahead / 2), math.exp(ties)
                    at_random = random.random() * (wins + even + 1 / wins)
                    said = (at_random > wins) + (at_random > wins + even) - 1
                    found.append(
                        Vote(
                            item=f"i{i:03}",
                            category=CATEGORIES[i % 5],
                            annotator=f"a{k}",
                            left=left,
                            right=right,
                            choice=said,
                            left_length=lengths[left],
                            right_length=lengths[right],
                        )
                    )
    return found
