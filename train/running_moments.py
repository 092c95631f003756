"""Mean and spread of all rewards seen so far: part of a run's state, saved with its weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .ppo_losses import spread


class RunningMoments(nn.Module):
    """A module, so that its sums (count, sum, sum of squares; fp64) travel in its state."""

    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("sums", torch.zeros(3, dtype=torch.float64))

    def add(self, count: float, total: float, squares: float) -> None:
        """More rewards, as ppo_losses.sums tells of them."""
        self.sums += torch.tensor([count, total, squares], dtype=torch.float64)

    def normalised(self, rewards_B: Tensor, *, divide: bool) -> Tensor:
        """Less the mean; divide: and in standard deviations, where there is any spread."""
        mean, deviation = spread(*self.sums.tolist())
        shifted_B = rewards_B - mean
        return shifted_B / deviation if divide and deviation > 0 else shifted_B
