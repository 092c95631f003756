"""A reward model in training: what it learns from, what is logged of it, and what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.export import Exporter
from qwen_eval.train.parallel import World, joined
from qwen_eval.train.preferences import FaultyPairError
from qwen_eval.train.reward import PairLoss, Pairs, gather, load_base, read_reward_training
from qwen_eval.train.reward_report import drawn, judge
from qwen_eval.train.scalar_model import (
    ScalarModel,
    load_scalar_model,
    scalar_model,
)
from tests.model.toy_folder import toy_checkpoint
from tests.train.test_checkpoint import small_disk
from tests.train.toy_pairs import reward_recipe, reward_trainer, toy_rows, write_rows
from tests.train.toy_training import Steps, bits, whole_weights

ROOT = Path(__file__).parents[2]
TOY = {"toy": Pairs(files=("*.jsonl",))}


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tokenizer(base: Path) -> Tokenizer:
    return load_tokenizer(base)


def test_shares_divide_the_prompts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_rows(tmp_path / "a.jsonl", toy_rows(90))
    recipe = reward_recipe(tmp_path, pairs={"toy": {"files": ["*.jsonl"], "share": [0.2, 0.8]}})
    held_out = {
        "x": Pairs(files=("*.jsonl",), share=(0, 0.2)),
        "y": Pairs(files=("*.jsonl",), share=(0.8, 1)),
    }
    seen = [
        {p.pair.prompt for p in gather(sets, tmp_path, tokenizer, 128, "refuse").all}
        for sets in (recipe.pairs, recipe.half("a").pairs, recipe.half("b").pairs, held_out)
    ]
    whole, a, b, others = seen
    assert a
    assert b
    assert a | b == whole
    assert not a & b
    assert not whole & others
    assert len(whole | others) == 90
    assert recipe.digest() != recipe.half("a").digest() != recipe.half("b").digest()


def test_what_is_left_out_is_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    good = toy_rows(3)
    passage = " ".join(f"word{n}" for n in range(13))
    bad: list[dict[str, Any]] = [
        {"prompt": "a", "chosen": "2", "rejected": "2"},
        {"prompt": "a", "chosen": "2", "rejected": " "},
        {"prompt": "a" * 200, "chosen": "2", "rejected": "3"},
        {"prompt": "a", "chosen": "2" * 200, "rejected": "3"},
        {"prompt": "a", "chosen": f"So {passage}", "rejected": "3"},
    ]
    path = write_rows(tmp_path / "a.jsonl", good + bad)
    tests = known_tests({"mmlu": [[passage]]})
    found = gather(TOY, tmp_path, tokenizer, 200, "leave_out", tests)
    assert [p.pair.where for p in found.all] == [f"{path}, row {n}" for n in (1, 2, 3)]
    assert found.left_out == {
        "chosen and rejected are equal": 1,
        "an empty answer": 1,
        "its prompt is longer than the context": 1,
        "prompt and answer are longer than the context": 1,
        "with words of the test set mmlu": 1,
    }
    for row, problem in zip(
        bad, ("equal", "empty", "its prompt", "prompt and answer"), strict=False
    ):
        write_rows(path, [*good, row])
        with pytest.raises(FaultyPairError, match=f"a.jsonl, row 4: .*{problem}"):
            gather(TOY, tmp_path, tokenizer, 200, "refuse", tests)
    write_rows(path, bad[:2])
    with pytest.raises(UserError, match=r"no pair of it is left .*equal: 1, an empty answer: 1"):
        gather(TOY, tmp_path, tokenizer, 200, "leave_out", tests)
    write_rows(path, [good[0] | {"chosen": 2}])
    with pytest.raises(UserError, match="row 1: needs the texts"):
        gather(TOY, tmp_path, tokenizer, 200, "leave_out", tests)


def test_it_learns_and_says_so(tmp_path: Path, base: Path, world: World) -> None:
    write_rows(tmp_path / "a.jsonl", toy_rows(40))
    recipe = reward_recipe(tmp_path, epochs=6, batch=16, part=16, optimiser={"learning_rate": 3e-3})
    trainer, seen = reward_trainer(recipe, base, tmp_path, tmp_path / "out", world)
    trainer.run()
    told = [step.figures for step in seen.steps]
    assert all(list(one) == ["accuracy", "margin", "reward"] for one in told)
    assert told[0]["accuracy"] < 0.9
    assert told[-1]["accuracy"] == 1
    assert told[-1]["margin"] > 1 > told[0]["margin"]


def test_figures_are_those_of_the_pairs_one_by_one(
    tmp_path: Path, base: Path, world: World, tokenizer: Tokenizer
) -> None:
    """The first step's, against every conversation alone: no padding, float64 sums."""
    write_rows(tmp_path / "a.jsonl", toy_rows(24))
    changes: dict[str, Any] = {"margin": 0.5, "centring": 0.02, "part": 3}
    recipe = reward_recipe(tmp_path, **changes)
    trainer, seen = reward_trainer(recipe, base, tmp_path, tmp_path / "out", world)
    model = scalar_model(load_base(base), recipe.seed)
    places = trainer.stages[0].feed.places(0, 8)
    pairs = gather(TOY, tmp_path, tokenizer, 128, "refuse").all
    losses, margins, rights, rewards = [], [], [], []
    for pair in (pairs[place] for place in places):
        with torch.no_grad():
            c, r = (
                np.float64(float(model(ids[None].long())[0, -1]))
                for ids in (pair.chosen_ids, pair.rejected_ids)
            )
        losses.append(np.log1p(np.exp(r - c + 0.5 * pair.pair.margin)) + 0.02 * (c + r) ** 2)
        margins.append(c - r)
        rights.append(c > r)
        rewards.append((c + r) / 2)
    trainer.stages[0].__dict__["steps"] = 1
    trainer.run()
    (step,) = seen.steps
    assert step.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert step.figures["margin"] == pytest.approx(np.mean(margins), abs=1e-5)
    assert step.figures["accuracy"] == pytest.approx(np.mean(rights))
    assert step.figures["reward"] == pytest.approx(np.mean(rewards), abs=1e-5)
    assert step.tokens == 8 * trainer.stages[0].feed.length


