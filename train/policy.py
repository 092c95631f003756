"""A language model that also says how likely it finds the tokens of a reply.

The logits of a reply are never kept: a block of rows meets the vocabulary, and again on the way
back. Knows nothing of rewards.

Shapes: B sequences of S tokens, T = S - 1 steps that choose the next token, R steps asked for, E
hidden size, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.fsdp import register_fsdp_forward_method
from torch.utils.checkpoint import checkpoint

from qwen_eval.model.transformer import Transformer

from .batch import batch_of
from .cross_entropy import ROWS
from .language_model import LanguageModel
from .parallel import World, share_out


class Policy(LanguageModel):
    """Its call is still the loss of a text, which the pretraining gradient asks for."""

    def log_probs(self, ids_BS: Tensor, asked_BT: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T] the next token's log-probability and the entropy of its distribution, in nats.

        Both are of the whole distribution at temperature 1, in fp32, and 0 where asked_BT is not
        set. Only the log-probability has a gradient.
        """
        model = self.transformer
        hidden_TE = model.hidden(batch_of(model.config, ids_BS))
        rows_RE = hidden_TE.view(*ids_BS.shape, -1)[:, :-1][asked_BT]
        targets_R = ids_BS[:, 1:][asked_BT]
        size = ROWS.get(rows_RE.device.type, ROWS["cuda"])
        blocks = [
            checkpoint(_block, rows, model.head.weight, targets, use_reentrant=False)
            for rows, targets in zip(
                torch.split(rows_RE, size), torch.split(targets_R, size), strict=True
            )
        ]
        told = [torch.cat(parts) for parts in zip(*blocks, strict=True)]
        nothing_BT = torch.zeros(asked_BT.shape, device=rows_RE.device)
        logprobs_BT, entropies_BT = (nothing_BT.masked_scatter(asked_BT, part) for part in told)
        return logprobs_BT, entropies_BT


def _block(rows_RE: Tensor, head_VE: Tensor, targets_R: Tensor) -> tuple[Tensor, Tensor]:
    logprobs_RV = F.linear(rows_RE, head_VE).float().log_softmax(-1)
    with torch.no_grad():
        entropy_R = -(logprobs_RV.exp() * logprobs_RV).sum(-1)
    return logprobs_RV.gather(1, targets_R[:, None])[:, 0], entropy_R


def shared_policy(
    weights: Transformer, world: World, *, dtype: torch.dtype, compiled: bool, recompute: bool
) -> Policy:
    """A copy in fp32, cut over all processes (see parallel.share_out)."""
    policy = Policy(weights.config, compiled)
    policy.transformer.load_state_dict(weights.state_dict())
    policy.to(world.device)
    blocks = policy.transformer.blocks
    share_out(policy, blocks, world, dtype=dtype, compiled=compiled, recompute=recompute)
    register_fsdp_forward_method(policy, "log_probs")
    return policy
