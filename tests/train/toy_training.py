"""A packed corpus and a recipe of toy size, and a training run on them."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen_eval.model.config import ModelConfig
from qwen_eval.train.data import pack
from qwen_eval.train.data.mixture import order
from qwen_eval.train.data.shards import beside, load_array
from qwen_eval.train.loop import Step, Trainer
from qwen_eval.train.parallel import World
from qwen_eval.train.pretrain import Pretraining, open_corpus, prepare, read_pretraining
from tests.model.toy_folder import CHATML, toy_tokenizer
from tests.train.corpora import english

LENGTH = 32
RECIPE: dict[str, Any] = {
    "seed": 5,
    "model": {
        "family": "qwen",
        "vocab_size": 259,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "ffn_size": 48,
    },
    "stages": [{"length": 16, "tokens": 6 * 128}, {"length": 32, "tokens": 4 * 128}],
    "batch_tokens": 128,
    "part_tokens": 64,
    "optimiser": {"learning_rate": 1e-2, "warmup_steps": 3},
    "dtype": "float32",
    "save_every": 2,
}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]


def write_packed(
    folder: Path, *, documents: int = 30, length: int = LENGTH, seed: int = 1, readable: bool = True
) -> Path:
    """Made-up English in `folder`, packed. readable: with a tokenizer of 259 tokens, else bytes."""
    folder.mkdir(parents=True)
    name = "bytes"
    if readable:
        name = str(folder.parent / f"{folder.name}-tokenizer")
        Path(name).mkdir()
        toy_tokenizer(Path(name), specials=CHATML, eos_token="<|endoftext|>")
    encoder, rng = pack.open_encoder(name), random.Random(seed)
    texts = (english(rng, rng.randint(1, 30)) for _ in range(documents))
    stem = folder / "text.00000"
    pack.tokenise(stem, iter((i, text, 0) for i, text in enumerate(texts, 1)), encoder)
    rows = order([load_array(beside(stem, ".table.npy"))], [1.0], seed, 1 << 28)
    content = pack.pack(folder, [stem], rows, encoder, length, 8)
    pack.copy_tokenizer(name, folder)
    pack.write_manifest(folder, encoder, length, content | {"key": f"toy-{seed}"})
    return folder


def write_recipe(path: Path, model: dict[str, Any] | None = None, **changes: Any) -> Path:
    """RECIPE with some of its keys changed, those of the model one by one."""
    said = RECIPE | changes | {"model": RECIPE["model"] | (model or {})}
    path.write_text(json.dumps(said))
    return path


def recipe_of(folder: Path, model: dict[str, Any] | None = None, **changes: Any) -> Pretraining:
    """The same, read."""
    return read_pretraining(write_recipe(folder / "recipe.yaml", model, **changes))


class Steps:
    """A callback that keeps what it was told."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.ended = False

    def after_step(self, trainer: Trainer, step: Step) -> None:
        self.steps.append(step)

    def at_end(self, trainer: Trainer) -> None:
        self.ended = True

    @property
    def losses(self) -> list[float]:
        return [step.loss for step in self.steps]


def trainer_of(recipe: Pretraining, corpus: Path, out: Path, world: World) -> tuple[Trainer, Steps]:
    """A trainer that stands where `out` says."""
    steps = Steps()
    return prepare(recipe, open_corpus(corpus, recipe), out, world, lambda model: (steps,)), steps


def whole_weights(trainer: Trainer) -> dict[str, Tensor]:
    """fp32 copies of all weights, not shared out."""
    weights = trainer.model.state_dict()
    return {
        name: (w.full_tensor() if hasattr(w, "full_tensor") else w).detach().clone()
        for name, w in weights.items()
    }


def family(name: str, **changes: Any) -> ModelConfig:
    """Two layers of hidden size 32, with fewer key-value heads where the family may."""
    heads = {"num_heads": 4, "num_kv_heads": 4 if name == "qwen" else 2, "head_dim": 8}
    bias, norm = name in ("qwen", "qwen2"), name == "qwen3"
    sizes = {"vocab_size": 257, "hidden_size": 32, "num_layers": 2, "ffn_size": 48}
    said: dict[str, Any] = {"family": name, **sizes, **heads, "qkv_bias": bias, "qk_norm": norm}
    return ModelConfig(**{**said, "max_length": 64, "trained_length": 64, **changes})


def bits(weights: dict[str, Tensor]) -> dict[str, bytes]:
    """For a comparison in which nothing is near."""
    return {name: w.contiguous().view(torch.uint8).numpy().tobytes() for name, w in weights.items()}
