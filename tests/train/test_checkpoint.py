"""Whatever breaks, a state that was whole stays whole, and a damaged one is never taken."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.train.loop import Trainer
from qwen_eval.train.parallel import World, joined
from tests.train.toy_training import bits, recipe_of, trainer_of, whole_weights, write_packed


@pytest.fixture
def world() -> Iterator[World]:
    with joined() as alone:
        yield alone


@pytest.fixture
def trained(tmp_path: Path, world: World) -> Trainer:
    """Ten steps, a state every second one, the last two kept."""
    corpus = write_packed(tmp_path / "corpus")
    trainer, _ = trainer_of(recipe_of(tmp_path), corpus, tmp_path / "out", world)
    trainer.run()
    return trainer


def again(folder: Path, world: World, **changes: Any) -> Trainer:
    return trainer_of(recipe_of(folder, **changes), folder / "corpus", folder / "out", world)[0]


@contextmanager
def small_disk(limit: int) -> Iterator[None]:
    """No file can grow beyond `limit` bytes: what a full disk looks like, to one file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_the_last_states_stay(trained: Trainer, tmp_path: Path, world: World) -> None:
    states = tmp_path / "out" / "states"
    assert trained.checkpoints.steps() == [8, 10]
    assert sorted(os.listdir(states)) == ["step-00000008", "step-00000010"]
    resumed = again(tmp_path, world)
    assert resumed.done == 10
    assert bits(whole_weights(resumed)) == bits(whole_weights(trained))


def test_a_half_written_state_is_none(trained: Trainer, tmp_path: Path, world: World) -> None:
    states = tmp_path / "out" / "states"
    shutil.copytree(states / "step-00000010", states / ".step-00000012.part")
    (states / "step-00000014").mkdir()
    assert again(tmp_path, world).done == 10
    trained.checkpoints.save(11, trained.model, trained.optimiser)
    assert not (states / ".step-00000012.part").exists()


@pytest.mark.parametrize(
    "changes", [{"seed": 6}, {"part_tokens": 32}, {"dtype": "bfloat16"}, {"keep": 5}]
)
def test_another_recipe_is_refused(
    trained: Trainer, tmp_path: Path, world: World, changes: dict[str, Any]
) -> None:
    if "keep" in changes:  # of this the weights do not depend
        assert again(tmp_path, world, **changes).done == 10
        return
    with pytest.raises(UserError, match="step-00000010: of another recipe or corpus; give another"):
        again(tmp_path, world, **changes)


def test_another_corpus_is_refused(trained: Trainer, tmp_path: Path, world: World) -> None:
    other = write_packed(tmp_path / "other", seed=2)
    with pytest.raises(UserError, match="of another recipe or corpus"):
        trainer_of(recipe_of(tmp_path), other, tmp_path / "out", world)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "state.json"])
@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damage_is_seen_and_the_state_before_is_usable(
    trained: Trainer, tmp_path: Path, world: World, name: str, damage: Callable[[Path], None]
) -> None:
    last = tmp_path / "out" / "states" / "step-00000010"
    damage(last / name)
    if not (last / "state.json").exists():
        assert again(tmp_path, world).done == 8
        return
    with pytest.raises(UserError) as told:
        again(tmp_path, world)
    assert str(last) in str(told.value)
    assert "remove the folder" in str(told.value)
    assert "\n" not in str(told.value)
    shutil.rmtree(last)
    before = again(tmp_path, world)
    assert before.done == 8
    before.run()
    assert bits(whole_weights(before)) == bits(whole_weights(trained))


def test_a_state_that_says_nothing_is_refused(
    trained: Trainer, tmp_path: Path, world: World
) -> None:
    state = tmp_path / "out" / "states" / "step-00000010" / "state.json"
    for text in ("[]", "{}", json.dumps({"step": 10, "run": "x", "files": []}), "null"):
        state.write_text(text)
        with pytest.raises(UserError, match="not a state of a run"):
            again(tmp_path, world)


@pytest.mark.parametrize("limit", [0, 200, 20_000])
def test_a_full_disk_keeps_what_is_there(
    trained: Trainer, tmp_path: Path, world: World, limit: int
) -> None:
    wanted = bits(whole_weights(trained))
    with small_disk(limit), pytest.raises(UserError) as told:
        trained.checkpoints.save(12, trained.model, trained.optimiser)
    line = str(told.value)
    assert "the state after step 12 could not be saved" in line
    assert "that of step 10 is whole; free some space and repeat the same command" in line
    assert "\n" not in line
    assert sorted(os.listdir(tmp_path / "out" / "states")) == ["step-00000008", "step-00000010"]
    resumed = again(tmp_path, world)
    assert resumed.done == 10
    assert bits(whole_weights(resumed)) == wanted


def test_no_state_at_all(tmp_path: Path, world: World) -> None:
    corpus = write_packed(tmp_path / "corpus")
    trainer, _ = trainer_of(recipe_of(tmp_path), corpus, tmp_path / "out", world)
    with small_disk(100), pytest.raises(UserError, match="there is none yet"):
        trainer.run()


def test_when_the_disk_does_not_sync(
    trained: Trainer, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not surely on the disk does not take its name."""

    def fails(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(UserError, match=r"Input/output error.*step 10 is whole"):
        trained.checkpoints.save(12, trained.model, trained.optimiser)
    monkeypatch.undo()
    assert trained.checkpoints.steps() == [8, 10]
