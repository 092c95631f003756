"""Started by torchrun: what a process holds of a model in training, and the state it saves."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor

from qwen_eval.model.config import ModelConfig
from qwen_eval.train.checkpoint import Checkpoints
from qwen_eval.train.feed import Part
from qwen_eval.train.language_model import LanguageModel
from qwen_eval.train.optim import Optimiser, adamw
from qwen_eval.train.parallel import joined, share_out


def main(out: Path, config: ModelConfig) -> None:
    with joined() as world:
        model = LanguageModel(config, compiled=False)
        model.transformer.init_weights(torch.Generator().manual_seed(0))
        blocks = model.transformer.blocks
        share_out(model, blocks, world, dtype=torch.bfloat16, compiled=False, recompute=False)
        optimiser = adamw(model, Optimiser.model_validate({}))
        ids = torch.arange(32).view(2, 16)
        torch.autograd.backward(model(Part(ids, ids, None), 1.0))
        gradients = bytes_of(p.grad for p in model.parameters())
        optimiser.step()
        moments = [s[key] for s in optimiser.state.values() for key in ("exp_avg", "exp_avg_sq")]
        held = {"weights": bytes_of(model.parameters()), "AdamW": bytes_of(moments)}
        held["gradients"] = gradients
        (out / f"{world.rank}.json").write_text(json.dumps(held))
        Checkpoints(out / "states", "test", 1, world).save(1, model, optimiser)


def bytes_of(tensors) -> int:
    """Of this process's shares."""
    total = 0
    for tensor in tensors:
        assert isinstance(tensor, DTensor)
        total += tensor.to_local().nbytes
    return total


if __name__ == "__main__":
    main(Path(sys.argv[1]), ModelConfig(**json.loads(sys.argv[2])))
