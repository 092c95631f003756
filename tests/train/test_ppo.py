"""PPO against what is known of a toy: the best policy, the loss of texts, an unbroken run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import qwen_eval.train
from qwen_eval.errors import UserError
from qwen_eval.train.data.pack import PackedCorpus
from qwen_eval.train.experience import Models, RewardSettings, experience, read
from qwen_eval.train.feed import shuffled
from qwen_eval.train.parallel import World, joined
from qwen_eval.train.ppo import read_ppo
from qwen_eval.train.ppo_loop import PPOTrainer
from qwen_eval.train.queries import Query
from qwen_eval.train.rollout import Reply
from qwen_eval.train.running_moments import RunningMoments
from tests.train.toy_ppo import (
    END,
    PROMPT,
    TABLE,
    BreakError,
    Table,
    divergence,
    every_reply,
    plain,
    toy_base,
    trainer_of,
    whole,
)
from tests.train.toy_training import bits, write_packed


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


@pytest.mark.slow
def test_a_bandit_is_solved(tmp_path: Path, world: World) -> None:
    """The best policy under a KL penalty is reference x exp(score / coefficient), here over all 50
    replies there are."""
    kl = 0.3
    trainer, _ = trainer_of(tmp_path, world, steps=60, queries=32, epochs=2, kl=kl)
    begun = every_reply(plain(trainer))
    trainer.run()
    count, total, _ = trainer.learner.moments.sums.tolist()

    def score(reply: tuple[int, ...]) -> float:
        told = TABLE[(*PROMPT, *reply)[-2]] - float(total / count)
        return told if reply[-1] == END else -1.0

    best = {reply: p + score(reply) / kl for reply, p in begun.items()}
    normaliser = math.log(math.fsum(map(math.exp, best.values())))
    best = {reply: p - normaliser for reply, p in best.items()}
    now = every_reply(plain(trainer))
    assert divergence(begun, best) > 1, "the best policy is the first: nothing was to be learnt"
    assert divergence(now, best) < 0.06
    assert math.exp(now[1, END]) == pytest.approx(math.exp(best[1, END]), abs=0.12)


@pytest.mark.slow
def test_a_large_coefficient_stays_at_the_reference(tmp_path: Path, world: World) -> None:
    far = {}
    for kl in (0.0, 100.0):
        trainer, _ = trainer_of(tmp_path / str(kl), world, steps=12, queries=16, kl=kl)
        begun = every_reply(plain(trainer))
        trainer.run()
        far[kl] = divergence(every_reply(plain(trainer)), begun)
    assert far[0.0] > 0.25
    assert far[100.0] < 0.02


def test_the_policy_does_not_move_while_the_value_warms_up(tmp_path: Path, world: World) -> None:
    """Nor its optimiser, even where states are saved."""
    trainer, watched = trainer_of(tmp_path, world, steps=4, value_warmup=3, save_every=1)
    policy, value = whole(trainer.models.policy), whole(trainer.models.value)
    trainer.schedule = replace(trainer.schedule, steps=3)
    trainer.run()
    assert bits(whole(trainer.models.policy)) == bits(policy)
    assert bits(whole(trainer.models.value)) != bits(value)
    moments = trainer.policy.optimiser.state.values()
    assert moments
    assert all(not each["step"] and not each["exp_avg"].any() for each in moments)
    assert "policy_loss" not in watched.figures[-1]
    trainer.schedule = replace(trainer.schedule, steps=4)
    trainer.run()
    assert bits(whole(trainer.models.policy)) != bits(policy)
    assert all(each["step"] == 1 for each in trainer.policy.optimiser.state.values())


def test_a_resumed_run_is_the_unbroken_one_bit_for_bit(tmp_path: Path, world: World) -> None:
    """Broken while the value warms up, and again later, between two states."""
    said: dict[str, Any] = {"steps": 5, "value_warmup": 2, "save_every": 2, "minibatches": 2}
    said |= {"normalise": "mean_and_deviation", "part": 3}
    unbroken, seen = trainer_of(tmp_path / "whole", world, **said)
    unbroken.run()

    told: list[Any] = []
    for stop, kept in ((3, 0), (4, 2)):
        broken, before = trainer_of(tmp_path / "broken", world, stop=stop, **said)
        assert broken.done == kept
        with pytest.raises(BreakError):
            broken.run()
        told = told[:kept] + before.untimed
    again, after = trainer_of(tmp_path / "broken", world, **said)
    assert again.done == 2
    again.run()
    assert told[:2] + after.untimed == seen.untimed
    assert bits(whole(again.learner)) == bits(whole(unbroken.learner))


def test_a_state_of_another_recipe_is_refused(tmp_path: Path, world: World) -> None:
    trainer, _ = trainer_of(tmp_path, world, steps=1)
    trainer.run()
    with pytest.raises(UserError, match="of another recipe"):
        trainer_of(tmp_path, world, steps=1, kl=0.5)


class Faulty(Table):
    """From the second step on, no number for prompts that end with 2."""

    asked = 0

    def forward(self, ids_BS: Tensor) -> Tensor:
        told = super().forward(ids_BS)
        self.asked += 1
        if self.asked > 1:
            told[ids_BS[:, 1] == 2] = math.nan
        return told


def test_a_reward_that_is_no_number_names_its_prompt(tmp_path: Path, world: World) -> None:
    """The state before the step is kept, and the weights are those of it."""
    queries = [Query((0, token), f"toy, row {token}") for token in range(4)]
    said: dict[str, Any] = {"asked": queries, "steps": 3, "responses": 8}
    trainer, _ = trainer_of(tmp_path, world, reward=Faulty(), **said)
    wanted = "step 2: the reward is nan for toy, row 2; the state of step 1 is kept"
    with pytest.raises(UserError, match=wanted):
        trainer.run()
    assert trainer.checkpoints.steps() == [1]
    again, _ = trainer_of(tmp_path, world, **said)
    assert again.done == 1
    assert bits(whole(again.learner)) == bits(whole(trainer.learner))


def test_a_loss_that_is_no_number_reaches_no_weights(tmp_path: Path, world: World) -> None:
    trainer, _ = trainer_of(tmp_path, world, steps=3)
    with torch.no_grad():
        trainer.models.value.score.weight.fill_(math.inf)
    before = whole(trainer.models.policy)
    with pytest.raises(UserError, match=r"step 1: the value loss is nan, .*toy, row \d.*no state"):
        trainer.run()
    assert bits(whole(trainer.models.policy)) == bits(before)


REPLIES = [
    Reply((0, 1, 2), (3, END), True),
    Reply((0,), (END,), True),  # an empty one
    Reply((0, 1), (3, 4, 5), False),  # cut off
    Reply((0, 4), (6,), False),  # stopped, but not by the end
]


def test_what_is_read_of_replies_step_by_step(tmp_path: Path, world: World) -> None:
    """Prompt and padding count nowhere; rewards stand at the end, a penalty where there is none."""
    trainer, _ = trainer_of(tmp_path, world)
    base = toy_base(1)
    other, _ = trainer_of(tmp_path / "other", world, base=base)
    models = Models(
        trainer.models.policy, trainer.models.value, other.models.policy, trainer.models.reward
    )
    found = read(models, REPLIES, 3, torch.device("cpu"))
    assert found.mask_BT.int().tolist() == [
        [0, 0, 1, 1],
        [1, 0, 0, 0],
        [0, 1, 1, 1],
        [0, 1, 0, 0],
    ]
    assert found.rewards_B.tolist() == [TABLE[3], TABLE[0], 0, 0]
    settings = RewardSettings(kl=0.1, missing_end=-2.0, divide=False, gamma=1.0, gae_lambda=1.0)
    made, figures = experience(found, RunningMoments(), settings, world)
    mean = (TABLE[3] + TABLE[0]) / 2
    scores = [TABLE[3] - mean, TABLE[0] - mean, -2.0, -2.0]
    policy, raw, kls, entropies = plain(trainer), [], [], []
    for row, reply in enumerate(REPLIES):
        ids = torch.tensor(reply.prompt + reply.ids)
        with torch.no_grad():
            mine, theirs = (m([ids])[0].log_softmax(-1) for m in (policy, base))
            values = trainer.models.value(ids[None])[0]
        steps = range(len(reply.prompt) - 1, len(ids) - 1)
        kl = {t: float(mine[t, ids[t + 1]] - theirs[t, ids[t + 1]]) for t in steps}
        kls.append(sum(kl.values()))
        entropies += [float(-(mine[t].exp() * mine[t]).sum()) for t in steps]
        # With gamma and lambda 1, an advantage is all that is still to come, less the value.
        for t in steps:
            coming = scores[row] - 0.1 * sum(kl[later] for later in steps if later >= t)
            assert float(made.returns_BT[row, t]) == pytest.approx(coming, abs=1e-4)
            raw.append((row, t, coming - float(values[t])))
    numbers = torch.tensor([each for _, _, each in raw])
    for row, t, each in raw:
        white = (each - numbers.mean()) / numbers.std(correction=0)
        assert float(made.advantages_BT[row, t]) == pytest.approx(float(white), abs=1e-3)
    assert not made.advantages_BT[~found.mask_BT].any()
    wanted = {
        "reward": mean,
        "score": sum(scores) / 4,
        "kl": sum(kls) / 4,
        "kl_per_token": sum(kls) / 7,
        "entropy": sum(entropies) / 7,
        "length": 7 / 4,
        "missing_end": 0.5,
    }
    assert {k: figures[k] for k in wanted} == pytest.approx(wanted, abs=1e-4)
    cut = list(made.parts([1, 0], 1))
    assert [part.ids_BS.shape[1] for part in cut] == [2, 5], "no longer than the reply"
    assert torch.equal(cut[1].logprobs_BT, made.logprobs_BT[:1])


@pytest.mark.slow
def test_the_pretraining_term_is_the_loss_of_texts(tmp_path: Path, world: World) -> None:
    """And holds the policy back from forgetting them."""
    corpus = PackedCorpus(write_packed(tmp_path / "corpus"))
    base = toy_base(vocab_size=259)
    queries = [Query(PROMPT, "toy")]
    begun = [torch.from_numpy(corpus[place].astype("int64")) for place in range(len(corpus))]
    texts = [ids[start : start + 16] for ids in begun for start in (0, 16)]

    def loss(trainer: PPOTrainer, places: list[int]) -> float:
        with torch.no_grad():
            said = plain(trainer)([texts[place] for place in places])
        logits = torch.cat([each[:-1] for each in said])
        return float(F.cross_entropy(logits, torch.cat([texts[place][1:] for place in places])))

    numbers = [0.0] * 259
    numbers[5] = 1.0
    after = {}
    for coefficient in (None, 1.0):
        extra = coefficient and {"coefficient": coefficient, "length": 16, "batch": 6}
        trainer, watched = trainer_of(
            tmp_path / str(coefficient),
            world,
            base=base,
            asked=queries,
            corpus=corpus if coefficient else None,
            reward=Table(numbers),
            part=4,
            steps=3,
            pretraining_gradient=extra,
        )
        first = loss(trainer, shuffled(0, 6, len(texts), 0))
        trainer.run()
        if coefficient:
            assert watched.figures[0]["ptx_loss"] == pytest.approx(first, abs=1e-4)
        after[coefficient] = loss(trainer, list(range(len(texts))))
    assert after[1.0] < after[None] - 0.1


def test_what_does_not_fit_is_refused(tmp_path: Path, world: World) -> None:
    extra = {"coefficient": 1.0, "length": 16, "batch": 6}
    with pytest.raises(UserError, match="--corpus: is missing"):
        trainer_of(tmp_path, world, pretraining_gradient=extra)
    corpus = PackedCorpus(write_packed(tmp_path / "corpus"))
    with pytest.raises(UserError, match="no pretraining_gradient"):
        trainer_of(tmp_path, world, corpus=corpus)
    with pytest.raises(UserError, match="has tokens that the model does not know"):
        trainer_of(tmp_path, world, corpus=corpus, pretraining_gradient=extra)
    with pytest.raises(UserError, match="8 replies of a process cannot be cut into 3"):
        trainer_of(tmp_path, world, minibatches=3)
    with pytest.raises(UserError, match="4 cannot be shared by 3 processes"):
        trainer_of(tmp_path, replace(world, size=3))


def test_the_recipes_have_the_papers_numbers() -> None:
    """Section 3.2.2; the rates are those of models of the paper's size only."""
    folder = Path(qwen_eval.train.__path__[0]) / "recipes" / "ppo"
    for path in folder.glob("*.yaml"):
        recipe = read_ppo(path)
        assert (recipe.responses, recipe.top_p, recipe.kl) == (2, 0.9, 0.04)
        assert (recipe.value_warmup, recipe.value_clip, recipe.normalise) == (50, 0.15, "mean")
    paper = read_ppo(folder / "qwen.yaml")
    rates = paper.optimiser.learning_rate, paper.value_optimiser.learning_rate
    assert rates == (1e-6, 5e-6)
    assert paper.pretraining_gradient is not None
