"""AdamW as the paper sets it up, and its learning rate over the steps (section 2.4)."""

from __future__ import annotations

import math
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from qwen_eval.schema import Closed


class Optimiser(Closed):
    """AdamW's settings; the paper's are the defaults.

    learning_rate: at its peak. warmup_steps: up to it, or warmup_share: as a share of all steps.
    final: the share of it that is left at the end, 1 for a rate that stays. weight_decay: on
    matrices only. clip: largest norm of all gradients together.
    """

    learning_rate: float = Field(3e-4, gt=0)
    beta1: float = Field(0.9, ge=0, lt=1)
    beta2: float = Field(0.95, ge=0, lt=1)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.1, ge=0)
    clip: float = Field(1.0, gt=0)
    warmup_steps: int = Field(0, ge=0)
    warmup_share: float = Field(0.0, ge=0, le=1)
    final: float = Field(0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps and self.warmup_share:
            raise ValueError("warmup_steps or warmup_share, not both")
        return self

    def warmup(self, steps: int) -> int:
        """Steps up to the peak, of a run of so many."""
        return self.warmup_steps or round(self.warmup_share * steps)


def adamw(model: nn.Module, settings: Optimiser) -> torch.optim.AdamW:
    """Two groups: matrices, which decay, and biases and norms, which do not. What is frozen is in
    neither."""
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.dim() > 1]
    others = [p for p in trained if p.dim() <= 1]
    return torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": settings.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        eps=settings.eps,
        fused=True,
    )


def begin(optimiser: torch.optim.AdamW) -> None:
    """Moments of zero for all weights. A state that is saved before an optimiser's first step holds
    these; PyTorch would make some by taking a step, and count it."""
    for group in optimiser.param_groups:
        for weight in group["params"]:
            if weight.requires_grad:
                optimiser.state[weight] = {
                    "step": torch.zeros((), device=weight.device),
                    "exp_avg": torch.zeros_like(weight),
                    "exp_avg_sq": torch.zeros_like(weight),
                }


def learning_rate(settings: Optimiser, step: int, steps: int) -> float:
    """Of the step with this number, from 1: a line up to the peak, then half a cosine down to
    `final` of it at the last step."""
    warmup = settings.warmup(steps)
    if step <= warmup:
        return settings.learning_rate * step / warmup
    done = (step - warmup) / max(1, steps - warmup)
    low = settings.final
    return settings.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * min(done, 1))) / 2)
