"""Pairs of answers of toy size, a recipe for them, and a trainer on them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.train.loop import Trainer
from qwen_eval.train.parallel import World
from qwen_eval.train.reward import (
    RewardTraining,
    gather,
    load_base,
    prepare,
    read_reward_training,
)
from tests.train.toy_training import Steps

WORDS = ("cat", "dog", "sun", "tea", "two", "red")
RECIPE: dict[str, Any] = {
    "seed": 3,
    "pairs": {"toy": {"files": ["*.jsonl"]}},
    "length": 128,
    "batch": 8,
    "part": 2,
    "optimiser": {"learning_rate": 1e-3, "final": 1.0, "weight_decay": 0.0},
    "dtype": "float32",
    "save_every": 2,
}


def toy_rows(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """The preferred answer ends with `yes`, the other with `no`; a third have a margin."""
    rng = random.Random(seed)

    def words(least: int, most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))

    rows: list[dict[str, Any]] = []
    for number in range(count):
        row: dict[str, Any] = {"prompt": f"{number} {words(1, 3)}?"}
        row |= {"chosen": f"{words(0, 4)} yes", "rejected": f"{words(0, 4)} no"}
        rows.append(row | ({"margin": rng.uniform(0, 2)} if number % 3 == 0 else {}))
    return rows


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_reward_recipe(path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps(RECIPE | changes))
    return path


def reward_recipe(folder: Path, **changes: Any) -> RewardTraining:
    return read_reward_training(write_reward_recipe(folder / "recipe.yaml", **changes))


def reward_trainer(
    recipe: RewardTraining, base: Path, data: Path, out: Path, world: World
) -> tuple[Trainer, Steps]:
    """A trainer that stands where `out` says."""
    steps, tokenizer = Steps(), load_tokenizer(base)
    found = gather(recipe.pairs, data, tokenizer, recipe.length, recipe.faulty)
    key = found.digest()
    trainer = prepare(recipe, found.all, key, load_base(base), out, world, lambda model: (steps,))
    return trainer, steps
