"""Our prompts, ids and log-probabilities against lm-evaluation-harness's (bench/goldens.py)."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bench.goldens import GOLDENS, TOLERANCE, Golden, asked_by, our_answers, our_items, path_of
from qwen_eval.backends.base import BackendOptions
from qwen_eval.backends.native import NativeBackend
from qwen_eval.datasets import open_data, take
from qwen_eval.fileio import text_hash
from qwen_eval.taskspec import find_task
from qwen_eval.types import Item

COMPUTED = 12  # items of each set whose log-probabilities are computed here; the bench does all
CHOICES = [golden for golden in GOLDENS if not golden.recipe.startswith("gsm8k")]


def goldens(recipe: str) -> dict[str, dict[str, Any]]:
    if not path_of(recipe).exists():
        pytest.skip(f"no goldens of {recipe} yet: `python -m bench.goldens` writes them")
    with gzip.open(path_of(recipe), "rt", encoding="utf-8") as file:
        return {row["id"]: row for row in map(json.loads, file)}


def items(golden: Golden, mirror: Path) -> list[Item]:
    return [item for _, item in our_items(golden, mirror)]


@pytest.fixture(scope="module")
def backend(smollm2: Path) -> NativeBackend:
    return NativeBackend.open(str(smollm2), BackendOptions(dtype="float32", batch=8))


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.recipe)
def test_the_same_items_are_asked_in_the_same_bytes(golden: Golden, mirror: Path) -> None:
    known = goldens(golden.recipe)
    asked = items(golden, mirror)
    assert [item.sample.id for item in asked] == list(known)
    for item in asked:
        expected = known[item.sample.id]
        pairs = asked_by(item) or [(item.prompt.full_text, "")]
        contexts = dict.fromkeys(context for context, _ in pairs)
        assert [text_hash(context) for context in contexts] == expected["prompts"]
        if item.options:
            assert [text_hash(option) for _, option in pairs] == expected["options"]


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda golden: golden.recipe)
def test_prompts_have_the_ids_of_transformers_tokenizer(
    golden: Golden, mirror: Path, smollm2: Path
) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(smollm2)
    known = goldens(golden.recipe)
    for item in items(golden, mirror):
        pairs = asked_by(item) or [(item.prompt.full_text, "")]
        contexts = dict.fromkeys(context for context, _ in pairs)
        ids = [theirs.encode(context) for context in contexts]
        assert [text_hash(str(one)) for one in ids] == known[item.sample.id]["ids"]


@pytest.mark.slow
@pytest.mark.parametrize("golden", CHOICES, ids=lambda golden: golden.recipe)
def test_log_probabilities_are_theirs(golden: Golden, mirror: Path, backend: NativeBackend) -> None:
    known = goldens(golden.recipe)
    # The shortest, for the sake of time: which these are says nothing of how they come out.
    asked = sorted(items(golden, mirror), key=lambda item: len(item.prompt.full_text))[:COMPUTED]
    for item, found in zip(asked, our_answers(backend, asked), strict=True):
        assert found == pytest.approx(known[item.sample.id]["logprobs"], abs=TOLERANCE)


@pytest.mark.parametrize(
    "golden", [g for g in CHOICES if g.recipe != "hellaswag@lm-eval"], ids=lambda g: g.recipe
)
def test_the_hubs_columns_make_the_mirrors_rows(golden: Golden, mirror: Path) -> None:
    """HellaSwag's mirror has lost a capital, which nothing can bring back."""
    rows = [
        sample.row
        for sample in take(open_data(find_task(golden.recipe)[0], mirror).samples(), golden.count)
    ]
    assert [item.sample.row for item in items(golden, mirror)] == rows
