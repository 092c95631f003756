"""From one recipe to another, one factor at a time.

Two recipes of a task differ in what is asked, how tokens meet, what is cut, how a reply is read and
how samples are averaged. Each factor is a set of a recipe's keys; taken over in a fixed order they
lead from one recipe to the other through recipes that no task has. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qwen_eval.paired import Paired, difference
from qwen_eval.stats import weighted_mean
from qwen_eval.taskspec import Recipe

ASKING = ("header", "item", "chat", "system", "options", "options_from", "reference")
HIDING = ("needle", "filler")
ENDING = ("max_tokens", "stop", "cells", "repair")  # of a reply, and of an agent's turns
FACTORS = {
    "prompt": (*ASKING, *HIDING),
    "exemplars": ("shots", "answer", "between"),
    "token seam": ("gap",),
    "truncation": ("max_prompt_tokens", *ENDING, "length", "span", "stride"),
    "sampling": ("temperature", "top_p", "repeats"),
    "extraction": ("scorer",),
    "aggregation": ("macro",),
}
"""In the order in which they are taken over; a prompt's cut comes after all that makes it long."""


@dataclass(frozen=True)
class Step:
    """A recipe on the way, and the factor that was taken over last."""

    factor: str
    recipe: Recipe


@dataclass(frozen=True)
class Effect:
    """What a factor does to a score. `paired`: the difference item by item; None where no item's
    value changes, as by another way to average. `lost`, `gained`: items whose value went down, up.
    """

    factor: str
    score: float
    delta: float
    paired: Paired | None
    lost: int
    gained: int


def steps(start: Recipe, end: Recipe) -> list[Step]:
    """The recipes between two, the end among them; factors in which they agree are passed over.

    Where one weighs options and the other reads a reply, the way of reading comes with the prompt.
    """
    recipe, found = start, list[Step]()
    reading = ("solver", "scorer", "gap") if start.solver != end.solver else ()
    for factor, own in FACTORS.items():
        keys = own + reading if factor == "prompt" else own
        changed = {
            key: getattr(end, key) for key in keys if getattr(end, key) != getattr(recipe, key)
        }
        if changed:
            recipe = recipe.model_copy(update=changed)
            found.append(Step(factor, recipe))
    return found


def effect(
    factor: str,
    before: Sequence[float],
    after: Sequence[float],
    groups: Sequence[str],
    *,
    macro: tuple[bool, bool],
    alpha: float = 0.05,
) -> Effect:
    """The difference that a factor makes over the same items. `macro`: whether groups weigh alike
    before and after it."""
    weights = [_weights(groups) if alike else None for alike in macro]
    start, end = (weighted_mean(v, w) for v, w in zip((before, after), weights, strict=True))
    moved = [b - a for a, b in zip(before, after, strict=True)]
    paired = None
    if macro[0] == macro[1]:
        paired = difference(before, after, groups, weights=weights[0], alpha=alpha)
    return Effect(
        factor,
        end,
        end - start,
        paired,
        lost=sum(change < 0 for change in moved),
        gained=sum(change > 0 for change in moved),
    )


def _weights(groups: Sequence[str]) -> list[float]:
    sizes = Counter(groups)
    return [1 / sizes[group] for group in groups]
