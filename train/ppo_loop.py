"""PPO's loop: replies are drawn, all models read them, policy and value learn, and so again.

Resumes from the newest state (both models, both optimisers, the rewards' mean); with the same
number of processes the same bits follow. A reward or loss that is no finite number stops the run
before it reaches any weights. Knows nothing of files of prompts or of recipes' syntax.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from qwen_eval.errors import UserError

from .checkpoint import Checkpoints
from .experience import Experience, Figures, Models, Readings, RewardSettings, experience, read
from .feed import Sequences, shuffled
from .loop import deferred
from .optim import Optimiser, learning_rate
from .parallel import World, clip
from .ppo_losses import policy_loss, value_loss
from .queries import Query
from .rollout import Sampler, draw_seed
from .running_moments import RunningMoments


@dataclass(frozen=True)
class Schedule:
    """How much is drawn and learnt in a step; see ppo.PPO."""

    seed: int
    steps: int
    queries: int
    responses: int
    epochs: int
    minibatches: int
    part: int
    value_warmup: int
    clip: float
    value_clip: float
    save_every: int


@dataclass(frozen=True)
class Pretraining:
    """Texts whose loss is added to the policy's, `batch` sequences for each of its minibatches."""

    feed: Sequences
    batch: int
    part: int
    coefficient: float


class Learner(nn.Module):
    """All that a run changes, so that one state holds it."""

    def __init__(self, models: Models) -> None:
        super().__init__()
        self.policy, self.value = models.policy, models.value
        self.moments = RunningMoments()


@dataclass(frozen=True)
class Trained:
    """A model, its optimiser and how that is set."""

    model: nn.Module
    optimiser: torch.optim.AdamW
    settings: Optimiser


class Watcher(Protocol):
    """Is told of every step in every process; the weights are those after it."""

    def __call__(self, trainer: PPOTrainer, step: int, figures: Figures) -> None:
        """Called before the state is saved."""
        ...

    def at_end(self) -> None:
        """All steps are done, or the run was interrupted."""
        ...


