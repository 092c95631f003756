"""Whether annotators agree with each other, and whether a side was favoured.

Krippendorff's alpha: 1 less the disagreement within units over the disagreement to be expected of
the same values dealt at random; 0 is chance. Nominal: any two outcomes (win, tie, lose) disagree
alike. Ordinal: the five choices disagree by how many votes lie between them. It depends on sums
over items only, so its interval is a bootstrap over items, with the expectation anew in each.
Knows nothing of who is right.

Sources: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability; Hayes and Krippendorff
(2007), Communication Methods and Measures 1, for the bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from qwen_eval.paired import Array

from .resampling import Estimate, percentiles, resampled_sums
from .votes import MOST, Unit, Vote

Level = Literal["nominal", "ordinal"]
_CLASSES = {"nominal": 3, "ordinal": 2 * MOST + 1}


def krippendorff(
    votes: Sequence[Vote],
    level: Level,
    *,
    baseline: str | None = None,
    alpha: float = 0.05,
    seed: int = 0,
) -> Estimate | None:
    """Nominal of outcomes or ordinal of choices, as seen by the baseline's opponent (by the
    alphabetically first system where the baseline is not compared). A unit is an item and two
    systems; those with one vote say nothing. None where no unit has two votes, or all votes are
    one and the same. Of an annotator's several votes on a unit the first counts."""
    found = _coincidences(votes, level, baseline)
    point = float(_alphas(found.sum(axis=0)[None], level)[0]) if len(found) else np.nan
    if np.isnan(point):
        return None
    size = _CLASSES[level]
    resampled = resampled_sums(found.reshape(len(found), -1), seed).reshape(-1, size, size)
    return percentiles(point, _alphas(resampled, level), alpha)


def _valued(
    votes: Iterable[Vote], level: Level, baseline: str | None
) -> Mapping[Unit, dict[str, int]]:
    """Per unit, in order, the class of each annotator's vote, from 0."""
    units: dict[Unit, dict[str, int]] = {}
    for vote in votes:
        unit = vote.unit
        seen_by = unit[1] if unit[1] != baseline else unit[2]
        nominal = level == "nominal"
        value = vote.outcome_for(seen_by) + 1 if nominal else vote.choice_for(seen_by) + MOST
        units.setdefault(unit, {}).setdefault(vote.annotator, value)
    return {unit: units[unit] for unit in sorted(units)}


def _coincidences(votes: Iterable[Vote], level: Level, baseline: str | None) -> Array:
    """Items × classes × classes: pairs of votes within a unit, each vote weighing 1 in all. Items
    without a pair are left out."""
    size = _CLASSES[level]
    items: dict[str, Array] = {}
    for unit, by_annotator in _valued(votes, level, baseline).items():
        count = len(by_annotator)
        if count > 1:
            counts = np.bincount([*by_annotator.values()], minlength=size).astype(np.float64)
            pairs = (np.outer(counts, counts) - np.diag(counts)) / (count - 1)
            items[unit[0]] = items.get(unit[0], np.zeros((size, size))) + pairs
    return np.array([*items.values()]) if items else np.zeros((0, size, size))


def _alphas(coincidences: Array, level: Level) -> Array:
    """Alpha of each matrix (studies × classes × classes); NaN where it has none."""
    counts = coincidences.sum(axis=2)
    total = counts.sum(axis=1)
    if level == "nominal":
        apart = np.broadcast_to(1 - np.eye(counts.shape[1]), coincidences.shape)
    else:
        middle = counts.cumsum(axis=1) - counts / 2
        apart = (middle[:, :, None] - middle[:, None, :]) ** 2
    observed = (coincidences * apart).sum(axis=(1, 2))
    expected = np.einsum("sa,sb,sab->s", counts, counts, apart)
    found: Array = np.full(len(total), np.nan)
    some = expected > 1e-9
    found[some] = 1 - (total[some] - 1) * observed[some] / expected[some]
    return found


