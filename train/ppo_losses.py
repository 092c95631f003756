"""What PPO computes besides models: rewards of tokens, advantages, and the two clipped losses.

A reply is a walk: at step t it has read the tokens up to t and chooses the next one. Its steps lie
side by side in a mask; what the mask leaves out, prompt and padding, counts nowhere. Losses are
sums over steps, so that parts of a batch add up, whoever computes them. Knows nothing of models.

Sources: Schulman et al. 2016 (GAE) and 2017 (clipping); Ouyang et al. 2022 (the KL in the reward).
Shapes: B replies, T steps. mask_BT: bool, in each row one run without a gap.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kl_of_tokens(logprobs_BT: Tensor, reference_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """log policy - log reference of the tokens that were drawn: of the policy's own draws, its mean
    is the KL divergence (the estimator k1 of Schulman 2020), though one token's may be negative."""
    return torch.where(mask_BT, logprobs_BT - reference_BT, 0.0)


def token_rewards(kl_BT: Tensor, scores_B: Tensor, mask_BT: Tensor, coefficient: float) -> Tensor:
    """-coefficient x KL at every step, and a reply's score at the step that chose its last one."""
    rewards_BT = -coefficient * kl_BT
    steps = torch.arange(mask_BT.shape[1], device=mask_BT.device)
    last_B = torch.where(mask_BT, steps, -1).amax(1)
    rewards_BT[torch.arange(len(last_B), device=last_B.device), last_B] += scores_B
    return rewards_BT


def advantages(
    rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, gamma: float, lambda_: float
) -> tuple[Tensor, Tensor]:
    """Generalised advantages and returns (advantage + value) of every step, 0 outside the mask.

    Behind a reply's last step nothing is to be had: its value is 0 there.
    """
    advantages_BT = torch.zeros_like(values_BT)
    after_B = torch.zeros_like(values_BT[:, 0])
    value_after_B = torch.zeros_like(after_B)
    for t in reversed(range(values_BT.shape[1])):
        surprise_B = rewards_BT[:, t] + gamma * value_after_B - values_BT[:, t]
        inside_B = mask_BT[:, t]
        after_B = torch.where(inside_B, surprise_B + gamma * lambda_ * after_B, 0.0)
        value_after_B = torch.where(inside_B, values_BT[:, t], 0.0)
        advantages_BT[:, t] = after_B
    return advantages_BT, torch.where(mask_BT, advantages_BT + values_BT, 0.0)


def sums(values: Tensor, mask: Tensor) -> tuple[float, float, float]:
    """(count, sum, sum of squares) of what the mask leaves in; fp64, so that those of several
    processes can be added up."""
    inside = values[mask].double()
    return float(inside.numel()), float(inside.sum()), float(inside.pow(2).sum())


def spread(count: float, total: float, squares: float) -> tuple[float, float]:
    """(mean, standard deviation) from `sums`; (0, 0) of nothing."""
    if count == 0:
        return 0.0, 0.0
    mean = total / count
    return mean, max(0.0, squares / count - mean**2) ** 0.5


def whitened(values_BT: Tensor, mask_BT: Tensor, mean: float, deviation: float) -> Tensor:
    """Mean 0 and standard deviation 1 where the mask says so, 0 elsewhere."""
    return torch.where(mask_BT, (values_BT - mean) / (deviation + 1e-8), 0.0)


def policy_loss(
    logprobs_BT: Tensor, old_BT: Tensor, advantages_BT: Tensor, mask_BT: Tensor, clip: float
) -> tuple[Tensor, Tensor]:
    """(the sum over steps of -min(ratio A, clipped ratio A), how many steps the clip decides).

    old_BT: log-probabilities when the replies were drawn. clip: how far from 1 the ratio counts.
    """
    # Outside the mask both are 0 already; a difference there must not overflow either.
    ratio_BT = torch.where(mask_BT, logprobs_BT - old_BT, 0.0).exp()
    free_BT = -advantages_BT * ratio_BT
    held_BT = -advantages_BT * ratio_BT.clamp(1 - clip, 1 + clip)
    loss = torch.where(mask_BT, torch.maximum(free_BT, held_BT), 0.0).sum()
    return loss, ((held_BT > free_BT) & mask_BT).sum()


def value_loss(
    values_BT: Tensor, old_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor, clip: float
) -> Tensor:
    """The sum over steps of half the larger squared error: of the value, and of the value kept
    within `clip` of what it was when the replies were drawn."""
    held_BT = old_BT + (values_BT - old_BT).clamp(-clip, clip)
    worse_BT = torch.maximum((values_BT - returns_BT) ** 2, (held_BT - returns_BT) ** 2)
    return 0.5 * torch.where(mask_BT, worse_BT, 0.0).sum()
