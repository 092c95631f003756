"""A Transformer that says one number at every token: a reward model or a value model.

On disk it is the folder of an ordinary checkpoint, whose head is left as it was, with
`score.safetensors` beside it. Knows nothing of losses or of what the numbers mean.

Shapes: B sequences of S tokens, E hidden size.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model, save_model

from . import language_model
from .batch import batch_of
from .parallel import World, share_out

SCORE = "score.safetensors"
# The key under which transformers' ...ForSequenceClassification keeps the same matrix.
KEY = "score.weight"


class ScalarModel(nn.Module):
    """The score is a matrix [1, E] without bias over what the head would read."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.transformer = Transformer(config)
        self.score = nn.Linear(config.hidden_size, 1, bias=False)
        if not config.tied:
            self.transformer.head.requires_grad_(False)

    def forward(self, ids_BS: Tensor, documents_BS: Tensor | None = None) -> Tensor:
        """[B, S] numbers in fp32, one at every token, each of what stands up to it.

        documents_BS: tokens attend only to those of the same number; None for all before them.
        """
        model = self.transformer
        device = model.embedding.weight.device
        documents = None if documents_BS is None else documents_BS.to(device)
        batch = batch_of(model.config, ids_BS.to(device), documents)
        values: Tensor = self.score(model.hidden(batch)).float()
        # No view leaves the call: what FSDP hangs on it for the way back would be lost with it.
        return values.view(ids_BS.shape).clone()


def rewards(model: ScalarModel, ids_BS: Tensor, ends_B: Tensor) -> Tensor:
    """[B]: the number at the place `ends_B` of each sequence, where the <|im_end|> of the answer
    stands that is judged (see preferences.judged_ids). What stands behind it changes nothing."""
    values_BS: Tensor = model(ids_BS)
    return values_BS.gather(1, ends_B.to(values_BS.device)[:, None])[:, 0]


def scalar_model(weights: Transformer | ScalarModel, seed: int) -> ScalarModel:
    """A copy in fp32. Of a language model, the score is drawn from `seed` with a standard deviation
    of 1 / sqrt(E + 1), so that numbers begin about as large as 1 (Stiennon et al. 2020)."""
    config = (weights if isinstance(weights, Transformer) else weights.transformer).config
    model = ScalarModel(config)
    if isinstance(weights, ScalarModel):
        model.load_state_dict(weights.state_dict())
        return model
    model.transformer.load_state_dict(weights.state_dict())
    std = (config.hidden_size + 1) ** -0.5
    nn.init.normal_(model.score.weight, 0.0, std, generator=torch.Generator().manual_seed(seed))
    return model


def shared_scalar_model(
    model: ScalarModel, world: World, *, dtype: torch.dtype, compiled: bool, recompute: bool
) -> ScalarModel:
    """The same model, cut over all processes (see parallel.share_out)."""
    model.to(world.device)
    blocks = model.transformer.blocks
    share_out(model, blocks, world, dtype=dtype, compiled=compiled, recompute=recompute)
    return model


def flops_per_token(config: ModelConfig, length: int) -> float:
    """As language_model.flops_per_token counts, without the head, which scores nothing."""
    return language_model.flops_per_token(config, length) - 6.0 * (
        config.vocab_size * config.hidden_size
    )


def save_scalar_model(model: ScalarModel, folder: Path) -> None:
    """Write a whole model's folder, without a tokenizer."""
    save_model(model.transformer, folder)
    save_file({KEY: model.score.weight.detach().contiguous()}, folder / SCORE)


def load_scalar_model(folder: Path) -> ScalarModel:
    """A model of a folder, in fp32. Raises UserError for one that says no numbers."""
    path = folder / SCORE
    if not path.exists():
        raise UserError(
            f"{folder}: no reward model ({SCORE} is missing); `qwen-eval train reward` makes one"
        )
    transformer = load_model(folder)
    try:
        with safe_open(path, framework="pt") as opened:
            score = opened.get_tensor(KEY)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: truncated or not safetensors ({error})") from error
    model = ScalarModel(transformer.config)
    if score.shape != model.score.weight.shape:
        raise UserError(
            f"{path}: {KEY} has shape {list(score.shape)}, the model asks for "
            f"{list(model.score.weight.shape)}"
        )
    model.transformer.load_state_dict(transformer.state_dict())
    model.score.load_state_dict({"weight": score.float()})
    return model
