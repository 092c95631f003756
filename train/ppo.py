"""Reinforcement learning from a reward model by PPO, from a recipe (paper, section 3.2.2).

The recipe is a closed YAML file. Here it becomes four models, two optimisers and what is asked; the
steps are ppo_loop.py's. Knows nothing of command lines; what a test set holds is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from qwen_eval.errors import UserError
from qwen_eval.model.chatml import END
from qwen_eval.model.engine import Sampling
from qwen_eval.model.tokenizer import Tokenizer
from qwen_eval.model.transformer import Transformer
from qwen_eval.schema import Closed, parse, read_text

from .checkpoint import Checkpoints
from .data.pack import PackedCorpus
from .data.recipe import Decontaminate
from .experience import Models, RewardSettings
from .feed import Feed
from .optim import Optimiser, adamw, begin
from .parallel import World
from .policy import shared_policy
from .ppo_loop import Learner, PPOTrainer, Pretraining, Schedule, Trained, Watcher
from .queries import Prompts, Queries
from .recipe import DTYPES, Training
from .rollout import Sampler
from .scalar_model import ScalarModel, scalar_model, shared_scalar_model

# Watchers are made of the policy, once its weights are shared out.
MakeWatchers = Callable[[Transformer], Sequence[Watcher]]


class PretrainingGradient(Closed):
    """The loss of texts, added to the policy's `coefficient` times (Ouyang et al. 2022).

    length: tokens of a sequence. batch: sequences for each of the policy's minibatches, over all
    processes.
    """

    coefficient: float = Field(gt=0)
    length: int = Field(ge=2)
    batch: int = Field(ge=1)


class PPO(Training):
    """The whole file. `optimiser` is the policy's.

    held_out: the share of prompts that is kept from training. queries: of a step, over all
    processes. responses: to each of them, of at most max_tokens, at this temperature and top_p.
    kl: the coefficient of KL(policy, reference), taken from the reward of every token. missing_end:
    the score of a reply without an end token, where others have the reward model's less the running
    mean of all (normalise: mean), in standard deviations if asked (mean_and_deviation). clip: of
    the policy's ratio. value_clip: of the value's change. epochs: passes over the replies of a
    step, in so many minibatches. part: sequences that a process computes at a time. value_warmup:
    first steps in which the value alone learns.
    """

    prompts: dict[str, Prompts] = Field(min_length=1)
    held_out: float = Field(0.1, ge=0, lt=1)
    decontaminate: Decontaminate = Field(default_factory=lambda: Decontaminate.model_validate({}))
    value_optimiser: Optimiser
    steps: int = Field(ge=1)
    queries: int = Field(ge=1)
    responses: int = Field(2, ge=1)
    max_tokens: int = Field(ge=1)
    temperature: float = Field(1.0, gt=0)
    top_p: float = Field(0.9, gt=0, le=1)
    kl: float = Field(0.04, ge=0)
    missing_end: float = -1.0
    normalise: Literal["mean", "mean_and_deviation"] = "mean"
    gamma: float = Field(1.0, ge=0, le=1)
    gae_lambda: float = Field(0.95, ge=0, le=1)
    clip: float = Field(0.2, gt=0, lt=1)
    value_clip: float = Field(0.15, gt=0)
    epochs: int = Field(1, ge=1)
    minibatches: int = Field(1, ge=1)
    part: int = Field(1, ge=1)
    value_warmup: int = Field(50, ge=0)
    pretraining_gradient: PretrainingGradient | None = None

    @model_validator(mode="after")
    def _can_be_computed(self) -> Self:
        if self.compile:
            raise ValueError("compile: replies differ in length from step to step; leave it out")
        return self

    @property
    def sampling(self) -> Sampling:
        """How replies are drawn; each with a seed of its own."""
        return Sampling(self.max_tokens, self.temperature, self.top_p)

    @property
    def rewards(self) -> RewardSettings:
        """What experience.py asks for."""
        divide = self.normalise == "mean_and_deviation"
        return RewardSettings(self.kl, self.missing_end, divide, self.gamma, self.gae_lambda)

    @property
    def schedule(self) -> Schedule:
        """What ppo_loop.py asks for."""
        names = Schedule.__dataclass_fields__
        return Schedule(**{name: getattr(self, name) for name in names})


def read_ppo(path: Path) -> PPO:
    """Read a recipe. Raises UserError with file, line and key for the first mistake."""
    return parse(read_text(path), path, PPO)


@dataclass(frozen=True)
class Begun:
    """What a run begins with. base: the policy's and the reference's weights; reward: the reward
    model, and the value's weights; both in fp32. fingerprints: of the files of both."""

    base: Transformer
    reward: ScalarModel
    tokenizer: Tokenizer
    fingerprints: tuple[str, str]


