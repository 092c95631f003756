"""A fine-tuning run of toy size, on a few made-up conversations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.conversations import Turns
from qwen_eval.train.loop import Trainer
from qwen_eval.train.parallel import World
from qwen_eval.train.sft import FineTuning, Gathered, lay_out, prepare, read_fine_tuning
from tests.model.toy_folder import CHATML, toy_tokenizer
from tests.train.toy_training import Steps, family

RECIPE: dict[str, Any] = {
    "seed": 5,
    "conversations": {"toy": {"files": ["toy.jsonl"]}},
    "length": 128,
    "steps": 6,
    "batch": 4,
    "part": 2,
    "optimiser": {"learning_rate": 1e-2, "warmup_share": 0.5},
    "dtype": "float32",
    "save_every": 2,
}
TURNS: list[Turns] = [
    (("user", f"{n} and {n}?"), ("assistant", f"{n + n}."), ("user", "Sure?"), ("assistant", "是"))
    for n in range(12)
]


def tuning_recipe(folder: Path, **changes: Any) -> FineTuning:
    """RECIPE with some of its keys changed, written to a file and read."""
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(RECIPE | changes))
    return read_fine_tuning(path)


def tokenizer_in(folder: Path) -> Tokenizer:
    """Bytes and ChatML."""
    folder.mkdir(parents=True, exist_ok=True)
    toy_tokenizer(folder, specials=CHATML, eos_token="<|endoftext|>")
    return load_tokenizer(folder)


def toy_base(seed: int = 1, **changes: Any) -> Transformer:
    """Two layers whose weights are large enough that what is learnt matters."""
    sizes = {"vocab_size": 264, "max_length": 256, "trained_length": 256, "init_std": 0.1}
    model = Transformer(family("qwen", **{**sizes, **changes}))
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def tuner(
    recipe: FineTuning, base: Transformer, folder: Path, world: World, turns: list[Turns] = TURNS
) -> tuple[Trainer, Steps]:
    """A trainer that stands where `folder/out` says."""
    steps = Steps()
    packed = lay_out(recipe, Gathered(turns), tokenizer_in(folder / "tokenizer"))
    trainer = prepare(recipe, packed, base, "toy", folder / "out", world, lambda model: (steps,))
    return trainer, steps
