"""`log.jsonl` of PPO: one line a step, and whatever journals are named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from qwen_eval import fileio

from .callbacks import Journal, cut_after
from .experience import Figures
from .ppo_loop import PPOTrainer

# Tells a person of a step: say(step, steps, figures).
Say = Callable[[int, int, Figures], None]


@dataclass
class PPOLog:
    """A Watcher. A resumed run cuts off what was written after the state it goes on from, so that
    the file reads as if nothing had happened."""

    path: Path
    say: Say
    journals: tuple[Journal, ...] = ()
    _file: fileio.Journal | None = field(default=None, init=False, repr=False)

    def __call__(self, trainer: PPOTrainer, step: int, figures: Figures) -> None:
        """Write the step's line."""
        if trainer.world.rank != 0:
            return
        if self._file is None:
            cut_after(self.path, step - 1)
            self._file = fileio.Journal(self.path)
        self._file.append({"step": step, **figures})
        known = {name: value for name, value in figures.items() if value is not None}
        for journal in self.journals:
            journal.figures(step, known)
        self.say(step, trainer.steps, figures)

    def at_end(self) -> None:
        """No more will come."""
        if self._file is not None:
            self._file.close()
        for journal in self.journals:
            journal.close()
