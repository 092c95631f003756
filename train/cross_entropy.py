"""The next token's cross-entropy without the table of all logits.

A block of rows meets the vocabulary, its loss is taken, and its gradient is computed at once, while
its logits are still near the processor; what is kept is as large as the hidden states and the head.
The table itself, rows x vocabulary in fp32, never exists. Knows nothing of models.

Shapes: T rows, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows that meet the vocabulary together: the fastest of 128 to 2,048 on a CPU; a GPU wants more.
ROWS = {"cpu": 512, "cuda": 4096}
# A target that asks for nothing.
IGNORED = -100

# (hidden, head, targets, scale) -> (sum of the losses times scale, gradient of the logits)
Block = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def cross_entropy(
    hidden_TE: Tensor, head_VE: Tensor, targets_T: Tensor, scale: float, compiled: bool = False
) -> Tensor:
    """The sum over all rows of -log softmax(head hidden)[target], times `scale`; fp32, no shape.

    Rows whose target is IGNORED count nothing. The logits are products in hidden's dtype, all else
    is fp32. The gradient is that of `scale` times the sum, computed on the way forward.
    """
    out: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_TE, head_VE, targets_T, scale, compiled
    )
    return out


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, scale: float, compiled: bool
    ) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        block = _compiled() if compiled else _block
        rows = ROWS.get(hidden.device.type, ROWS["cuda"])
        factor = torch.tensor(scale, device=hidden.device)
        loss = torch.zeros((), device=hidden.device)
        to_hidden = torch.empty_like(hidden) if wanted else hidden
        to_head = torch.zeros(head.shape, device=head.device) if wanted else head
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            part_loss, to_logits = block(part, head, targets[start : start + rows], factor)
            loss += part_loss
            if wanted:
                to_hidden[start : start + rows] = to_logits @ head
                to_head += to_logits.T @ part
        if wanted:
            ctx.save_for_backward(to_hidden, to_head.to(head.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_hidden, to_head = ctx.saved_tensors
        return to_hidden * gradients[0], to_head * gradients[0], None, None, None


def _block(hidden: Tensor, head: Tensor, targets: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    logits = F.linear(hidden, head).float()
    asked = (targets != IGNORED)[:, None]
    gold_at = targets.clamp(min=0)[:, None]
    normaliser = logits.logsumexp(1, keepdim=True)
    loss = ((normaliser - logits.gather(1, gold_at)) * asked).sum() * scale
    weight = asked * scale
    share = (logits - normaliser).exp() * weight
    is_gold = torch.arange(logits.shape[1], device=logits.device) == gold_at
    return loss, torch.where(is_gold, share - weight, share).to(hidden.dtype)


@lru_cache(maxsize=1)
def _compiled() -> Block:
    return torch.compile(_block, dynamic=False)
