"""What one step of PPO learns from: replies, what the four models say of them, and advantages.

Shapes: B replies of S tokens with their prompts, T = S - 1 steps that choose the next token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .parallel import World
from .policy import Policy
from .ppo_losses import advantages, kl_of_tokens, spread, sums, token_rewards, whitened
from .preferences import padded
from .rollout import Reply
from .running_moments import RunningMoments
from .scalar_model import ScalarModel, rewards

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Models:
    """Policy and value are trained; the reference is what the policy began as."""

    policy: Policy
    value: ScalarModel
    reference: Policy
    reward: ScalarModel


@dataclass(frozen=True)
class RewardSettings:
    """How rewards of tokens, and advantages, come of what the models say; see ppo.PPO."""

    kl: float
    missing_end: float
    divide: bool
    gamma: float
    gae_lambda: float


@dataclass(frozen=True)
class Readings:
    """What the models say of replies, before anything is learnt. logprobs, reference, entropies and
    values are 0 where mask_BT is not set; rewards_B is 0 where a reply has no end token."""

    ids_BS: Tensor
    mask_BT: Tensor
    ended_B: Tensor
    logprobs_BT: Tensor
    entropies_BT: Tensor
    reference_BT: Tensor
    values_BT: Tensor
    rewards_B: Tensor


@dataclass(frozen=True)
class Experience:
    """What is learnt from, as it was when the replies were drawn."""

    ids_BS: Tensor
    mask_BT: Tensor
    logprobs_BT: Tensor
    values_BT: Tensor
    advantages_BT: Tensor
    returns_BT: Tensor

    def parts(self, rows: Sequence[int], size: int) -> Iterator[Experience]:
        """These rows, `size` at a time, each part no longer than its longest reply."""
        for start in range(0, len(rows), size):
            at = torch.tensor(rows[start : start + size], device=self.ids_BS.device)
            steps = int(self.mask_BT[at].any(0).nonzero().max()) + 1
            cut = {one.name: getattr(self, one.name)[at, :steps] for one in fields(self)}
            yield Experience(**cut | {"ids_BS": self.ids_BS[at, : steps + 1]})


@torch.no_grad()
def read(models: Models, replies: Sequence[Reply], part: int, device: torch.device) -> Readings:
    """All models read all replies, `part` at a time."""
    lines = [torch.tensor(reply.prompt + reply.ids) for reply in replies]
    ids_BS, ends_B = (told.to(device) for told in padded(lines))
    begins_B = torch.tensor([len(reply.prompt) for reply in replies], device=device)
    steps = torch.arange(ids_BS.shape[1] - 1, device=device)
    mask_BT = (steps >= begins_B[:, None] - 1) & (steps < ends_B[:, None])
    ended_B = torch.tensor([reply.ended for reply in replies], device=device)
    columns: list[tuple[Tensor, ...]] = []
    for start in range(0, len(replies), part):
        few = slice(start, start + part)
        ids, mask = ids_BS[few], mask_BT[few]
        values = models.value(ids)[:, :-1]
        columns.append(
            (
                *models.policy.log_probs(ids, mask),
                models.reference.log_probs(ids, mask)[0],
                torch.where(mask, values, 0.0),
                # What stands where a reply was cut off is no end, and says nothing.
                torch.where(ended_B[few], rewards(models.reward, ids, ends_B[few]), 0.0),
            )
        )
    return Readings(ids_BS, mask_BT, ended_B, *map(torch.cat, zip(*columns, strict=True)))


def experience(
    readings: Readings, moments: RunningMoments, settings: RewardSettings, world: World
) -> tuple[Experience, Figures]:
    """Rewards of tokens, advantages of the replies of all processes with mean 0 and deviation 1,
    and figures of the replies for the log. The rewards are counted among those seen."""
    mask_BT, ended_B, values_BT = readings.mask_BT, readings.ended_B, readings.values_BT
    counted = world.sum(*sums(readings.rewards_B, ended_B))
    moments.add(*counted)
    normalised_B = moments.normalised(readings.rewards_B, divide=settings.divide)
    scores_B = torch.where(ended_B, normalised_B, settings.missing_end)
    kl_BT = kl_of_tokens(readings.logprobs_BT, readings.reference_BT, mask_BT)
    rewards_BT = token_rewards(kl_BT, scores_B, mask_BT, settings.kl)
    raw_BT, returns_BT = advantages(
        rewards_BT, values_BT, mask_BT, settings.gamma, settings.gae_lambda
    )
    white_BT = whitened(raw_BT, mask_BT, *spread(*world.sum(*sums(raw_BT, mask_BT))))
    made = Experience(
        readings.ids_BS, mask_BT, readings.logprobs_BT, values_BT, white_BT, returns_BT
    )
    told = (float(x.sum()) for x in (scores_B, kl_BT, readings.entropies_BT, mask_BT, ended_B))
    replies, scores, kl, entropy, tokens, ended = world.sum(len(scores_B), *told)
    varied = spread(*world.sum(*sums(returns_BT, mask_BT)))[1]
    missed = spread(*world.sum(*sums(returns_BT - values_BT, mask_BT)))[1]
    figures: Figures = {
        "reward": counted[1] / counted[0] if counted[0] else None,
        "score": scores / replies,
        "kl": kl / replies,
        "kl_per_token": kl / tokens,
        "entropy": entropy / tokens,
        "length": tokens / replies,
        "missing_end": 1 - ended / replies,
        "explained_variance": 1 - (missed / varied) ** 2 if varied > 0 else None,
    }
    return made, figures
