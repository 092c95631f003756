"""The training loop: batches in, one step of the optimiser each, and whatever callbacks ask.

Resumes from the newest state; with one process the same bits follow. A loss or gradient that is no
finite number stops the run before it reaches the weights. Knows nothing of where sequences come
from, of what a loss makes of them, or of what callbacks do.
"""

from __future__ import annotations

import math
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash

from .checkpoint import Checkpoints
from .feed import Sequences
from .optim import Optimiser, learning_rate
from .parallel import World, clip


@dataclass(frozen=True)
class Stage:
    """Some steps on sequences of one length: `batch` sequences a step, `part` at a time."""

    feed: Sequences
    steps: int
    batch: int
    part: int


@dataclass(frozen=True)
class Step:
    """What one step did. loss: nats per token, or per what else is asked for. tokens: read so far,
    this step included. figures: what the loss tells of the batch besides."""

    number: int
    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)


class Callback(Protocol):
    """Something to do beside training. Called in every process, after a step and at the end."""

    def after_step(self, trainer: Trainer, step: Step) -> None:
        """The weights are those after the step."""
        ...

    def at_end(self, trainer: Trainer) -> None:
        """All steps are done, or the run was interrupted."""
        ...


@dataclass(frozen=True)
class Measured:
    """A loss with what else is known of a part: figures, each summed and scaled as the loss is, and
    in words what of the part is no finite number."""

    loss: Tensor
    figures: Mapping[str, Tensor]
    faults: Sequence[str] = ()


# A part of a batch, as the feed makes it, to a loss that is the sum over all that the part asks
# for, times the second argument.
Loss = Callable[[Any, float], Tensor | Measured]


@dataclass
class Trainer:
    """A model in training.

    loss: must go through `model`'s call, which gathers its weights. save_every: steps between two
    states; the last step's is always saved. seed: what a step draws depends on it, the step and
    the process alone.
    """

    model: nn.Module
    loss: Loss
    optimiser: torch.optim.Optimizer
    settings: Optimiser
    stages: Sequence[Stage]
    world: World
    checkpoints: Checkpoints
    save_every: int
    callbacks: Sequence[Callback] = ()
    seed: int = 0
    done: int = field(default=0, init=False)
    interrupted: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for stage in self.stages:
            if stage.batch % self.world.size:
                raise UserError(
                    f"a batch of {stage.batch} sequences cannot be shared by {self.world.size} "
                    "processes; take another number of either"
                )

    @property
    def steps(self) -> int:
        """Of all stages."""
        return sum(stage.steps for stage in self.stages)

    def resume(self) -> None:
        """Go on from the newest state, if there is one."""
        self.done = self.checkpoints.load(self.model, self.optimiser)

    def run(self) -> None:
        """All steps that are left. Raises UserError for a loss that is no finite number.

        Ctrl-C ends the step that is being computed, saves the state and sets `interrupted`.
        """
        with deferred() as asked:
            while self.done < self.steps and not self.interrupted:
                step = self._step(self.done + 1)
                self.done = step.number
                for callback in self.callbacks:
                    with self.world.agreed():
                        callback.after_step(self, step)
                self.interrupted = self.world.sum(float(asked()))[0] > 0
                if self.done % self.save_every == 0 or self.interrupted or self.done == self.steps:
                    self.checkpoints.save(self.done, self.model, self.optimiser)
        for callback in self.callbacks:
            callback.at_end(self)

    def _step(self, number: int) -> Step:
        began = time.perf_counter()
        stage = self.stage_of(number)
        # Counted in sequences of this stage's length, whatever the length they were read in.
        places = stage.feed.places(self._read_by(number - 1) // stage.feed.length, stage.batch)
        share = stage.batch // self.world.size
        mine = places[self.world.rank * share : (self.world.rank + 1) * share]
        scale = 1 / max(1, stage.feed.tokens_asked(places))
        rate = learning_rate(self.settings, number, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        torch.manual_seed(int(text_hash(f"{self.seed} {number} {self.world.rank}")[:8], 16))
        total = 0.0
        figures: Counter[str] = Counter()
        faults: list[str] = []
        parts = -(-share // stage.part)
        for at, part in enumerate(stage.feed.parts(mine, stage.part), 1):
            if isinstance(self.model, FSDPModule):
                self.model.set_requires_gradient_sync(at == parts)
            loss = self.loss(part, scale)
            if isinstance(loss, Measured):
                figures.update({name: float(value) for name, value in loss.figures.items()})
                faults += loss.faults
                loss = loss.loss
            torch.autograd.backward(loss)
            total += float(loss.detach())
        total, *told = self.world.sum(total, *figures.values())
        norm = clip(self.model, self.settings.clip)
        self._refuse_nonsense(number, total, norm, places, faults)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        seconds = time.perf_counter() - began
        said = dict(zip(figures, told, strict=True))
        return Step(number, total, norm, rate, self._read_by(number), seconds, said)

    def _refuse_nonsense(
        self, number: int, loss: float, norm: float, places: list[int], faults: list[str]
    ) -> None:
        if math.isfinite(loss) and math.isfinite(norm):
            return
        wrong = "gradient's norm" if math.isfinite(loss) else "loss"
        value = norm if math.isfinite(loss) else loss
        last = self.checkpoints.steps()
        kept = f"the state of step {last[-1]} is whole" if last else "no state was saved yet"
        found = "; ".join(text for each in self.world.gather(faults) for text in each)
        raise UserError(
            f"step {number}: the {wrong} is {value}; "
            f"{found or f'its batch is sequences {places}'}; {kept}; "
            "look at the batch, or lower learning_rate"
        )

    def stage_of(self, number: int) -> Stage:
        """The stage of a step."""
        for stage in self.stages:
            if number <= stage.steps:
                return stage
            number -= stage.steps
        raise AssertionError("no such step")

    def _read_by(self, number: int) -> int:
        """Tokens read when the step with this number is done."""
        tokens = 0
        for stage in self.stages:
            steps = min(number, stage.steps)
            tokens += steps * stage.batch * stage.feed.length
            number -= steps
        return tokens


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Ctrl-C and SIGTERM are remembered; a second Ctrl-C stops at once."""
    asked = []

    def remember(signum: int, frame: object) -> None:
        asked.append(signum)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {s: signal.signal(s, remember) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
