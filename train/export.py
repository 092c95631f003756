"""A model in training as a checkpoint folder that every command reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import tokenizer_files
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import save_model

from .parallel import World
from .scalar_model import ScalarModel, save_scalar_model


@dataclass(frozen=True)
class Exporter:
    """Writes a model in training to a folder, which it replaces as a whole.

    dtype: of the weights there. tokenizer: a folder whose tokenizer is laid beside them. merge:
    makes the names and weights of an ordinary model of those that are trained.
    """

    model: Transformer | ScalarModel
    world: World
    dtype: torch.dtype
    tokenizer: Path | None
    merge: Callable[[dict[str, Any]], dict[str, Any]] = dict

    def __call__(self, folder: Path) -> None:
        """Write it; called in every process. Raises UserError if the disk refuses."""
        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        state = get_model_state_dict(self.model, options=options)
        with self.world.agreed():
            if self.world.rank != 0:
                return
            try:
                _write(self._whole(self.merge(state)), folder, self.tokenizer)
            except (OSError, SafetensorError) as error:
                raise UserError(
                    f"{folder}: the model could not be written "
                    f"({getattr(error, 'strerror', None) or error}); free some space and repeat "
                    "the same command"
                ) from error

    def _whole(self, state: dict[str, Any]) -> Transformer | ScalarModel:
        model: Transformer | ScalarModel
        with torch.device("meta"):
            if isinstance(self.model, ScalarModel):
                model = ScalarModel(self.model.transformer.config)
            else:
                model = Transformer(self.model.config)
        model.load_state_dict(state, assign=True)
        transformer = model.transformer if isinstance(model, ScalarModel) else model
        if transformer.config.tied:
            transformer.head.weight = transformer.embedding.weight
        return model.to(self.dtype)


def _write(model: Transformer | ScalarModel, folder: Path, tokenizer: Path | None) -> None:
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    if isinstance(model, ScalarModel):
        save_scalar_model(model, part)
    else:
        save_model(model, part)
    if tokenizer is not None:
        for path in tokenizer_files(tokenizer):
            shutil.copyfile(path, part / path.name)
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
