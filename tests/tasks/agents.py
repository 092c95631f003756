"""Drives an agent's solver with replies that a test has written, in a real sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qwen_eval.backends.base import BackendInfo
from qwen_eval.cli.setup import load_tasks
from qwen_eval.runner import Finished, Runner
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.types import Item, ModelRequest, Response


class Scripted:
    """Says the replies one after the other, then the last one again; keeps what it was asked."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.asked = replies, list[ModelRequest]()
        self._ready = list[tuple[int, Response]]()

    def submit(self, request: ModelRequest) -> int:
        self.asked.append(request)
        text = self.replies[min(len(self.asked), len(self.replies)) - 1]
        self._ready.append((len(self.asked), Response(text=text, finish_reason="stop")))
        return len(self.asked)

    def step(self) -> list[tuple[int, Response]]:
        ready, self._ready = self._ready, []
        return ready

    def info(self) -> BackendInfo:
        return BackendInfo("scripted", concurrency=4)

    def close(self) -> None:
        """Nothing to release."""


def items_of(task: str) -> dict[str, Item]:
    """A task's items by their rows' ids."""
    (loaded,) = load_tasks(task, None, None)
    return {item.sample.row["id"]: item for item in loaded.items}


def with_row(item: Item, **fields: object) -> Item:
    """An item whose row says something else."""
    return replace(item, sample=replace(item.sample, row={**item.sample.row, **fields}))


def converse(item: Item, sandbox: Sandbox, *replies: str) -> tuple[Finished, Scripted]:
    """The end of one sample, and the model that it asked."""
    backend = Scripted(*replies)
    solve = SOLVERS["hf_agent" if item.recipe.startswith("hf_agent") else "code_interpreter"]
    (finished,) = Runner(backend, solve, sandbox).run([item])
    return finished, backend


def cells_of(finished: Finished) -> Sequence[Response]:
    """What was run, in order."""
    return [r for r in finished.responses if r.finish_reason == "executed"]
