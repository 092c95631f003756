"""What a reward model is worth on held-out pairs, and what it owes to the answers' lengths.

The accuracy is the share of pairs whose preferred answer gets the higher reward, as in the paper's
Table 4. The paper does not say what a tie counts; here it is half a pair, what a coin would make of
it. Knows nothing of command lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from pydantic import Field, RootModel, model_validator

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.schema import parse, read_text
from qwen_eval.stats import wilson_interval

from .preferences import EncodedPair, padded
from .reward import Pairs
from .scalar_model import ScalarModel, rewards

# Tokens that a model judges at a time, filled-up places included.
TOKENS = 8192


class RewardSets(RootModel[dict[str, Pairs]]):
    """Held-out pairs by the name of their set."""

    root: dict[str, Pairs] = Field(min_length=1)

    @model_validator(mode="after")
    def _named(self) -> Self:
        if any(not name.strip() for name in self.root):
            raise ValueError("a set needs a name")
        return self


def read_reward_sets(path: Path) -> dict[str, Pairs]:
    """Read a file of sets. Raises UserError with file, line and key for the first mistake."""
    return parse(read_text(path), path, RewardSets).root


@dataclass(frozen=True)
class Judged:
    """A pair's rewards, and the tokens of its two answers without their ends."""

    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    @property
    def right(self) -> float:
        """1 where the preferred answer has the higher reward, 0 where the other, ½ for a tie."""
        return _sign(self.chosen - self.rejected)

    @property
    def chosen_longer(self) -> float:
        """1 where the preferred answer is the longer, 0 where the other is, ½ for a tie."""
        return _sign(self.chosen_tokens - self.rejected_tokens)


def judge(
    model: ScalarModel, pairs: Sequence[EncodedPair], advance: Callable[[int], None]
) -> list[Judged]:
    """Rewards of pairs, in their order. advance: told of pairs as they are done.

    Raises UserError for a reward that is no finite number.
    """
    device = model.score.weight.device
    found: dict[int, Judged] = {}
    for places in _by_length(pairs):
        some = [pairs[place] for place in places]
        ids_BS, ends_B = padded([p.chosen_ids for p in some] + [p.rejected_ids for p in some])
        with torch.inference_mode():
            told = rewards(model, ids_BS.to(device), ends_B).tolist()
        for place, pair, chosen, rejected in zip(
            places, some, told[: len(some)], told[len(some) :], strict=True
        ):
            if not (math.isfinite(chosen) and math.isfinite(rejected)):
                raise UserError(f"the rewards of {pair.pair.named} are {chosen} and {rejected}")
            found[place] = Judged(chosen, rejected, *pair.tokens)
        advance(len(some))
    return [found[place] for place in range(len(pairs))]


def _by_length(pairs: Sequence[EncodedPair]) -> Iterator[list[int]]:
    """Places of pairs to judge together: of like length, of TOKENS tokens, or a single one."""
    longest = [max(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs]
    group: list[int] = []
    for place in sorted(range(len(pairs)), key=longest.__getitem__):
        if group and 2 * (len(group) + 1) * longest[place] > TOKENS:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def drawn(pairs: Sequence[EncodedPair], most: int | None) -> list[EncodedPair]:
    """At most so many of them: a draw that their texts fix, whatever their order."""
    if most is None or len(pairs) <= most:
        return list(pairs)
    return sorted(pairs, key=lambda p: text_hash(f"{p.pair.chosen}\n\n{p.pair.rejected}"))[:most]


@dataclass(frozen=True)
class SetReport:
    """One model on one set of n pairs; all but the correlation are shares.

    low, high: Wilson's 95% interval of the accuracy. ties: pairs with equal rewards. correlation:
    Pearson's, of the reward of an answer with its tokens, over all answers. unequal: pairs whose
    answers differ in length, and of them: longer_by_reward, longer_by_people, where the longer
    answer is preferred. shorter: pairs whose preferred answer is the shorter, with the accuracy on
    them. None stands for what no pair says anything of.
    """

    n: int
    accuracy: float
    low: float
    high: float
    ties: int
    correlation: float | None
    unequal: int
    longer_by_reward: float | None
    longer_by_people: float | None
    shorter: int
    shorter_accuracy: float | None


def report_of(judged: Sequence[Judged]) -> SetReport:
    """The figures of one set. ValueError for one without pairs."""
    right = math.fsum(pair.right for pair in judged)
    low, high = wilson_interval(right, len(judged))
    unequal = [pair for pair in judged if pair.chosen_longer != 0.5]
    shorter = [pair for pair in unequal if pair.chosen_longer == 0]
    # Right and longer, or wrong and shorter: the reward prefers the longer one.
    by_reward = [p.right if p.chosen_longer else 1 - p.right for p in unequal]
    return SetReport(
        n=len(judged),
        accuracy=right / len(judged),
        low=low,
        high=high,
        ties=sum(pair.right == 0.5 for pair in judged),
        correlation=_correlation(
            [r for pair in judged for r in (pair.chosen, pair.rejected)],
            [float(t) for pair in judged for t in (pair.chosen_tokens, pair.rejected_tokens)],
        ),
        unequal=len(unequal),
        longer_by_reward=_mean(by_reward),
        longer_by_people=_mean([pair.chosen_longer for pair in unequal]),
        shorter=len(shorter),
        shorter_accuracy=_mean([pair.right for pair in shorter]),
    )


def _sign(difference: float) -> float:
    return 0.5 if difference == 0 else float(difference > 0)


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None


def _correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    apart = [(a - mean_x, b - mean_y) for a, b in zip(x, y, strict=True)]
    size_x, size_y = math.fsum(a * a for a, _ in apart), math.fsum(b * b for _, b in apart)
    if not (size_x and size_y):
        return None
    return math.fsum(a * b for a, b in apart) / math.sqrt(size_x * size_y)
