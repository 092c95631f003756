"""The loss of a reward model on pairs (Bradley and Terry 1952; Christiano et al. 2017).

    -log sigmoid(r_c - r_r - m)  +  c (r_c + r_r)²

with the rewards r_c of the preferred answer and r_r of the other. m, the pair's margin, asks for
more distance where one answer is much better (Touvron et al. 2023, section 3.2.2). The second term
keeps rewards about 0, which the first leaves open (Eisenstein et al. 2023, eq. 1); both are off
at 0. Knows nothing of where rewards come from.

Shapes: P pairs.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def preference_losses(
    chosen_P: Tensor, rejected_P: Tensor, margins_P: Tensor, centring: float
) -> Tensor:
    """[P]: the loss of each pair of rewards."""
    losses_P = -F.logsigmoid(chosen_P - rejected_P - margins_P)
    return losses_P + centring * (chosen_P + rejected_P) ** 2
