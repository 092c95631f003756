"""Whether a judge, such as a model, votes as the annotators do.

Where the judge voted on a unit from both sides and contradicts itself, that is a tie. Its outcome
is held against what most annotators say; and, each annotator left out in turn, against what most of
the rest say, beside what the one left out says: of a judge no more can be asked than annotators
reach. Intervals are bootstraps over items. Knows nothing of how a judge is asked.

Sources: Cohen (1960), Educ. Psychol. Meas. 20, kappa; Cohen (1968), Psychol. Bull. 70, its weights;
Zheng et al. (2023), arXiv 2306.05685, agreement with and without ties; Calderon, Reichart and Dror
(2025), arXiv 2501.10970, each annotator left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qwen_eval.paired import Array, Paired, difference

from .resampling import Estimate, percentiles, resampled_sums
from .votes import Unit, Vote, majorities, sign


@dataclass(frozen=True)
class JudgeAgreement:
    """On the `units` that both voted on. `same`: the share with the same outcome; `decided`: the
    same of those where neither says a tie, None where there are none. `kappa`: chance taken off,
    `weighted`: with a loss for a win twice as bad as a tie; None where both always say one thing.
    `beside`: over units with two annotators or more, how much more often the judge agrees with the
    rest than the annotator left out does, above zero where the judge does better; None where there
    are no such units."""

    units: int
    same: Estimate
    decided: Estimate | None
    kappa: Estimate | None
    weighted: Estimate | None
    beside: Paired | None


def judge_agreement(
    judge: Sequence[Vote], humans: Sequence[Vote], *, alpha: float = 0.05, seed: int = 0
) -> JudgeAgreement | None:
    """The judge's votes beside the annotators'. None where they have no unit in common."""
    said, most = majorities(judge), majorities(humans)
    common = [unit for unit in most if unit in said]
    if not common:
        return None
    items = {item: i for i, item in enumerate(sorted({unit[0] for unit in common}))}
    tables = np.zeros((len(items), 3, 3))
    for unit in common:
        tables[items[unit[0]], said[unit] + 1, most[unit] + 1] += 1
    flat = tables.reshape(len(items), 9)
    point, drawn = flat.sum(axis=0)[None], resampled_sums(flat, seed)

    def estimate(values: Array, resampled: Array) -> Estimate | None:
        return None if np.isnan(values[0]) else percentiles(float(values[0]), resampled, alpha)

    same = estimate(_same(point, ties=True), _same(drawn, ties=True))
    assert same is not None
    return JudgeAgreement(
        units=len(common),
        same=same,
        decided=estimate(_same(point, ties=False), _same(drawn, ties=False)),
        kappa=estimate(_kappas(point, 1 - np.eye(3)), _kappas(drawn, 1 - np.eye(3))),
        weighted=estimate(_kappas(point, _STEPS), _kappas(drawn, _STEPS)),
        beside=_beside(said, humans, alpha, seed),
    )


_STEPS = np.abs(np.subtract.outer(np.arange(3.0), np.arange(3.0)))


def _same(tables: Array, *, ties: bool) -> Array:
    """Lines of nine: judge × annotators, each lose, tie, win."""
    cells = tables.reshape(-1, 3, 3)
    if not ties:
        cells = cells[:, ::2, ::2]
    with np.errstate(invalid="ignore"):
        found: Array = np.trace(cells, axis1=1, axis2=2) / cells.sum(axis=(1, 2))
    return found


def _kappas(tables: Array, apart: Array) -> Array:
    """1 less the disagreement seen over that expected of the same margins; NaN without any."""
    cells = tables.reshape(-1, 3, 3)
    expected = np.einsum("tj,th,jh->t", cells.sum(axis=2), cells.sum(axis=1), apart)
    seen = cells.sum(axis=(1, 2)) * (cells * apart).sum(axis=(1, 2))
    found: Array = np.full(len(cells), np.nan)
    some = expected > 1e-9
    found[some] = 1 - seen[some] / expected[some]
    return found


def _beside(
    said: dict[Unit, int], humans: Sequence[Vote], alpha: float, seed: int
) -> Paired | None:
    outcomes: dict[Unit, dict[str, int]] = {}
    for vote in humans:
        own = outcomes.setdefault(vote.unit, {})
        own.setdefault(vote.annotator, vote.outcome_for(vote.unit[1]))
    by_item: dict[str, list[tuple[int, int]]] = {}
    for unit in sorted(outcomes):
        if unit not in said or len(outcomes[unit]) < 2:
            continue
        total = sum(outcomes[unit].values())
        for own_outcome in outcomes[unit].values():
            rest = sign(total - own_outcome)
            pair = int(own_outcome == rest), int(said[unit] == rest)
            by_item.setdefault(unit[0], []).append(pair)
    if not by_item:
        return None
    human, model = (
        [sum(pair[i] for pair in some) / len(some) for some in by_item.values()] for i in (0, 1)
    )
    weights = [float(len(some)) for some in by_item.values()]
    return difference(human, model, weights=weights, alpha=alpha, seed=seed)
