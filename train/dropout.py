"""Dropout for fine-tuning, put on a Transformer from outside: inference knows nothing of it.

The paper fine-tunes with dropout of 0.1 and does not say where (section 3.1). Here it is what
Vaswani et al. 2017 (section 5.4) call residual dropout: on the embeddings, and on what every layer
of attention and every feed-forward layer adds to the stream. What is drawn depends on PyTorch's
generator alone, which the loop sets anew for every step.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from qwen_eval.model.transformer import Attention, SwiGLU, Transformer


def add_dropout(model: Transformer, share: float) -> None:
    """While the model trains, zero a share of each of these outputs, and scale up what is left."""
    for layer in model.modules():
        if isinstance(layer, nn.Embedding | Attention | SwiGLU):
            layer.register_forward_hook(partial(_drop, share))


def _drop(share: float, layer: nn.Module, given: Any, out: Tensor) -> Tensor:
    return F.dropout(out, share, layer.training)
