"""What recipes of training have in common, and the trainer that is made of them.

Knows nothing of what is trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.schema import Closed

from .checkpoint import Checkpoints
from .data.recipe import digest
from .language_model import LanguageModel, shared_model
from .loop import Callback, Loss, Stage, Trainer
from .optim import Optimiser, adamw
from .parallel import World

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
# Callbacks are made of the model, once its weights are shared out.
MakeCallbacks = Callable[[LanguageModel], tuple[Callback, ...]]


def no_callbacks(model: LanguageModel) -> tuple[Callback, ...]:
    """Nothing beside training."""
    return ()


class Training(Closed):
    """Keys of every recipe that trains.

    dtype: what is computed in. recompute: activations are computed twice instead of kept.
    save_every: steps between two states, the last `keep` of which stay.
    """

    seed: int = Field(0, ge=0, lt=1 << 63)
    optimiser: Optimiser = Field(default_factory=lambda: Optimiser.model_validate({}))
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    compile: bool = False
    recompute: bool = False
    save_every: int = Field(1000, ge=1)
    keep: int = Field(2, ge=1)

    def digest(self, *others: str) -> str:
        """A key of all that the weights depend on, but for the number of processes. others: keys of
        what is trained on and begun with."""
        said = self.model_dump(mode="json", exclude={"save_every", "keep", "compile", "recompute"})
        return digest(said, *others)

    def shared(
        self,
        config: ModelConfig,
        world: World,
        weights: Transformer | int,
        adapt: Callable[[Transformer], None] | None = None,
    ) -> LanguageModel:
        """A model as this recipe computes it; see language_model.shared_model."""
        return shared_model(
            config,
            world,
            weights,
            dtype=DTYPES[self.dtype],
            compiled=self.compile,
            recompute=self.recompute,
            adapt=adapt,
        )

    def trainer(
        self,
        model: nn.Module,
        loss: Loss,
        stages: Sequence[Stage],
        key: str,
        out: Path,
        world: World,
        callbacks: tuple[Callback, ...],
    ) -> Trainer:
        """A trainer that stands at the newest state in `out`, else at the model's weights.

        key: a digest of the run. Raises UserError for a state of another run, and where the number
        of processes does not divide a batch.
        """
        trainer = Trainer(
            model,
            loss,
            adamw(model, self.optimiser),
            self.optimiser,
            stages,
            world,
            Checkpoints(out / "states", key, self.keep, world),
            self.save_every,
            callbacks,
            self.seed,
        )
        trainer.resume()
        return trainer