@dataclass(frozen=True)
class Annotator:
    """`agreement`: of the pairs with another's vote on the same unit, the share with the same
    outcome; None where there are no such pairs. `without`: ordinal alpha of the others alone, None
    where they have none; well above the alpha of all, this annotator is unlike the rest.
    `repeats`, `consistent`: units voted on twice with sides exchanged, and how many of these got
    the same outcome. `seconds`: the median of a vote."""

    name: str
    votes: int
    agreement: float | None
    without: float | None
    repeats: int
    consistent: int
    seconds: float


def annotators(votes: Sequence[Vote], *, baseline: str | None = None) -> list[Annotator]:
    """Each annotator beside the others, by name."""
    outcomes = _valued(votes, "nominal", baseline)
    found = []
    for name in sorted({vote.annotator for vote in votes}):
        own = [vote for vote in votes if vote.annotator == name]
        same = [
            value == by_annotator[name]
            for by_annotator in outcomes.values()
            if name in by_annotator
            for other, value in by_annotator.items()
            if other != name
        ]
        rest = _coincidences([v for v in votes if v.annotator != name], "ordinal", baseline)
        without = float(_alphas(rest.sum(axis=0)[None], "ordinal")[0])
        by_unit: dict[Unit, list[int]] = {}
        for vote in own:
            by_unit.setdefault(vote.unit, []).append(vote.outcome_for(vote.unit[1]))
        twice = [some for some in by_unit.values() if len(some) > 1]
        found.append(
            Annotator(
                name=name,
                votes=len(own),
                agreement=sum(same) / len(same) if same else None,
                without=None if np.isnan(without) else without,
                repeats=len(twice),
                consistent=sum(len(set(some)) == 1 for some in twice),
                seconds=float(np.median([vote.seconds for vote in own])),
            )
        )
    return found


@dataclass(frozen=True)
class PositionBias:
    """`left`: votes for the left side less votes for the right, as a share of all, had both systems
    of a pair stood there equally often. `votes`: those it is taken from; `one_sided`: votes on
    pairs whose systems never changed sides, which cannot tell a side from a system."""

    left: Estimate
    votes: int
    one_sided: int


def position_bias(
    votes: Sequence[Vote], *, alpha: float = 0.05, seed: int = 0
) -> PositionBias | None:
    """With a bootstrap over items. None where no pair's systems changed sides."""
    sides = {(vote.left, vote.right) for vote in votes}
    told = [vote for vote in votes if (vote.right, vote.left) in sides]
    if not told:
        return None
    both = sorted({(vote.left, vote.right) for vote in told if vote.left < vote.right})
    index = {pair: 2 * i for i, pair in enumerate(both)}
    items = {item: i for i, item in enumerate(sorted({vote.item for vote in told}))}
    # Per item, pair and side: votes, and votes for the left less those for the right.
    sums = np.zeros((len(items), 2, 2 * len(both)))
    for vote in told:
        exchanged = vote.left > vote.right
        column = index[(vote.right, vote.left) if exchanged else (vote.left, vote.right)]
        sums[items[vote.item], 0, column + exchanged] += 1
        sums[items[vote.item], 1, column + exchanged] += vote.outcome_for(vote.left)
    flat = sums.reshape(len(items), -1)
    point = float(_lefts(flat.sum(axis=0)[None])[0])
    left = percentiles(point, _lefts(resampled_sums(flat, seed)), alpha)
    return PositionBias(left, len(told), len(votes) - len(told))


def _lefts(sums: Array) -> Array:
    """Both sides of a pair weigh alike, and pairs by their votes; a pair of which a side was not
    drawn tells nothing. NaN where none tells."""
    counts, lefts = np.moveaxis(sums.reshape(len(sums), 2, -1, 2), 1, 0)
    weights = np.where(counts.all(axis=2), counts.sum(axis=2), 0.0)
    means = (lefts / np.maximum(counts, 1.0)).mean(axis=2)
    with np.errstate(invalid="ignore"):
        found: Array = (means * weights).sum(axis=1) / weights.sum(axis=1)
    return found
