"""A corpus from files to shards: what is dropped, and that a broken run ends like an unbroken."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import time
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.train.data import shards, stage
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.data.pack import PackedCorpus
from qwen_eval.train.data.pipeline import HASHING, Pipeline
from qwen_eval.train.data.recipe import Recipe, read_recipe
from qwen_eval.train.data.shards import read_shard
from qwen_eval.train.data.stage import Folder, locked
from tests.cli.command import PROGRAM, environment
from tests.train.toy_corpus import QUESTION, rows, tree, write_corpus


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    write_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def unbroken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out: Path = tmp_path_factory.mktemp("unbroken") / "out"
    make(data, out)
    return out


def make(data: Path, out: Path, recipe: Recipe | None = None, **changed: int) -> list[str]:
    """Run the toy recipe; the stages that had something to do."""
    phases = []
    Pipeline(
        recipe or read_recipe(data / "recipe.yaml"),
        data,
        out,
        known_tests({"test": [[QUESTION]]}),
        changed.get("memory", 1 << 28),
        changed.get("workers", 1),
        lambda phase, done, total: phases.append(phase),
    ).run()
    stages = dict.fromkeys(phase.split()[0] for phase in phases)
    return [stage for stage in stages if stage != HASHING]


def texts(folder: Path) -> list[str]:
    return [one.text for path in Folder(folder).kept() for one in read_shard(path)]


def test_every_drop_has_its_reason(unbroken: Path) -> None:
    found = {
        name: dict(Folder(unbroken / name).counts().dropped)
        for name in ("1-read", "2-exact", "3-fuzzy", "4-filter", "6-instructions")
    }
    assert found == {
        "1-read": {
            ("read", "empty", "en"): 3,
            ("language", "de", "en"): 3,
            ("read", "binary", "files"): 1,
            ("read", "empty", "files"): 1,
            ("read", "no main text", "files"): 1,
        },
        # Two repeats in each file, and the short one of the second and the third.
        "2-exact": {("exact", "same text", "en"): 8, ("exact", "same text", "zh"): 1},
        "3-fuzzy": {
            ("fuzzy", "nearly the same text", "en"): 3,
            ("fuzzy", "nearly the same text", "zh"): 1,
        },
        "4-filter": {("rules", "words < 30", "en"): 1},
        "6-instructions": {("tests", "13-gram of test", "asked"): 1},
    }


def test_counts_are_those_of_the_shards(unbroken: Path) -> None:
    before = None
    for name in ("1-read", "2-exact", "3-fuzzy", "4-filter"):
        folder = Folder(unbroken / name)
        kept = texts(unbroken / name)
        gone = sum(1 for path in folder.dropped() for _ in read_shard(path))
        counts = folder.counts()
        assert (counts.kept.total(), counts.dropped.total()) == (len(kept), gone)
        assert counts.characters.total() == sum(map(len, kept))
        assert before is None or len(kept) + gone == before
        before = len(kept)


def test_the_packed_corpus_holds_what_was_kept(unbroken: Path) -> None:
    corpus = PackedCorpus(unbroken / "packed", verify=True)
    stream = [token for i in range(len(corpus)) for token in corpus[i].tolist()]
    found = bytes(t if t < 256 else 0 for t in stream).decode("utf-8", "replace").split("\0")
    kept = set(texts(unbroken / "4-filter")) | set(texts(unbroken / "6-instructions"))
    # Of the last document only a part may be left.
    assert set(found[:-1]) <= kept
    assert len(kept - set(found)) <= 1
    asked = texts(unbroken / "6-instructions")
    assert sum(found.count(text) for text in asked) >= 2 * len(asked) - 1
    assert corpus.manifest["tests"] == {"test": {"rows": 1, "too_short": 0}}


def test_workers_and_memory_change_no_byte(data: Path, unbroken: Path, tmp_path: Path) -> None:
    make(data, tmp_path / "out", workers=2, memory=3000)
    assert tree(tmp_path / "out") == tree(unbroken)


def test_small_shards_change_no_document(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_CHARACTERS", 5000)
    make(data, tmp_path / "out")
    assert len(Folder(tmp_path / "out/1-read").kept()) > len(Folder(unbroken / "1-read").kept())
    for name in ("1-read", "2-exact", "3-fuzzy", "4-filter"):
        assert texts(tmp_path / "out" / name) == texts(unbroken / name)
    ours, theirs = (PackedCorpus(out / "packed") for out in (tmp_path / "out", unbroken))
    assert [s["bin"] for s in ours.manifest["shards"]] == [
        s["bin"] for s in theirs.manifest["shards"]
    ]


class Killed(BaseException):
    """Raised where a process would end."""


@pytest.mark.parametrize("step", [61, pytest.param(4, marks=pytest.mark.slow)])
def test_a_break_at_any_file_is_mended(
    data: Path, unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole, replace = tree(unbroken), os.replace
    number = 0
    while True:
        out, left = tmp_path / f"{number}", number

        def breaking(source: Path, target: Path) -> None:
            nonlocal left
            if left == 0:
                raise Killed
            left -= 1
            replace(source, target)

        monkeypatch.setattr(os, "replace", breaking)
        try:
            make(data, out)
        except Killed:
            monkeypatch.setattr(os, "replace", replace)
            make(data, out)
            assert tree(out) == whole, f"broken at file {number}"
        else:
            break
        number += step
    assert number > 50


@pytest.mark.slow
def test_kills_are_mended(data: Path, unbroken: Path, tmp_path: Path) -> None:
    rng = random.Random(4)
    command = [*PROGRAM, "train", "data", str(data / "recipe.yaml"), "--data", str(data)]
    whole = tmp_path / "whole"
    began = time.monotonic()
    subprocess.run([*command, "--out", str(whole)], env=environment(), check=True)
    longest = time.monotonic() - began
    kills = 0
    for workers in ("1", "2"):
        for attempt in range(3):
            out = tmp_path / f"{workers}-{attempt}"
            finished = False
            while not finished:
                started = [*command, "--out", str(out), "--workers", workers]
                with subprocess.Popen(started, env=environment()) as process:
                    try:
                        finished = process.wait(rng.uniform(0.4, 1.1) * longest) == 0
                    except subprocess.TimeoutExpired:
                        process.kill()
                        kills += 1
            assert tree(out) == tree(whole)
    assert kills > 2


def test_nothing_is_done_twice(data: Path, unbroken: Path) -> None:
    assert make(data, unbroken) == []


def test_only_what_depends_on_a_change_is_done_anew(data: Path, tmp_path: Path) -> None:
    out, recipe = tmp_path / "out", read_recipe(data / "recipe.yaml")
    make(data, out)
    assert make(data, out, recipe.model_copy(update={"seed": 4})) == ["packed"]
    changed = recipe.model_copy(update={"rules": {**recipe.rules, "zh": {}}})
    assert make(data, out, changed) == ["4-filter", "7-tokens", "packed"]
    make(data, out)
    assert make(data, out, recipe.model_copy(update={"fuzzy": None})) == [
        "4-filter",
        "7-tokens",
        "packed",
    ]


def test_a_changed_file_is_seen(tmp_path: Path) -> None:
    write_corpus(tmp_path / "data")
    make(tmp_path / "data", tmp_path / "out")
    rows(tmp_path / "data/zh.jsonl", [{"text": "另一个文本。" * 20}])
    assert "1-read" in make(tmp_path / "data", tmp_path / "out")
    make(tmp_path / "data", tmp_path / "new")
    assert tree(tmp_path / "out") == tree(tmp_path / "new")


def test_a_corrupt_shard_is_named(data: Path, tmp_path: Path) -> None:
    make(data, tmp_path)
    (shard, *_) = Folder(tmp_path / "3-fuzzy").kept()
    shard.write_bytes(shard.read_bytes()[:-20])
    recipe = read_recipe(data / "recipe.yaml")
    with pytest.raises(UserError, match=shard.name):
        make(data, tmp_path, recipe.model_copy(update={"rules": {**recipe.rules, "zh": {}}}))


def test_a_full_disk_is_one_line_and_no_loss(data: Path, unbroken: Path, tmp_path: Path) -> None:
    command = [*PROGRAM, "train", "data", str(data / "recipe.yaml"), "--data", str(data)]
    command += ["--workers", "1", "--out", str(tmp_path / "out")]
    done = subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000)),
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert "cannot write" in last
    assert "what is finished is kept" in last
    assert not list((tmp_path / "out").rglob("*.tmp"))
    make(data, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(unbroken)


def test_a_folder_of_something_else_is_left_alone(data: Path, tmp_path: Path) -> None:
    (tmp_path / "1-read").mkdir()
    (tmp_path / "1-read" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="not made by this command"):
        make(data, tmp_path)
    assert (tmp_path / "1-read" / "mine.txt").read_text() == "mine"


def test_two_runs_in_one_folder_are_refused(data: Path, tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(UserError, match="another run is at work"):
        make(data, tmp_path)


def test_a_shard_is_whole_or_not_there(tmp_path: Path) -> None:
    def broken() -> None:
        with shards.shard_writer(tmp_path / "a.jsonl.gz") as writer:
            writer.add({"id": "1"})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken()
    assert list(tmp_path.iterdir()) == []
