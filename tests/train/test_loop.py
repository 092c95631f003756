"""Training is what a plain loop in PyTorch does, resumed or not."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.data.pack import PackedCorpus
from qwen_eval.train.parallel import World, joined
from tests.train.toy_training import (
    LENGTH,
    Steps,
    bits,
    recipe_of,
    trainer_of,
    whole_weights,
    write_packed,
)

SEED, RATE, WARMUP, CLIP = 5, 4e-3, 7, 1.5
# (length, steps): two stages of different lengths, more than two epochs in all.
STAGES = ((16, 30), (32, 20))
BATCH = 128
LONG: dict[str, Any] = {
    "stages": [{"length": length, "tokens": steps * BATCH} for length, steps in STAGES],
    "batch_tokens": BATCH,
    "part_tokens": 96,  # parts of three quarters and of one quarter of a batch
    "optimiser": {"learning_rate": RATE, "warmup_steps": WARMUP, "clip": CLIP},
    "recompute": True,
    "save_every": 1000,
}


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


def batches(corpus: PackedCorpus) -> Iterator[list[Tensor]]:
    """Sequences of every step, cut from the row of all tokens."""
    tokens = np.concatenate([corpus[i] for i in range(len(corpus))]).astype(np.int64)
    read = 0
    for length, steps in STAGES:
        count = len(tokens) // length
        for _ in range(steps):
            batch = []
            for sequence in range(read // length, (read + BATCH) // length):
                epoch, at = divmod(sequence, count)
                place = np.random.default_rng([SEED, epoch]).permutation(count)[at]
                batch.append(torch.from_numpy(tokens[place * length : (place + 1) * length]))
            read += BATCH
            yield batch


def documents_of(ids: Tensor, eos: int) -> list[Tensor]:
    """A sequence cut behind every end of text."""
    ends = [int(i) + 1 for i in (ids[:-1] == eos).nonzero()]
    return list(ids.tensor_split(ends))


def plain(model: Transformer, corpus: PackedCorpus, separate: bool) -> list[float]:
    """Losses of every step: the model's reference pass, PyTorch's loss, AdamW by hand."""
    eos = corpus.manifest["eos_id"]
    parameters = list(model.parameters())
    first = [torch.zeros_like(p) for p in parameters]
    second = [torch.zeros_like(p) for p in parameters]
    losses = []
    total = sum(steps for _, steps in STAGES)
    for step, batch in enumerate(batches(corpus), 1):
        texts = [d for ids in batch for d in documents_of(ids, eos)] if separate else batch
        logits = torch.cat([one[:-1] for one in model(texts)])
        loss = F.cross_entropy(logits, torch.cat([ids[1:] for ids in texts]))
        gradients = torch.autograd.grad(loss, parameters)
        losses.append(loss.item())
        norm = math.sqrt(sum(float(g.double().pow(2).sum()) for g in gradients))
        down = (step - WARMUP) / (total - WARMUP)
        cosine = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * down))
        rate = RATE * (step / WARMUP if step <= WARMUP else cosine)
        with torch.no_grad():
            for p, raw, m, v in zip(parameters, gradients, first, second, strict=True):
                g = raw * CLIP / norm if norm > CLIP else raw
                m.mul_(0.9).add_(0.1 * g)
                v.mul_(0.95).add_(0.05 * g * g)
                p.mul_(1 - rate * (0.1 if p.dim() > 1 else 0.0))
                p.sub_(rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.95**step)).sqrt() + 1e-8))
    return losses


@pytest.mark.slow
@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("family", ["qwen", "qwen2", "qwen3", "llama"])
def test_fifty_steps_are_those_of_a_plain_loop(
    tmp_path: Path, world: World, family: str, separate: bool
) -> None:
    corpus = write_packed(tmp_path / "corpus")
    model = {"family": family} | ({} if family == "qwen" else {"num_kv_heads": 2, "tied": True})
    recipe = recipe_of(tmp_path, model, **LONG, separate_documents=separate)
    trainer, seen = trainer_of(recipe, corpus, tmp_path / "out", world)
    begun = Transformer(recipe.model.config(LENGTH))
    begun.init_weights(torch.Generator().manual_seed(SEED))
    trainer.run()
    wanted = plain(begun, PackedCorpus(corpus), separate)
    assert len(seen.losses) == len(wanted) == 50
    assert max(abs(a - b) for a, b in zip(seen.losses, wanted, strict=True)) < 1e-5
    assert wanted[-1] < 0.8 * wanted[0], "nothing was learnt: the comparison says little"
    norms = [step.gradient_norm for step in seen.steps]
    assert min(norms) < CLIP < max(norms), "clipping was never, or always, at work"
    assert seen.steps[-1].tokens == 50 * BATCH
    assert seen.ended


def test_recomputing_and_the_size_of_parts_change_nothing_but_noise(
    tmp_path: Path, world: World
) -> None:
    corpus = write_packed(tmp_path / "corpus")
    found = {}
    runs: dict[str, dict[str, Any]] = {
        "whole": {"part_tokens": 128},
        "parts": {"part_tokens": 32},
        "recomputed": {"part_tokens": 128, "recompute": True},
    }
    for name, changes in runs.items():
        trainer, seen = trainer_of(recipe_of(tmp_path, **changes), corpus, tmp_path / name, world)
        trainer.run()
        found[name] = seen.losses
    assert found["recomputed"] == found["whole"]
    assert found["parts"] == pytest.approx(found["whole"], abs=1e-5)


def test_stages_that_are_alike_read_on(tmp_path: Path, world: World) -> None:
    """Two stages of the same length and size are one of twice the size."""
    corpus = write_packed(tmp_path / "corpus")
    stage = {"length": 32, "tokens": 3 * 128}
    twice = recipe_of(tmp_path, stages=[stage, stage])
    once = recipe_of(tmp_path, stages=[{"length": 32, "tokens": 6 * 128}])
    found: list[list[tuple[float, int]]] = []
    for recipe in (twice, once):
        trainer, seen = trainer_of(recipe, corpus, tmp_path / str(len(found)), world)
        trainer.run()
        found.append([(step.loss, step.tokens) for step in seen.steps])
    assert found[0] == found[1]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("stop", [2, 5, 9])
def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(
    tmp_path: Path, world: World, dtype: str, stop: int
) -> None:
    corpus = write_packed(tmp_path / "corpus")
    recipe = recipe_of(tmp_path, dtype=dtype)
    whole, seen = trainer_of(recipe, corpus, tmp_path / "whole", world)
    whole.run()

    class BreakError(Exception):
        pass

    class Breaks(Steps):
        def after_step(self, trainer: Any, step: Any) -> None:
            if step.number == stop:
                raise BreakError

    broken, before = trainer_of(recipe, corpus, tmp_path / "broken", world)
    broken.callbacks = [before, Breaks()]
    with pytest.raises(BreakError):
        broken.run()
    again, after = trainer_of(recipe, corpus, tmp_path / "broken", world)
    kept = (stop - 1) // 2 * 2
    assert again.done == kept
    again.run()
    assert before.losses[:kept] + after.losses == seen.losses
    assert bits(whole_weights(again)) == bits(whole_weights(whole))


def test_masters_keep_what_bf16_would_lose(tmp_path: Path, world: World) -> None:
    """Steps of a rate far below bf16's spacing of the weights (2^-9 of them) add up."""
    corpus = write_packed(tmp_path / "corpus")
    optimiser = {"learning_rate": 1e-6, "weight_decay": 0.0}
    recipe = recipe_of(tmp_path, dtype="bfloat16", optimiser=optimiser)
    trainer, _ = trainer_of(recipe, corpus, tmp_path / "out", world)
    begun = whole_weights(trainer)
    trainer.run()
    for name, now in whole_weights(trainer).items():
        assert now.dtype == torch.float32
        if "norm" in name:  # weights of 1, where bf16's spacing is 2^-8
            assert torch.equal(now.bfloat16(), begun[name].bfloat16())
            moved = (now - begun[name]).abs()
            assert moved.min() > 0
            # AdamW moves a weight by at most about the rate a step.
            assert moved.max() < 1.1e-6 * trainer.steps