def longest_prompt(recipe: PPO, base: Transformer, reward: ScalarModel) -> int:
    """Tokens of the longest prompt that leaves room for a reply in both models' trained context.

    Raises UserError for models that cannot read the same tokens, or with no such room.
    """
    configs = base.config, reward.transformer.config
    if configs[0].vocab_size != configs[1].vocab_size:
        raise UserError(
            f"--reward: reads {configs[1].vocab_size} different tokens, --model writes "
            f"{configs[0].vocab_size}; take a reward model with the same tokenizer"
        )
    context = min(config.trained_length for config in configs)
    if recipe.max_tokens >= context:
        raise UserError(
            f"max_tokens: {recipe.max_tokens} leave no room for a prompt in the {context} tokens "
            "that the models know"
        )
    return context - recipe.max_tokens


def prepare(
    recipe: PPO,
    begun: Begun,
    queries: Queries,
    corpus: PackedCorpus | None,
    out: Path,
    world: World,
    watchers: MakeWatchers,
) -> PPOTrainer:
    """A trainer that stands at the newest state in `out`, else at the models' weights.

    Raises UserError for numbers that do not divide, a state of another run, and a corpus where none
    is asked for, or the other way round.
    """
    _refuse_remainders(recipe, world)
    pretraining = _pretraining(recipe, begun.base, corpus)
    said: dict[str, Any] = {
        "dtype": DTYPES[recipe.dtype],
        "compiled": False,
        "recompute": recipe.recompute,
    }
    policy, reference = (shared_policy(begun.base, world, **said) for _ in range(2))
    value, reward = (
        shared_scalar_model(scalar_model(begun.reward, 0), world, **said) for _ in range(2)
    )
    models = Models(policy, value, reference.requires_grad_(False), reward.requires_grad_(False))
    trained = [
        Trained(model, adamw(model, settings), settings)
        for model, settings in ((policy, recipe.optimiser), (value, recipe.value_optimiser))
    ]
    for each in trained:
        begin(each.optimiser)
    end = begun.tokenizer.special(END)
    sampler = Sampler(
        policy.transformer,
        world,
        recipe.sampling,
        end=end,
        others=begun.tokenizer.stop_ids,
        dtype=DTYPES[recipe.dtype],
    )
    read = "" if corpus is None else str(corpus.manifest.get("key", ""))
    key = recipe.digest(queries.digest(), *begun.fingerprints, read)
    trainer = PPOTrainer(
        models,
        Learner(models),
        trained[0],
        trained[1],
        sampler,
        queries.trained,
        recipe.schedule,
        recipe.rewards,
        pretraining,
        world,
        Checkpoints(out / "states", key, recipe.keep, world),
        watchers(policy.transformer),
    )
    trainer.resume()
    return trainer


def _refuse_remainders(recipe: PPO, world: World) -> None:
    if recipe.queries % world.size:
        raise UserError(
            f"queries: {recipe.queries} cannot be shared by {world.size} processes; take another "
            "number of either"
        )
    replies = recipe.queries // world.size * recipe.responses
    if replies % recipe.minibatches:
        raise UserError(
            f"minibatches: {replies} replies of a process cannot be cut into {recipe.minibatches}"
        )
    extra = recipe.pretraining_gradient
    if extra is not None and extra.batch % world.size:
        raise UserError(
            f"pretraining_gradient: a batch of {extra.batch} sequences cannot be shared by "
            f"{world.size} processes"
        )


def _pretraining(recipe: PPO, base: Transformer, corpus: PackedCorpus | None) -> Pretraining | None:
    asked = recipe.pretraining_gradient
    if asked is None or corpus is None:
        if asked is not None:
            raise UserError(
                "--corpus: is missing, and the recipe has a pretraining_gradient; give what "
                "`train data` packed, or take that key out"
            )
        if corpus is not None:
            raise UserError("--corpus: the recipe has no pretraining_gradient that would read it")
        return None
    if corpus.manifest["vocab_size"] > base.config.vocab_size:
        raise UserError(f"--corpus {corpus.folder}: has tokens that the model does not know")
    if asked.length > base.config.trained_length:
        raise UserError(
            f"pretraining_gradient: a length of {asked.length} is more than the "
            f"{base.config.trained_length} tokens the model knows"
        )
    feed = Feed(corpus, asked.length, recipe.seed)
    return Pretraining(feed, asked.batch, recipe.part, asked.coefficient)