@pytest.mark.parametrize("stop", [1, 4])
def test_a_resumed_run_is_the_unbroken_one(
    tmp_path: Path, base: Path, world: World, stop: int
) -> None:
    write_rows(tmp_path / "a.jsonl", toy_rows(24))
    recipe = reward_recipe(tmp_path, epochs=2)
    whole, seen = reward_trainer(recipe, base, tmp_path, tmp_path / "whole", world)
    whole.run()

    class BreakError(Exception):
        pass

    class Breaks(Steps):
        def after_step(self, trainer: Any, step: Any) -> None:
            if step.number == stop:
                raise BreakError

    broken, before = reward_trainer(recipe, base, tmp_path, tmp_path / "broken", world)
    broken.callbacks = [before, Breaks()]
    with pytest.raises(BreakError):
        broken.run()
    again, after = reward_trainer(recipe, base, tmp_path, tmp_path / "broken", world)
    kept = (stop - 1) // 2 * 2
    assert again.done == kept
    again.run()
    assert before.losses[:kept] + after.losses == seen.losses
    assert bits(whole_weights(again)) == bits(whole_weights(whole))
    begun, trained = scalar_model(load_base(base), recipe.seed).state_dict(), whole_weights(whole)
    moved = {name for name, weight in trained.items() if not torch.equal(weight, begun[name])}
    assert moved == trained.keys() - {"transformer.head.weight"}


def test_a_reward_that_is_no_number_stops_and_names_the_prompt(
    tmp_path: Path, base: Path, world: World
) -> None:
    """The embedding of one letter, which a single prompt has, is spoilt between two steps."""
    rows = toy_rows(24)
    rows[17]["prompt"] = "What of Z?"
    path = write_rows(tmp_path / "a.jsonl", rows)
    recipe = reward_recipe(tmp_path, batch=4, epochs=4)
    trainer, seen = reward_trainer(recipe, base, tmp_path, tmp_path / "out", world)
    model = trainer.model
    assert isinstance(model, ScalarModel)
    letter = load_tokenizer(base).encode("Z")[0]

    class Spoils(Steps):
        def after_step(self, trainer: Any, step: Any) -> None:
            if step.number == 2:
                weight: Any = model.get_parameter("transformer.embedding.weight")
                weight.to_local().detach()[letter] = float("nan")

    trainer.callbacks = [seen, Spoils()]
    with pytest.raises(UserError, match=r"step \d+: the loss is nan") as told:
        trainer.run()
    said = str(told.value)
    assert f"the rewards of {path}, row 18 ('What of Z?') are nan and nan; " in said
    assert said.count("the rewards of") == 1
    number = len(seen.steps) + 1
    assert f"the state of step {(number - 1) // 2 * 2} is whole" in said
    again, _ = reward_trainer(recipe, base, tmp_path, tmp_path / "out", world)
    assert again.done == (number - 1) // 2 * 2


