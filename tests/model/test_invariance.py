"""The same bits whatever the batch: limits, order, cache, drafts, dtype, threads."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from qwen_eval.model import smollm2
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.engine import (
    Engine,
    EngineRequest,
    EngineResult,
    Generate,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
)
from qwen_eval.model.engine.row_counts import RowCounts, row_counts
from qwen_eval.model.fused import fuse
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model

SHAPE = ModelConfig(
    family="qwen2",
    vocab_size=300,
    hidden_size=96,
    num_layers=2,
    num_heads=6,
    num_kv_heads=2,
    head_dim=16,
    ffn_size=176,
    max_length=600,
    trained_length=600,
    qkv_bias=True,
)
WINDOWED = replace(SHAPE, windows=(None, 40))


@lru_cache
def model_of(config: ModelConfig, dtype: torch.dtype, fused: bool) -> Transformer:
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0)
    model = model.to(dtype).eval().requires_grad_(False)
    return fuse(model) if fused else model


def line(length: int, seed: int) -> tuple[int, ...]:
    return tuple(random.Random(1000 * seed + length).choices(range(300), k=length))


def workload() -> list[EngineRequest]:
    """Two groups behind shared beginnings, one of them over a page, and some alone."""
    work: list[EngineRequest] = []
    for seed, stem in ((1, line(275, 1)), (2, line(40, 2))):
        for n in range(5):
            prompt = stem + line(9 + 7 * n, 10 * seed + n)
            work.append(ScoreContinuations(prompt, (line(1, n), line(4, n), line(17, n))))
            work.append(Generate(prompt, Sampling(max_tokens=12)))
        work.append(Generate(stem * 2, Sampling(max_tokens=20)) if seed == 2 else ScoreTokens(stem))
    work.append(Generate(line(30, 3), Sampling(max_tokens=9, temperature=0.8, top_p=0.9, seed=4)))
    return work


def answers(
    model: Transformer, order: int | None = None, **engine: int | bool
) -> list[EngineResult]:
    work = workload()
    places = list(range(len(work)))
    if order is not None:
        random.Random(order).shuffle(places)
    results = Engine(model, **engine).run([work[i] for i in places])  # type: ignore[arg-type]
    return [result for _, result in sorted(zip(places, results, strict=True))]


@pytest.fixture(params=[1, 2, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("dtype", "fused", "config"),
    [
        (torch.float32, True, SHAPE),
        (torch.float32, False, WINDOWED),
        (torch.bfloat16, True, WINDOWED),
        (torch.bfloat16, False, SHAPE),
    ],
)
def test_the_same_bits_whatever_the_batch(
    dtype: torch.dtype, fused: bool, config: ModelConfig, threads: int
) -> None:
    model = model_of(config, dtype, fused)
    assert Engine(model).exact
    alone = answers(model, max_sequences=1, prefixes=False, drafts=False)
    assert answers(model, max_sequences=8) == alone
    assert answers(model, order=1, max_sequences=64) == alone
    assert answers(model, order=2, max_sequences=3, token_budget=50) == alone
    assert answers(model, max_sequences=8, prefixes=False) == alone
    one_by_one = [Engine(model).run([request])[0] for request in workload()[:6]]
    assert one_by_one == alone[:6]


def test_without_it_nothing_is_promised_and_nothing_is_wrong() -> None:
    model = model_of(SHAPE, torch.float32, True)
    assert not Engine(model, batch_invariant=False).exact
    loose = answers(model, batch_invariant=False)
    for ours, exact in zip(loose, answers(model), strict=True):
        assert repr(ours)[:20] == repr(exact)[:20]


# --- how it is found out ------------------------------------------------------------------------


def test_row_counts_that_change_bits_are_found_and_avoided() -> None:
    """A product that sums in another order where there are fewer than 8 rows, or just 24."""
    weight = torch.randn(40, 3)

    def compute(rows: Tensor) -> Tensor:
        if len(rows) < 8 or len(rows) == 24:
            return rows[:, :20] @ weight[:20] + rows[:, 20:] @ weight[20:]
        return torch.stack([row @ weight for row in rows])

    counts = row_counts(compute, torch.randn(16, 40), (1, 4, 8, 24, 32))
    assert counts == RowCounts((8, 16, 32), exact=True)
    assert [counts.padded(n) for n in (1, 8, 9, 17, 32)] == [8, 8, 16, 32, 32]


def test_rows_that_depend_on_their_place_are_not_called_exact() -> None:
    def compute(rows: Tensor) -> Tensor:
        return rows + torch.arange(len(rows))[:, None]

    counts = row_counts(compute, torch.randn(16, 4), (1, 8))
    assert counts == RowCounts((16,), exact=False)


# --- a real model -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_real_model(dtype: torch.dtype) -> None:
    folder = smollm2.folder()
    if not (folder / "config.json").exists():
        pytest.skip("SmolLM2 is not here: qwen-eval models pull smollm2")
    model, tokenizer = fuse(load_model(folder, dtype)), load_tokenizer(folder)
    stem = "".join(f"Question {n}: what is {n} times 3?\nAnswer: {3 * n}\n\n" for n in range(12))
    prompts = [tuple(tokenizer.encode(f"{stem}Question: {q}\nAnswer:")) for q in (
        "how many legs has a spider?",
        "what is the capital of France, and on which river does it lie?",
        "2 + 2?",
        "who wrote the play about the prince of Denmark, and when was it first printed?",
    )]  # fmt: skip
    options = tuple(tuple(tokenizer.encode(text)) for text in (" 8", " Paris on the Seine", " 4"))
    work: list[EngineRequest] = [ScoreContinuations(prompt, options) for prompt in prompts]
    work += [Generate(prompt, Sampling(max_tokens=6)) for prompt in prompts[:1]]
    expected = Engine(model, max_sequences=1, prefixes=False).run(work)
    for most in (8, 64):
        engine = Engine(model, max_sequences=most)
        assert engine.exact
        assert engine.run(work[::-1])[::-1] == expected
