"""What is written beside training reads as if nothing had ever broken."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.train.callbacks import Judge, Log, TensorBoard, WandB, cut_after
from qwen_eval.train.loop import Trainer
from qwen_eval.train.parallel import World, joined
from tests.train.test_checkpoint import small_disk
from tests.train.toy_training import recipe_of, trainer_of, write_packed


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


class Kept:
    """A journal in memory."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.closed = False

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.rows.append((step, dict(values)))

    def close(self) -> None:
        self.closed = True


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def toy(folder: Path, world: World, out: str = "out") -> Trainer:
    corpus = folder / "corpus"
    if not corpus.exists():
        write_packed(corpus)
    return trainer_of(recipe_of(folder), corpus, folder / out, world)[0]


def test_the_log_is_every_step_once(tmp_path: Path, world: World) -> None:
    trainer, kept = toy(tmp_path, world), Kept()
    log = Log(tmp_path / "out" / "log.jsonl", lambda length: 10.0 * length, (kept,))
    told = trainer.callbacks[0]
    trainer.callbacks = [told, log]
    trainer.run()
    written = rows(log.path)
    assert [row["step"] for row in written] == list(range(1, 11))
    for row, step in zip(written, told.steps, strict=True):  # type: ignore[attr-defined]
        assert row["loss"] == step.loss
        assert row["learning_rate"] == step.learning_rate
        length = 16 if step.number <= 6 else 32
        assert row["tokens"] == 128 * step.number
        assert row["tokens_per_second"] == pytest.approx(128 / step.seconds, abs=0.1)
        flops = 10 * length * 128 / step.seconds
        assert row["gflops"] == pytest.approx(flops / 1e9, abs=0.06)
    assert kept.rows == [(row.pop("step"), row) for row in rows(log.path)]
    assert kept.closed


@pytest.mark.parametrize("torn", ["", '{"step":7,"lo'])
def test_a_resumed_log_is_cut(tmp_path: Path, world: World, torn: str) -> None:
    path = tmp_path / "out" / "log.jsonl"
    path.parent.mkdir()
    stale = "".join(json.dumps({"step": n, "loss": 0.1 + 0.2}) + "\n" for n in range(1, 7))
    path.write_text(stale + torn)
    cut_after(path, 4)
    assert path.read_text().count("\n") == 4
    assert [row["step"] for row in rows(path)] == [1, 2, 3, 4]
    assert rows(path)[0]["loss"] == 0.1 + 0.2
    cut_after(path, 4)
    cut_after(tmp_path / "new" / "log.jsonl", 4)
    assert (tmp_path / "new").is_dir()


def test_a_full_disk_is_one_line(tmp_path: Path, world: World) -> None:
    trainer = toy(tmp_path, world)
    trainer.callbacks = [Log(tmp_path / "out" / "log.jsonl", lambda length: 1.0)]
    with small_disk(300), pytest.raises(UserError, match=r"cannot write .*log\.jsonl"):
        trainer.run()


def test_the_model_is_looked_at_when_it_is_time(tmp_path: Path, world: World) -> None:
    looked: list[tuple[Path, int]] = []
    kept = Kept()

    def look(folder: Path, step: int) -> dict[str, float]:
        looked.append((folder, step))
        return {"mmlu": step / 10}

    def judge(out: str) -> Judge:
        folder = tmp_path / out / "looked"
        return Judge(4, lambda path: None, folder, tmp_path / out / "e.jsonl", look, (kept,))

    trainer = toy(tmp_path, world)
    trainer.callbacks = [judge("out")]
    trainer.run()
    folder = tmp_path / "out" / "looked"
    assert looked == [(folder, 4), (folder, 8), (folder, 10)]  # the last step's always
    wanted = [{"step": step, "mmlu": step / 10} for step in (4, 8, 10)]
    assert rows(tmp_path / "out" / "e.jsonl") == wanted == [{"step": s, **v} for s, v in kept.rows]


def test_without_tensorboard_or_wandb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="--tensorboard: not installed; pip install tensorboard"):
        TensorBoard(tmp_path)
    with pytest.raises(UserError, match="--wandb: not installed; pip install wandb"):
        WandB("project", tmp_path)


def test_what_tensorboard_and_wandb_are_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Stand-ins with the real ones' signatures: neither package is needed for the tests."""
    calls: list[Any] = []

    class SummaryWriter:
        def __init__(self, log_dir: str, purge_step: int | None = None) -> None:
            calls.append(("open", log_dir, purge_step))

        def add_scalar(self, tag: str, scalar_value: float, global_step: int) -> None:
            calls.append((tag, scalar_value, global_step))

        def close(self) -> None:
            calls.append("closed")

    board, weights = ModuleType("torch.utils.tensorboard"), ModuleType("wandb")
    board.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]

    class Run:
        def log(self, data: dict[str, float], step: int) -> None:
            calls.append((data, step))

        def finish(self) -> None:
            calls.append("finished")

    def init(project: str, id: str, dir: str, resume: str) -> Run:
        calls.append((project, id, dir, resume))
        return Run()

    weights.init = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "wandb", weights)
    journal = TensorBoard(tmp_path)
    journal.figures(7, {"loss": 2.5})
    journal.close()
    assert calls == [("open", str(tmp_path), 7), ("loss", 2.5, 7), "closed"]
    TensorBoard(tmp_path).close()  # a run that was complete writes nothing
    calls.clear()
    for _ in range(2):
        WandB("mine", tmp_path).figures(7, {"loss": 2.5, "ratio": float("nan")})
    name = (tmp_path / "wandb.id").read_text()
    begun = ("mine", name, str(tmp_path), "allow")
    assert calls == [begun, ({"loss": 2.5}, 7)] * 2  # resumed under its name