@dataclass
class PPOTrainer:
    """Four models in training; `learner` holds the two that change."""

    models: Models
    learner: Learner
    policy: Trained
    value: Trained
    sampler: Sampler
    queries: Sequence[Query]
    schedule: Schedule
    settings: RewardSettings
    pretraining: Pretraining | None
    world: World
    checkpoints: Checkpoints
    watchers: Sequence[Watcher] = ()
    done: int = field(default=0, init=False)
    interrupted: bool = field(default=False, init=False)

    @property
    def steps(self) -> int:
        """Of the whole run."""
        return self.schedule.steps

    def resume(self) -> None:
        """Go on from the newest state, if there is one."""
        self.done = self.checkpoints.load(self.learner, self._optimisers)

    def run(self) -> None:
        """All steps that are left. Raises UserError for a reward or loss that is no finite number.

        Ctrl-C ends the step that is being computed, saves the state and sets `interrupted`.
        """
        with deferred() as asked:
            while self.done < self.steps and not self.interrupted:
                figures = self._step(self.done + 1)
                self.done += 1
                for watcher in self.watchers:
                    with self.world.agreed():
                        watcher(self, self.done, figures)
                self.interrupted = self.world.sum(float(asked()))[0] > 0
                due = self.done % self.schedule.save_every == 0
                if due or self.interrupted or self.done == self.steps:
                    self._save()
        for watcher in self.watchers:
            watcher.at_end()

    @property
    def _optimisers(self) -> list[torch.optim.Optimizer]:
        return [self.policy.optimiser, self.value.optimiser]

    def _save(self) -> None:
        self.checkpoints.save(self.done, self.learner, self._optimisers)

    def _step(self, number: int) -> Figures:
        schedule, world = self.schedule, self.world
        began = time.perf_counter()
        places = shuffled(
            (number - 1) * schedule.queries, schedule.queries, len(self.queries), schedule.seed
        )
        share = schedule.queries // world.size
        mine = range(world.rank * share, (world.rank + 1) * share)
        asked = [self.queries[places[at]] for at in mine for _ in range(schedule.responses)]
        seeds = [
            draw_seed(schedule.seed, number, at, draw)
            for at in mine
            for draw in range(schedule.responses)
        ]
        replies = self.sampler.draw([query.ids for query in asked], seeds)
        drawn = time.perf_counter()
        readings = read(self.models, replies, schedule.part, world.device)
        self._refuse_rewards(number, readings, asked)
        made, figures = experience(readings, self.learner.moments, self.settings, world)
        figures |= self._learn(number, made, [self.queries[place].named for place in places])
        figures["rollout_seconds"] = round(drawn - began, 3)
        figures["learning_seconds"] = round(time.perf_counter() - drawn, 3)
        return figures

    def _learn(self, number: int, made: Experience, named: Sequence[str]) -> Figures:
        """All epochs over the replies of a step; figures are means over the minibatches."""
        schedule = self.schedule
        told: list[Figures] = []
        total = len(made.ids_BS)
        size = total // schedule.minibatches
        for epoch in range(schedule.epochs):
            # Every process shuffles its own replies.
            rng = np.random.default_rng([schedule.seed, number, epoch, self.world.rank])
            order = rng.permutation(total).tolist()
            for at in range(schedule.minibatches):
                rows = order[at * size : (at + 1) * size]
                parts = list(made.parts(rows, schedule.part))
                tokens = self.world.sum(float(sum(p.mask_BT.sum() for p in parts)))[0]
                figures = self._learn_value(number, parts, tokens, named)
                if number > schedule.value_warmup:
                    batch = (number - 1) * schedule.epochs * schedule.minibatches
                    batch += epoch * schedule.minibatches + at
                    figures |= self._learn_policy(number, batch, parts, tokens, named)
                told.append(figures)
        return {name: math.fsum(each[name] or 0.0 for each in told) / len(told) for name in told[0]}

    def _learn_value(
        self, number: int, parts: Sequence[Experience], tokens: float, named: Sequence[str]
    ) -> Figures:
        def loss(part: Experience) -> Tensor:
            values_BT = self.models.value(part.ids_BS)[:, :-1]
            clipped = self.schedule.value_clip
            whole = value_loss(values_BT, part.values_BT, part.returns_BT, part.mask_BT, clipped)
            return whole / tokens

        losses = [partial(loss, part) for part in parts]
        told, norm = self._descend(number, "value loss", self.value, losses, named)
        return {"value_loss": self.world.sum(sum(told))[0], "value_gradient_norm": norm}

    def _learn_policy(
        self,
        number: int,
        batch: int,
        parts: Sequence[Experience],
        tokens: float,
        named: Sequence[str],
    ) -> Figures:
        """One step on a minibatch; `batch` counts those of the whole run."""
        policy, clipped = self.models.policy, [0.0]

        def loss(part: Experience) -> Tensor:
            logprobs_BT, _ = policy.log_probs(part.ids_BS, part.mask_BT)
            whole, beyond = policy_loss(
                logprobs_BT,
                part.logprobs_BT,
                part.advantages_BT,
                part.mask_BT,
                self.schedule.clip,
            )
            clipped[0] += float(beyond)
            return whole / tokens

        losses: list[Callable[[], Tensor]] = [partial(loss, part) for part in parts]
        if self.pretraining is not None:
            losses += self._pretraining_losses(self.pretraining, batch)
        told, norm = self._descend(number, "policy loss", self.policy, losses, named)
        first, second = self.world.sum(sum(told[: len(parts)]), sum(told[len(parts) :]))
        figures: Figures = {
            "policy_loss": first,
            "policy_gradient_norm": norm,
            "clip_fraction": self.world.sum(clipped[0])[0] / tokens,
        }
        if self.pretraining is not None:
            figures["ptx_loss"] = second / self.pretraining.coefficient
        return figures

    def _pretraining_losses(self, of: Pretraining, batch: int) -> list[Callable[[], Tensor]]:
        """The mean loss of a token of the next texts, times the coefficient, in parts."""
        places = of.feed.places(batch * of.batch, of.batch)
        share = of.batch // self.world.size
        mine = places[self.world.rank * share : (self.world.rank + 1) * share]
        scale = of.coefficient / max(1, of.feed.tokens_asked(places))
        texts = of.feed.parts(mine, of.part)
        return [partial(self.models.policy, part, scale) for part in texts]

    def _descend(
        self,
        number: int,
        what: str,
        of: Trained,
        losses: Sequence[Callable[[], Tensor]],
        named: Sequence[str],
    ) -> tuple[list[float], float]:
        """One step of an optimiser on the sum of losses; each one, and the gradient's norm."""
        rate = learning_rate(of.settings, number, self.steps)
        for group in of.optimiser.param_groups:
            group["lr"] = rate
        told = []
        for at, loss in enumerate(losses, 1):
            if isinstance(of.model, FSDPModule):
                of.model.set_requires_gradient_sync(at == len(losses))
            value = loss()
            torch.autograd.backward(value)
            told.append(float(value.detach()))
        norm = clip(of.model, of.settings.clip)
        total = self.world.sum(sum(told))[0]
        if not (math.isfinite(total) and math.isfinite(norm)):
            last = self.checkpoints.steps()
            kept = f"the state of step {last[-1]} is whole" if last else "no state was saved yet"
            raise UserError(
                f"step {number}: the {what} is {total}, its gradient's norm {norm}; its queries: "
                f"{'; '.join(dict.fromkeys(named))}; {kept}; look at them, or lower learning_rate"
            )
        of.optimiser.step()
        of.optimiser.zero_grad(set_to_none=True)
        return told, norm

    def _refuse_rewards(self, number: int, readings: Readings, asked: Sequence[Query]) -> None:
        """Raise UserError naming the first query whose reply has no finite reward; the state before
        the step is saved then, for nothing has been learnt of it."""
        bad = (~readings.rewards_B.isfinite()).nonzero().flatten().tolist()
        faults = [f"{float(readings.rewards_B[at])} for {asked[at].named}" for at in bad[:1]]
        found = [fault for told in self.world.gather(faults) for fault in told]
        if not found:
            return
        if self.done and self.done not in self.checkpoints.steps():
            self._save()
        kept = f"the state of step {self.done} is kept" if self.done else "nothing was learnt yet"
        raise UserError(
            f"step {number}: the reward is {found[0]}; {kept}; mend the reward model, or leave the "
            "prompt out"
        )