@pytest.mark.parametrize("wrong", ["loss", "gradient's norm"])
def test_nonsense_stops_before_it_reaches_the_weights(
    tmp_path: Path, world: World, wrong: str
) -> None:
    corpus = write_packed(tmp_path / "corpus")
    recipe = recipe_of(tmp_path)
    trainer, seen = trainer_of(recipe, corpus, tmp_path / "out", world)
    loss = trainer.loss

    def poisoned(part: Any, scale: float) -> Tensor:
        out = loss(part, scale)
        assert isinstance(out, Tensor)
        if len(seen.steps) == 4 and wrong == "loss":
            return out * float("nan")
        if len(seen.steps) == 4:
            hook: Any = out.register_hook
            hook(lambda gradient: gradient * float("inf"))
        return out

    kept: list[dict[str, bytes]] = []

    class Keeps(Steps):
        def after_step(self, trainer: Any, step: Any) -> None:
            kept.append(bits(whole_weights(trainer)))

    trainer.loss = poisoned
    trainer.callbacks = [seen, Keeps()]
    places = trainer.stages[0].feed.places(4 * 8, 8)
    with pytest.raises(UserError, match=f"step 5: the {wrong} is") as told:
        trainer.run()
    assert f"its batch is sequences {places}" in str(told.value)
    assert "the state of step 4 is whole" in str(told.value)
    assert bits(whole_weights(trainer)) == kept[-1]
    again, _ = trainer_of(recipe, corpus, tmp_path / "out", world)
    assert again.done == 4
    assert bits(whole_weights(again)) == kept[-1]
    again.run()


def test_a_batch_in_which_nothing_is_asked_does_nothing_wrong(tmp_path: Path, world: World) -> None:
    """Documents of one token each: no token has a next one to be asked for."""
    from qwen_eval.train.feed import Feed

    class Silent(Feed):
        def tokens_asked(self, places: Any) -> int:
            return 0

    corpus = write_packed(tmp_path / "corpus")
    trainer, seen = trainer_of(recipe_of(tmp_path), corpus, tmp_path / "out", world)
    for stage in trainer.stages:
        assert isinstance(stage.feed, Feed)
        object.__setattr__(stage, "feed", Silent(stage.feed.corpus, stage.feed.length, 1))
    trainer.run()
    assert all(math.isfinite(loss) for loss in seen.losses)
