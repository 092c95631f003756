"""States of a training run on disk: weights and optimiser of all processes, and where it stood.

torch.distributed.checkpoint writes each process's shares and reads them back for any number of
processes. A folder takes its name when all of it is on the disk, so whatever breaks in between, the
state before it is whole. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, write_atomic

from .parallel import World

STATE = "state.json"


@dataclass(frozen=True)
class Checkpoints:
    """A folder of states, the last `keep` of which stay.

    run: what the states belong to (a digest of recipe and corpus); another's are refused.
    """

    folder: Path
    run: str
    keep: int
    world: World

    def save(self, step: int, model: nn.Module, optimiser: torch.optim.Optimizer) -> Path:
        """Write the state after a step. Raises UserError if the disk refuses; older ones stay."""
        final, part = self._path(step), self.folder / f".step-{step:08}.part"
        problem = ""
        try:
            if self.world.rank == 0:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir(parents=True)
            self.world.wait()
            weights, states = get_state_dict(model, optimiser)
            with torch.no_grad():
                save({"model": weights, "optimiser": states}, checkpoint_id=part)
            if self.world.rank == 0:
                write_atomic(part / STATE, canonical_json({"step": step, "run": self.run}) + "\n")
                _sync(part)
                shutil.rmtree(final, ignore_errors=True)
                os.replace(part, final)
        except (OSError, UserError, CheckpointException) as error:
            problem = _first_line(error)
        if any(self.world.sum(float(bool(problem)))):
            if self.world.rank == 0:
                shutil.rmtree(part, ignore_errors=True)
            last = self.steps()
            kept = f"that of step {last[-1]} is whole" if last else "there is none yet"
            raise UserError(
                f"{self.folder}: the state after step {step} could not be saved "
                f"({problem or 'in another process'}); {kept}; free some space and repeat the same "
                "command"
            )
        if self.world.rank == 0:
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self._path(old), ignore_errors=True)
        self.world.wait()
        return final

    def load(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> int:
        """Take the newest state, in place; the number of its step, 0 where there is none.

        Raises UserError for a state of another run, or one that cannot be read.
        """
        steps = self.steps()
        if not steps:
            return 0
        path = self._path(steps[-1])
        state = _read_state(path)
        if state["run"] != self.run:
            raise UserError(
                f"{path}: of another recipe or corpus; give another --out, or remove the folder"
            )
        weights, states = get_state_dict(model, optimiser)
        whole: dict[str, Any] = {"model": weights, "optimiser": states}
        try:
            load(whole, checkpoint_id=path)
        except (OSError, ValueError, RuntimeError, CheckpointException) as error:
            raise UserError(
                f"{path}: cannot be read ({_first_line(error)}); remove the folder to go on from "
                "the state before it"
            ) from error
        set_state_dict(
            model,
            optimiser,
            model_state_dict=whole["model"],
            optim_state_dict=whole["optimiser"],
        )
        return int(state["step"])

    def steps(self) -> list[int]:
        """Steps whose states are whole, in order."""
        found = self.folder.glob(f"step-*/{STATE}")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        return {"step": int(state["step"]), "run": str(state["run"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a state of a run ({error}); remove the folder") from error


def _sync(folder: Path) -> None:
    """All files of a folder are on the disk, not only on their way there."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
