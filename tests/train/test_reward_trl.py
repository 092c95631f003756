"""Twenty steps are those of TRL's RewardTrainer on the same pairs, weights and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qwen_eval.train.parallel import joined
from qwen_eval.train.reward import load_base
from qwen_eval.train.scalar_model import scalar_model
from tests.model.toy_folder import toy_checkpoint
from tests.train.toy_pairs import reward_recipe, reward_trainer, toy_rows, write_rows

STEPS, BATCH, RATE, CENTRING, SEED, CLIP = 20, 8, 2e-3, 0.01, 3, 1.0
pytestmark = pytest.mark.slow


def theirs(base: Path, batches: list[Any], out: Path, decay: float) -> list[float]:
    """Losses of RewardTrainer, which reads the pairs of these batches in this order."""
    from datasets import Dataset
    from torch.utils.data import SequentialSampler
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from trl import RewardConfig, RewardTrainer

    losses: list[float] = []

    class InOrder(RewardTrainer):  # type: ignore[misc]
        def _get_train_sampler(self, dataset: Any = None) -> Any:
            return SequentialSampler(self.train_dataset)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(float(loss.detach()))
            return loss

    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.pad_token = "<|endoftext|>"
    model = AutoModelForSequenceClassification.from_pretrained(
        base, num_labels=1, pad_token_id=tokenizer.pad_token_id, dtype=torch.float32
    )
    drawn = scalar_model(load_base(base), SEED)
    model.score.weight.data.copy_(drawn.score.weight.data)
    pairs = [pair for batch in batches for pair in batch]
    rows = [
        {
            "chosen_ids": pair.chosen_ids.tolist(),
            "rejected_ids": pair.rejected_ids.tolist(),
            "margin": pair.pair.margin,
        }
        for pair in pairs
    ]
    config = RewardConfig(
        output_dir=str(out),
        per_device_train_batch_size=BATCH,
        max_steps=STEPS,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=decay,
        adam_beta1=0.9,
        adam_beta2=0.95,
        adam_epsilon=1e-8,
        max_grad_norm=CLIP,
        center_rewards_coefficient=CENTRING,
        gradient_checkpointing=False,
        bf16=False,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        seed=SEED,
    )
    data = Dataset.from_list(rows)
    trainer = InOrder(model=model, args=config, train_dataset=data, processing_class=tokenizer)
    trainer.train()
    return losses


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_twenty_steps_are_those_of_trl(tmp_path: Path, decay: float) -> None:
    base = toy_checkpoint(tmp_path / "base", rope_base=10000.0)
    write_rows(tmp_path / "data" / "pairs.jsonl", toy_rows(100))
    settings = {"learning_rate": RATE, "final": 1.0, "weight_decay": decay, "clip": CLIP}
    recipe = reward_recipe(
        tmp_path, epochs=2, batch=BATCH, part=4, centring=CENTRING, optimiser=settings
    )
    with joined() as world:
        trainer, seen = reward_trainer(recipe, base, tmp_path / "data", tmp_path / "out", world)
        trainer.stages[0].__dict__["steps"] = STEPS
        trainer.run()
    feed = trainer.stages[0].feed
    batches = [
        [feed.pairs[place] for place in feed.places(step * BATCH, BATCH)]  # type: ignore[attr-defined]
        for step in range(STEPS)
    ]
    wanted = theirs(base, batches, tmp_path / "trl", decay)
    assert len(seen.losses) == len(wanted) == STEPS
    assert max(abs(a - b) for a, b in zip(seen.losses, wanted, strict=True)) < 1e-4
    assert min(wanted) < 0.7 * wanted[0], "nothing was learnt: the comparison says little"
    norms = [step.gradient_norm for step in seen.steps]
    assert min(norms) < CLIP < max(norms), "clipping was never, or always, at work"
    print({"largest difference": max(abs(a - b) for a, b in zip(seen.losses, wanted, strict=True))})
