"""States of a training run on disk: weights and optimiser of all processes, and where it stood.

torch.distributed.checkpoint writes each process's shares and reads them back for any number of
processes. A folder takes its name when all of it is on the disk, so whatever breaks in between, the
state before it is whole. Weights that are frozen are in no state: they are where the model came
from. Knows nothing of what is trained.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, file_hash, write_atomic

from .parallel import World

STATE = "state.json"
# Not strict: what is frozen is not missed.
TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)
# One for all weights, or several that share them out.
Optimisers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]


@dataclass(frozen=True)
class Checkpoints:
    """A folder of states, the last `keep` of which stay.

    run: what the states belong to (a digest of recipe and corpus); another's are refused.
    """

    folder: Path
    run: str
    keep: int
    world: World

    def save(self, step: int, model: nn.Module, optimisers: Optimisers) -> Path:
        """Write the state after a step. Raises UserError if the disk refuses; older ones stay."""
        final, part = self._path(step), self._part(step)
        try:
            with self._together():
                self._clear()
                if self.world.rank == 0:
                    part.mkdir(parents=True)
            weights, states = get_state_dict(model, optimisers, options=TRAINED)
            with self._together(), torch.no_grad():
                save({"model": weights, "optimiser": states}, checkpoint_id=part)
            with self._together():
                hashes = self._hashes(sorted(path.name for path in part.iterdir()), part)
            found = {name: told for one in self.world.gather(hashes) for name, told in one.items()}
            with self._together():
                if self.world.rank == 0:
                    state = {"step": step, "run": self.run, "files": found}
                    write_atomic(part / STATE, canonical_json(state) + "\n")
                    _sync(part)
                    shutil.rmtree(final, ignore_errors=True)
                    os.replace(part, final)
                    _sync_one(self.folder)
                    for old in self.steps()[: -self.keep]:
                        # Renamed first: what is left of it by a kill is no state.
                        os.replace(self._path(old), self._part(old))
                    self._clear()
        except UserError as error:
            self._clear()
            last = self.steps()
            kept = f"that of step {last[-1]} is whole" if last else "there is none yet"
            raise UserError(
                f"{self.folder}: the state after step {step} could not be saved ({error}); {kept}; "
                "free some space and repeat the same command"
            ) from error
        return final

    def load(self, model: nn.Module, optimisers: Optimisers) -> int:
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
        weights, states = get_state_dict(model, optimisers, options=TRAINED)
        whole: dict[str, Any] = {"model": weights, "optimiser": states}
        try:
            with self._together():
                if self._hashes(sorted(state["files"]), path).items() - state["files"].items():
                    raise UserError("not the bytes that were written")
            with self._together():
                load(whole, checkpoint_id=path)
        except UserError as error:
            raise UserError(
                f"{path}: cannot be read ({error}); remove the folder to go on from the state "
                "before it"
            ) from error
        set_state_dict(
            model,
            optimisers,
            model_state_dict=whole["model"],
            optim_state_dict=whole["optimiser"],
            options=TRAINED,
        )
        return int(state["step"])

    def steps(self) -> list[int]:
        """Steps whose states are whole, in order."""
        found = self.folder.glob(f"step-*/{STATE}")
        return sorted(int(path.parent.name.removeprefix("step-")) for path in found)

    def _path(self, step: int) -> Path:
        return self.folder / f"step-{step:08}"

    def _part(self, step: int) -> Path:
        return self.folder / f".step-{step:08}.part"

    def _clear(self) -> None:
        """Remove what broken runs left half-written."""
        if self.world.rank == 0:
            for part in self.folder.glob(".step-*.part"):
                shutil.rmtree(part, ignore_errors=True)

    def _hashes(self, names: list[str], folder: Path) -> dict[str, str]:
        """Of this process's share of the files."""
        mine = names[self.world.rank :: self.world.size]
        return {name: file_hash(folder / name) for name in mine}

    @contextmanager
    def _together(self) -> Iterator[None]:
        """What the disk refuses to one process is a UserError in all."""
        with self.world.agreed():
            try:
                yield
            except (OSError, ValueError, RuntimeError, CheckpointException) as error:
                raise UserError(_cause(error)) from error


def _read_state(path: Path) -> dict[str, Any]:
    try:
        state = json.loads((path / STATE).read_text(encoding="utf-8"))
        files = {str(name): str(told) for name, told in state["files"].items()}
        return {"step": int(state["step"]), "run": str(state["run"]), "files": files}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a state of a run ({error}); remove the folder") from error


def _sync(folder: Path) -> None:
    """All files of a folder are on the disk, not only on their way there."""
    for path in [*folder.iterdir(), folder]:
        _sync_one(path)


def _sync_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _cause(error: BaseException) -> str:
    """In one line; of what failed in several processes, the first."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    strerror = getattr(error, "strerror", None)
    return strerror or (str(error).strip() or type(error).__name__).splitlines()[0]
