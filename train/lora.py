"""LoRA (Hu et al. 2021, arXiv 2106.09685) through peft: W + B A alpha / rank, W frozen.

Adapters sit on the linear layers of a Transformer's blocks. While it trains, peft's layers stand in
their place; what is written is merged, an ordinary model. Knows nothing of data or of the loop.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.model.transformer import Transformer
from qwen_eval.schema import Closed

Target = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# peft's names for what it puts in the place of a layer.
BASE, DOWN, UP = "base_layer.", "lora_A.default.weight", "lora_B.default.weight"


class Lora(Closed):
    """Adapters of a rank; the defaults are those of the released finetune.py. targets: the layers
    that have one, in every block."""

    rank: int = Field(64, ge=1)
    alpha: float = Field(16, gt=0)
    dropout: float = Field(0.05, ge=0, lt=1)
    targets: tuple[Target, ...] = Field(
        ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), min_length=1
    )

    @property
    def scale(self) -> float:
        """What B A is multiplied by."""
        return self.alpha / self.rank


def add_adapters(model: Transformer, lora: Lora, seed: int) -> None:
    """Freeze a model and give it adapters that change nothing yet: A is drawn from `seed`, B is 0.

    Raises UserError where peft is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora: needs peft; pip install 'qwen-eval[lora]'") from error
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=list(lora.targets),
    )
    model.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.endswith((DOWN, UP)))


def merged(weights: dict[str, Any], scale: float) -> dict[str, Tensor]:
    """Weights of a model with adapters as those of one without, each product added to its matrix.

    One that has no adapters stays as it is.
    """
    found = {}
    for name, weight in weights.items():
        if name.endswith((DOWN, UP)):
            continue
        layer, based, rest = name.partition(BASE)
        adds = scale * (weights[layer + UP] @ weights[layer + DOWN]) if rest == "weight" else 0
        found[layer + rest] = weight + adds if based else weight
    return found