def test_what_is_written_scores_as_what_was_trained(
    tmp_path: Path, base: Path, world: World, tokenizer: Tokenizer
) -> None:
    write_rows(tmp_path / "a.jsonl", toy_rows(24))
    recipe = reward_recipe(tmp_path)
    trainer, _ = reward_trainer(recipe, base, tmp_path, tmp_path / "out", world)
    trainer.run()
    assert isinstance(trainer.model, ScalarModel)
    export = Exporter(trainer.model, world, torch.float32, base)
    folder = tmp_path / "model"
    export(folder)
    read = load_scalar_model(folder)
    assert bits(dict(read.state_dict())) == bits(whole_weights(trainer))
    assert load_tokenizer(folder).encode("yes") == tokenizer.encode("yes")
    # Written again where the disk is full, the folder is the one before, score and all.
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with small_disk(20_000), pytest.raises(UserError, match="model could not be written"):
        export(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # What begins with it begins with its score.
    follower, _ = reward_trainer(recipe, folder, tmp_path, tmp_path / "next", world)
    assert bits(whole_weights(follower)) == bits(whole_weights(trainer))


def test_longer_conversations_than_the_base_knows_are_refused(
    tmp_path: Path, base: Path, world: World
) -> None:
    write_rows(tmp_path / "a.jsonl", toy_rows(3))
    with pytest.raises(UserError, match="length: 300 is more than the 256 tokens the base knows"):
        reward_trainer(reward_recipe(tmp_path, length=300), base, tmp_path, tmp_path / "o", world)


def test_judging_is_the_model_on_each_conversation_alone(
    tmp_path: Path, base: Path, tokenizer: Tokenizer
) -> None:
    rows = [*toy_rows(30), {"prompt": "x" * 90, "chosen": "a" * 40, "rejected": "b"}]
    write_rows(tmp_path / "a.jsonl", rows)
    pairs = gather(TOY, tmp_path, tokenizer, 256, "refuse").all
    model = scalar_model(load_base(base), 5).requires_grad_(False)
    done: list[int] = []
    found = judge(model, pairs, done.append)
    assert sum(done) == len(pairs) == 31
    for pair, one in zip(pairs, found, strict=True):
        assert one.chosen == pytest.approx(
            float(model(pair.chosen_ids[None].long())[0, -1]), abs=1e-5
        )
        assert one.rejected == pytest.approx(
            float(model(pair.rejected_ids[None].long())[0, -1]), abs=1e-5
        )
        assert one.chosen_tokens == len(tokenizer.encode(pair.pair.chosen))
        assert one.rejected_tokens == len(tokenizer.encode(pair.pair.rejected))
    some = {pair.pair.where for pair in drawn(pairs, 10)}
    assert len(some) == 10
    assert {pair.pair.where for pair in drawn(pairs[::-1], 10)} == some
    assert drawn(pairs, 31) == pairs
    model.score.weight[0, 0] = float("nan")
    with pytest.raises(UserError, match=r"the rewards of .*a.jsonl, row \d+ .* are nan and nan"):
        judge(model, pairs, done.append)


def test_faults_are_of_single_pairs(base: Path) -> None:
    """A tie is half right; what is infinite is told with its pair."""
    from qwen_eval.train.preferences import PairPart

    model = scalar_model(load_base(base), 5)
    loss = PairLoss(model, 1.0, 0.0)
    ids = torch.full((4, 3), 65)
    ids[1] = 66
    part = PairPart(ids, torch.tensor([2, 2, 2, 2]), torch.zeros(2), ("first", "second"))
    told = loss(part, 1.0)
    with torch.no_grad():
        other = float(model(ids)[1, 2] - model(ids)[0, 2])
    assert float(told.figures["accuracy"]) == 0.5 + float(other > 0)
    assert list(told.faults) == []
    assert isinstance(told.loss, Tensor)
    with torch.no_grad():
        model.transformer.embedding.weight[66] = float("nan")
    assert [fault[:26] for fault in loss(part, 1.0).faults] == ["the rewards of second are n"[:26]]


@pytest.mark.parametrize(
    "path", sorted((ROOT / "train/recipes/reward").glob("*.yaml")), ids=lambda p: p.stem
)
def test_recipes_are_at_one_rate_to_the_end(path: Path) -> None:
    recipe = read_reward_training(path)
    assert (recipe.optimiser.final, recipe.optimiser.warmup_steps) == (1.0, 0)
    assert recipe.epochs == 1
    if path.stem.startswith("qwen"):  # the paper's, section 3.2.1
        assert recipe.optimiser.learning_rate == 3e-6
        assert (recipe.batch, recipe.length) == (64, 2048)


def test_other_shares_are_refused(tmp_path: Path) -> None:
    for share in ([0.5, 0.5], [0.6, 0.4], [0, 1.5], [-1, 1]):
        with pytest.raises(UserError, match=r"pairs.toy: share: \[.*\] is no part of \[0, 1\]"):
            reward_recipe(tmp_path, pairs={"toy": {"files": ["a"], "share": share}})
