"""Memory is that of a shard and of a budget, whatever the size of the corpus."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest

from qwen_eval.train.data import minhash, stage
from qwen_eval.train.data.decontaminate import known_tests
from qwen_eval.train.data.pipeline import Pipeline
from qwen_eval.train.data.recipe import Recipe
from tests.train.corpora import chinese
from tests.train.toy_corpus import rows

RECIPE = {
    "sources": {"zh": {"files": ["zh.jsonl"], "lang": "zh"}},
    "fuzzy": {},
    "rules": {"zh": {"words": {"min": 10}, "repeated_5grams": {"max": 0.5}}},
    "pack": {"length": 64, "shard_sequences": 1024},
}


def peak(folder: Path, documents: int) -> int:
    """Most bytes that Python and numpy held while a corpus was made."""
    folder.mkdir()
    rng = random.Random(1)
    rows(folder / "zh.jsonl", [{"text": chinese(rng, 400)} for _ in range(documents)])
    recipe = Recipe.model_validate(RECIPE)
    pipeline = Pipeline(recipe, folder, folder / "out", known_tests({}), 20_000, 1, lambda *_: None)
    tracemalloc.start()
    pipeline.run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


@pytest.mark.slow
def test_six_times_the_corpus_needs_little_more_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD_CHARACTERS", 60_000)
    monkeypatch.setattr(minhash, "_PAIRS", 256)
    peak(tmp_path / "warm", 20)  # tables and models that are loaded once
    one, six = peak(tmp_path / "one", 300), peak(tmp_path / "six", 1800)
    text = (tmp_path / "six" / "zh.jsonl").stat().st_size
    print(f"{one:,} bytes, and {six:,} for a corpus of {text:,}")
    # What grows: a few numbers a document, and what is known of each shard.
    assert six - one < 100 * 1500 + 4000 * 24
