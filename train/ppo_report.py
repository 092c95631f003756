"""What a policy has gained, by its own reward model and by one that it was not trained on.

Replies to held-out prompts are drawn as in training. Beside the policies stands best-of-n: of n
replies of the base the one that the policy's reward model likes best, which costs no training and a
KL of ln n - (n - 1) / n at the most (Stiennon et al. 2020; Beirami et al. 2024 on the bound). Knows
nothing of command lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import torch

from qwen_eval.errors import UserError
from qwen_eval.model.engine import Sampling
from qwen_eval.model.transformer import Transformer
from qwen_eval.paired import difference
from qwen_eval.stats import mean_interval

from .parallel import World
from .policy import Policy
from .preferences import padded
from .queries import Query
from .rollout import Reply, Sampler, draw_seed
from .scalar_model import ScalarModel, rewards

# Sequences that a model reads at a time.
PART = 16


@dataclass(frozen=True)
class Drawn:
    """Replies to all prompts, one each, and what both reward models say of them: `rewards` those of
    the one that policies are trained on, `judged` those of the other."""

    replies: tuple[Reply, ...]
    rewards: tuple[float, ...]
    judged: tuple[float, ...]


@dataclass(frozen=True)
class Outcome:
    """A line of the report. low, high: a 95% interval of `judged`, the mean by the judge. gain and
    its interval: over the base, pair by pair, in standard deviations of the judge's rewards of the
    base's replies. kl: to the base, nats per reply; of best-of-n the bound. length: tokens."""

    name: str
    reward: float
    judged: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    kl: float
    length: float
    missing_end: float


@dataclass(frozen=True)
class Judges:
    """The reward model that policies are trained on, and one that they are not."""

    reward: ScalarModel
    judge: ScalarModel
    end: int

    @torch.no_grad()
    def read(self, replies: Sequence[Reply]) -> Drawn:
        """Their rewards. A reply without its end is judged as if it had ended where it stops.

        Raises UserError for a reward that is no finite number.
        """
        told: list[tuple[float, ...]] = []
        for model in (self.reward, self.judge):
            device = model.score.weight.device
            found: list[float] = []
            for start in range(0, len(replies), PART):
                lines = [
                    torch.tensor(reply.prompt + reply.ids + (() if reply.ended else (self.end,)))
                    for reply in replies[start : start + PART]
                ]
                ids_BS, ends_B = padded(lines)
                found += rewards(model, ids_BS.to(device), ends_B.to(device)).tolist()
            if not all(map(math.isfinite, found)):
                raise UserError("a reward model gives a reward that is no finite number")
            told.append(tuple(found))
        return Drawn(tuple(replies), *told)


def draw(
    model: Transformer,
    queries: Sequence[Query],
    sampling: Sampling,
    end: int,
    others: frozenset[int],
    *,
    seed: int,
    draws: int,
    advance: Callable[[int], None],
) -> list[list[Reply]]:
    """`draws` times a reply to every query. advance: told of replies as they are done."""
    world = World(0, 1, model.embedding.weight.device)
    sampler = Sampler(model, world, sampling, end=end, others=others)
    prompts = [query.ids for query in queries]
    found = []
    for number in range(draws):
        seeds = [draw_seed(seed, 0, query, number) for query in range(len(queries))]
        found.append(sampler.draw(prompts, seeds))
        advance(len(prompts))
    return found


@torch.no_grad()
def divergence(model: Transformer, base: Transformer, replies: Sequence[Reply]) -> float:
    """KL(model, base) in nats per reply, from the model's own replies: the mean over replies of
    what log-probabilities of the whole distributions differ by."""
    device, total = model.embedding.weight.device, 0.0
    for start in range(0, len(replies), PART):
        few = replies[start : start + PART]
        ids_BS, ends_B = padded([torch.tensor(reply.prompt + reply.ids) for reply in few])
        steps = torch.arange(ids_BS.shape[1] - 1)
        begins_B = torch.tensor([len(reply.prompt) for reply in few])
        asked_BT = (steps >= begins_B[:, None] - 1) & (steps < ends_B[:, None])
        mine, theirs = (
            _policy(each).log_probs(ids_BS.to(device), asked_BT.to(device))[0]
            for each in (model, base)
        )
        total += float((mine - theirs).sum())
    return total / len(replies)


def best_of(draws: Sequence[Drawn]) -> Drawn:
    """Of several replies to each prompt the one with the highest reward, the first of equals."""
    by_reply = zip(*(each.rewards for each in draws), strict=True)
    best = [told.index(max(told)) for told in by_reply]
    return Drawn(
        tuple(draws[at].replies[row] for row, at in enumerate(best)),
        tuple(draws[at].rewards[row] for row, at in enumerate(best)),
        tuple(draws[at].judged[row] for row, at in enumerate(best)),
    )


def best_of_kl(n: int) -> float:
    """The most that best-of-n can be away from the base, in nats."""
    return math.log(n) - (n - 1) / n


def matching(kl: float, most: int) -> int:
    """The n up to `most` whose best-of-n comes nearest to a KL."""
    return min(range(1, most + 1), key=lambda n: abs(best_of_kl(n) - kl))


def outcome(name: str, drawn: Drawn, base: Drawn, kl: float) -> Outcome:
    """The report's line. Raises ValueError for fewer than two prompts."""
    if len(drawn.judged) < 2:
        raise ValueError("a report needs two prompts or more")
    spread = stdev(base.judged) or 1.0
    gained = difference(base.judged, drawn.judged)
    lengths = [len(reply.ids) for reply in drawn.replies]
    return Outcome(
        name,
        fmean(drawn.rewards),
        fmean(drawn.judged),
        *mean_interval(drawn.judged),
        gained.delta / spread,
        gained.low / spread,
        gained.high / spread,
        kl,
        fmean(lengths),
        fmean(not reply.ended for reply in drawn.replies),
    )


def _policy(model: Transformer) -> Policy:
    """The same weights, which also say how likely replies are."""
    with torch.device("meta"):
        policy = Policy(model.config, False)
    policy.transformer = model
    return policy
