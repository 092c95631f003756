"""A Transformer whose call is the next token's loss, which pretraining and fine-tuning share."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer

from .batch import batch_of
from .cross_entropy import cross_entropy
from .feed import Part
from .parallel import World, share_out


class LanguageModel(nn.Module):
    """The loss is taken inside the call because FSDP has the head's weights together only there."""

    def __init__(self, config: ModelConfig, compiled: bool) -> None:
        super().__init__()
        self.transformer = Transformer(config)
        self._compiled = compiled

    def forward(self, part: Part, scale: float) -> Tensor:
        """The sum of a part's losses, in nats, times `scale`."""
        model = self.transformer
        device = model.embedding.weight.device
        documents = None if part.documents_BS is None else part.documents_BS.to(device)
        batch = batch_of(model.config, part.ids_BS.to(device), documents)
        targets_T = part.targets_BS.flatten().to(device)
        return cross_entropy(
            model.hidden(batch), model.head.weight, targets_T, scale, self._compiled
        )


def shared_model(
    config: ModelConfig,
    world: World,
    weights: Transformer | int,
    *,
    dtype: torch.dtype,
    compiled: bool,
    recompute: bool,
    adapt: Callable[[Transformer], None] | None = None,
) -> LanguageModel:
    """A model in fp32, cut over all processes (see parallel.share_out).

    weights: those of another model, or the seed to draw them from. They are drawn on the CPU from
    one generator, so they are the same on every machine and in every process. adapt: what is
    changed of the whole model before it is cut.
    """
    model = LanguageModel(config, compiled)
    if isinstance(weights, int):
        model.transformer.init_weights(torch.Generator().manual_seed(weights))
    else:
        model.transformer.load_state_dict(weights.state_dict())
    if adapt is not None:
        adapt(model.transformer)
    model.to(world.device)
    share_out(
        model,
        model.transformer.blocks,
        world,
        dtype=dtype,
        compiled=compiled,
        recompute=recompute,
    )
    return model


def flops_per_token(config: ModelConfig, length: int) -> float:
    """Floating-point operations of training on one token of a sequence of `length` tokens.

    Six for every weight of a matrix that it meets (two forward, four back), the head included and
    the embedding not, and for attention 6 L H D S: scores and sums over on average half of S keys.
    """
    q, kv = config.num_heads * config.head_dim, config.num_kv_heads * config.head_dim
    layer = config.hidden_size * (2 * q + 2 * kv + 3 * config.ffn_size)
    matrices = config.num_layers * layer + config.vocab_size * config.hidden_size
    return 6.0 * matrices + 6.0 * config.num_layers * q * length
