"""What is held out for measuring: a fair share of every source, the same always, never packed."""

from __future__ import annotations

import math
import os
import random
from pathlib import Path

import pytest

from qwen_eval.train.data import stage
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.data.pack import PackedCorpus
from qwen_eval.train.data.pipeline import HASHING, HELD_OUT, Pipeline
from qwen_eval.train.data.recipe import Recipe
from qwen_eval.train.data.shards import read_shard
from qwen_eval.train.data.stage import Folder
from tests.train.corpora import english
from tests.train.toy_corpus import rows, tree

COUNTS = {"many": 2000, "few": 400}
SHARE = 0.2
RECIPE = {
    "seed": 3,
    "sources": {name: {"files": [f"{name}*.jsonl"], "lang": "xx"} for name in COUNTS},
    "heldout": SHARE,
    "pack": {"length": 64, "shard_sequences": 100},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    rng = random.Random(2)
    for name, count in COUNTS.items():
        rows(folder / f"{name}.jsonl", [{"text": english(rng, 12)} for _ in range(count)])
    return folder


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("unbroken") / "out"
    make(data, out)
    return out


def make(data: Path, out: Path, workers: int = 1, **changed: float) -> set[str]:
    """Make the corpus; the stages that had something to do."""
    phases = set()
    recipe = Recipe.model_validate(RECIPE | changed)
    Pipeline(
        *(recipe, data, out, known_tests({}), 1 << 28, workers),
        lambda phase, done, total: phases.add(phase.split()[0]),
    ).run()
    return phases - {HASHING}


def taken(out: Path, source: str = "") -> set[str]:
    """Ids of what is held out."""
    paths = Folder(out / HELD_OUT).dropped()
    return {d.id for p in paths for d in read_shard(p) if d.source == source or not source}


def test_every_source_gives_its_share(unbroken: Path) -> None:
    counts = Folder(unbroken / HELD_OUT).counts()
    for name, count in COUNTS.items():
        held = len(taken(unbroken, name))
        assert held + counts.kept[name] == Folder(unbroken / "4-filter").counts().kept[name]
        # Four standard deviations of a draw of each document by itself.
        assert abs(held - SHARE * count) < 4 * math.sqrt(count * SHARE * (1 - SHARE))


def test_nothing_held_out_is_packed(unbroken: Path) -> None:
    corpus = PackedCorpus(unbroken / "packed", verify=True)
    stream = [token for i in range(len(corpus)) for token in corpus[i].tolist()]
    packed = bytes(t if t < 256 else 0 for t in stream)
    texts = {
        part: [
            d.text.encode()
            for p in getattr(Folder(unbroken / HELD_OUT), part)()
            for d in read_shard(p)
        ]
        for part in ("kept", "dropped")
    }
    assert texts["dropped"]
    assert not any(text in packed for text in texts["dropped"])
    # All else is there, but for the last part.
    assert sum(text in packed for text in texts["kept"]) >= len(texts["kept"]) - 1


def test_shards_and_workers_change_no_document(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(data, tmp_path / "workers", workers=2)
    assert tree(tmp_path / "workers") == tree(unbroken)
    monkeypatch.setattr(stage, "SHARD_CHARACTERS", 9000)
    make(data, tmp_path / "shards")
    assert len(Folder(tmp_path / "shards" / HELD_OUT).dropped()) > 10
    assert taken(tmp_path / "shards") == taken(unbroken)


def test_a_document_more_moves_no_other(data: Path, unbroken: Path, tmp_path: Path) -> None:
    for path in data.glob("*.jsonl"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    rng = random.Random(8)
    rows(tmp_path / "many1.jsonl", [{"text": english(rng, 12)} for _ in range(100)])
    make(tmp_path, tmp_path / "out")
    assert taken(tmp_path / "out") > taken(unbroken)
    assert taken(tmp_path / "out", "few") == taken(unbroken, "few")


def test_share_and_seed_redo_what_depends_on_them(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path)
    first = taken(tmp_path)
    assert make(data, tmp_path) == set()
    assert make(data, tmp_path, heldout=0.3) == {HELD_OUT, "7-tokens", "packed"}
    more = taken(tmp_path)
    assert more > first, "a larger share keeps what a smaller one took"
    assert make(data, tmp_path, heldout=0.3, seed=4) == {HELD_OUT, "7-tokens", "packed"}
    # Independent draws share about a third of a third.
    assert len(taken(tmp_path) & more) < 0.5 * len(more)


class Killed(BaseException):
    """Raised where a process would end."""


def test_a_break_ends_in_the_same_bytes(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace
    for part in ("dropped", "kept", "counts", "DONE"):
        out = tmp_path / part

        def breaking(source: Path, target: Path, part: str = part) -> None:
            if f"/{HELD_OUT}/{part}" in str(target):
                raise Killed
            replace(source, target)

        monkeypatch.setattr(os, "replace", breaking)
        with pytest.raises(Killed):
            make(data, out)
        monkeypatch.setattr(os, "replace", replace)
        make(data, out)
        assert tree(out) == tree(unbroken)
