"""What a training run does beside training: its log, its progress, models to look at and to judge.

A callback is called in every process; what writes does so in the first one only. Judging and
sampling are handed in as functions of a checkpoint folder, so this file knows neither harness nor
engine.
"""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from qwen_eval import fileio
from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl, write_atomic

from .loop import Step, Trainer

LOG = "log.jsonl"


class Journal(Protocol):
    """Where figures by step go besides the log: TensorBoard, Weights & Biases."""

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Numbers known after a step."""
        ...

    def close(self) -> None:
        """No more will come."""
        ...


@dataclass
class Log:
    """`log.jsonl`: one line a step, and whatever journals are named.

    A resumed run cuts off what was written after the state it goes on from, so that the file reads
    as if nothing had happened. flops: of a token, by the length of its sequence.
    """

    path: Path
    flops: Callable[[int], float]
    journals: tuple[Journal, ...] = ()
    _file: fileio.Journal | None = field(default=None, init=False, repr=False)

    def after_step(self, trainer: Trainer, step: Step) -> None:
        """Write the step's line."""
        if trainer.world.rank != 0:
            return
        if self._file is None:
            cut_after(self.path, step.number - 1)
            self._file = fileio.Journal(self.path)
        stage = trainer.stage_of(step.number)
        speed = stage.batch * stage.feed.length / step.seconds
        values = {
            "loss": step.loss,
            **step.figures,
            "gradient_norm": step.gradient_norm,
            "learning_rate": step.learning_rate,
            "tokens": step.tokens,
            "seconds": round(step.seconds, 4),
            "tokens_per_second": round(speed, 1),
            "gflops": round(self.flops(stage.feed.length) * speed / 1e9, 1),
        }
        self._file.append({"step": step.number, **values})
        for journal in self.journals:
            journal.figures(step.number, values)

    def at_end(self, trainer: Trainer) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
        for journal in self.journals:
            journal.close()


@dataclass
class Tell:
    """A line for a person every so often: say(line)."""

    say: Callable[[Trainer, Step], None]

    def after_step(self, trainer: Trainer, step: Step) -> None:
        """Tell of a step."""
        if trainer.world.rank == 0:
            self.say(trainer, step)

    def at_end(self, trainer: Trainer) -> None:
        """Nothing."""


@dataclass
class Judge:
    """Every so many steps the model is written out and looked at.

    look: takes the checkpoint's folder and the step, returns figures; called in the first process
    while the others wait. They are kept in `path`, one line a time.
    """

    every: int
    export: Callable[[Path], None]
    folder: Path
    path: Path
    look: Callable[[Path, int], Mapping[str, float]]
    journals: tuple[Journal, ...] = ()

    def after_step(self, trainer: Trainer, step: Step) -> None:
        """Look at the model if it is time."""
        if step.number % self.every and step.number != trainer.steps:
            return
        self.export(self.folder)
        if trainer.world.rank == 0:
            figures = dict(self.look(self.folder, step.number))
            cut_after(self.path, step.number - 1)
            write_line(self.path, {"step": step.number, **figures})
            for journal in self.journals:
                journal.figures(step.number, figures)

    def at_end(self, trainer: Trainer) -> None:
        """Nothing more: the last step was looked at."""


class TensorBoard:
    """Event files for TensorBoard. Raises UserError where it is not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise UserError("--tensorboard: not installed; pip install tensorboard") from None
        self._open, self._folder = SummaryWriter, folder
        self._writer: Any = None

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """See Journal."""
        if self._writer is None:
            # What a broken run wrote from this step on is not shown.
            self._writer = self._open(str(self._folder), purge_step=step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """See Journal."""
        if self._writer is not None:
            self._writer.close()


class WandB:
    """A run of Weights & Biases. Raises UserError where it is not installed."""

    def __init__(self, project: str, folder: Path) -> None:
        try:
            import wandb
        except ImportError:
            raise UserError("--wandb: not installed; pip install wandb") from None
        # The run's name there, by which a resumed one goes on with it.
        mark = folder / "wandb.id"
        if not mark.exists():
            write_atomic(mark, secrets.token_hex(4))
        name = mark.read_text(encoding="utf-8")
        self._run: Any = wandb.init(project=project, id=name, dir=str(folder), resume="allow")

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """See Journal."""
        self._run.log({k: v for k, v in values.items() if math.isfinite(v)}, step=step)

    def close(self) -> None:
        """See Journal."""
        self._run.finish()


def write_line(path: Path, row: Mapping[str, Any]) -> None:
    """Add one row to a JSON-lines file. Raises UserError if the disk refuses."""
    journal = fileio.Journal(path)
    journal.append(row)
    journal.close()


def cut_after(path: Path, step: int) -> None:
    """Drop lines of later steps, which a broken run wrote and a resumed one writes again."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return
    rows = list(read_jsonl(path, torn_end=True))
    kept = [row for row in rows if row["step"] <= step]
    if len(kept) < len(rows) or not path.read_bytes().endswith(b"\n"):
        write_atomic(path, "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in kept))
