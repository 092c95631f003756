"""A toy model, requests of every kind, and their answers by one full forward pass per token."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from qwen_eval.model.attention import Span, pack
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.engine import (
    ContinuationScore,
    Engine,
    EngineRequest,
    EngineResult,
    Generate,
    Generated,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
)
from qwen_eval.model.engine.sampling import choose
from qwen_eval.model.rope import ntk_alpha
from qwen_eval.model.transformer import Transformer

VOCABULARY = 30
# S is 8, so that NTK's alpha takes the values 1, 3, 7 and 15 within a context of 64.
CONFIG = ModelConfig(
    family="qwen",
    vocab_size=VOCABULARY,
    hidden_size=24,
    num_layers=2,
    num_heads=3,
    num_kv_heads=3,
    head_dim=8,
    ffn_size=20,
    rope_base=100.0,
    max_length=64,
    trained_length=8,
    qkv_bias=True,
    ntk=True,
    logn=True,
    windows=(None, 6),
)
CHUNKED = replace(CONFIG, ntk_chunks=True)
GROUPED = replace(
    CONFIG, family="qwen2", num_heads=4, num_kv_heads=2, ntk=False, logn=False, windows=()
)


@lru_cache
def toy(config: ModelConfig = CONFIG) -> Transformer:
    """fp64 weights: two ways to the same logits then almost never differ in the best token."""
    generator = torch.Generator().manual_seed(3)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.5, generator=generator)
    return model.double().eval().requires_grad_(False)


def ids(length: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(1000 * length + seed)
    return tuple(torch.randint(VOCABULARY, (length,), generator=generator).tolist())


def full_logits(model: Transformer, tokens: Sequence[int], alpha: float) -> Tensor:
    batch = pack(model.config, torch.tensor(tokens), (Span(len(tokens), alpha),))
    return model.logits(model.hidden(batch)).float()


def alone(model: Transformer, request: EngineRequest) -> EngineResult:
    """The answer by whole forward passes over one sequence at a time."""
    prompt = request.ids if isinstance(request, ScoreTokens) else request.prompt
    config, trained = model.config, model.config.trained_length
    alpha = ntk_alpha(len(prompt), trained) if config.ntk else 1.0

    def scored(line: Sequence[int], start: int) -> ContinuationScore:
        logits = full_logits(model, line, alpha)[start - 1 : -1]
        targets = torch.tensor(line[start:])
        logprobs = logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]
        return ContinuationScore(
            tuple(logprobs.tolist()), bool((logits.argmax(-1) == targets).all())
        )

    if isinstance(request, ScoreTokens) and config.ntk_chunks:
        logprobs = []
        for end in range(1, len(prompt)):
            row = full_logits(model, prompt[:end], ntk_alpha(end, trained))[-1]
            logprobs.append(float(row.log_softmax(-1)[prompt[end]]))
        return tuple(logprobs)
    if isinstance(request, ScoreTokens):
        return scored(request.ids, 1).logprobs if len(request.ids) > 1 else ()
    if isinstance(request, ScoreContinuations):
        return tuple(scored(prompt + c, len(prompt)) for c in request.continuations)
    tokens, told = list(prompt), list[float]()
    generator = torch.Generator().manual_seed(request.sampling.seed)
    while True:
        if config.ntk_chunks:
            alpha = ntk_alpha(len(tokens), trained)
        row = full_logits(model, tokens, alpha)[-1]
        token = choose(row, request.sampling, tokens, generator)
        if token in request.stop_ids:
            return Generated(tuple(tokens[len(prompt) :]), tuple(told), "stop")
        tokens.append(token)
        told.append(float(row.log_softmax(-1)[token]))
        new = tokens[len(prompt) :]
        if request.should_stop and request.should_stop(new):
            return Generated(tuple(new), tuple(told), "stop")
        if len(new) == request.sampling.max_tokens:
            return Generated(tuple(new), tuple(told), "length")


def assert_same(ours: EngineResult, expected: EngineResult) -> None:
    if isinstance(expected, Generated):
        assert isinstance(ours, Generated)
        assert (ours.ids, ours.reason) == (expected.ids, expected.reason)
        assert ours.logprobs == pytest.approx(expected.logprobs, abs=1e-5)
        return
    assert isinstance(ours, tuple)
    assert len(ours) == len(expected)
    for mine, theirs in zip(ours, expected, strict=True):
        if isinstance(theirs, ContinuationScore):
            assert isinstance(mine, ContinuationScore)
            assert mine.greedy == theirs.greedy
            assert mine.logprobs == pytest.approx(theirs.logprobs, abs=1e-5)
        else:
            assert mine == pytest.approx(theirs, abs=1e-5)


def continuations(result: EngineResult) -> list[ContinuationScore]:
    assert isinstance(result, tuple)
    return [score for score in result if isinstance(score, ContinuationScore)]


def mixed() -> list[EngineRequest]:
    """One of each kind and edge."""
    sampled = Sampling(max_tokens=9, temperature=0.9, top_p=0.9, top_k=20, seed=5)
    return [
        Generate(ids(20), Sampling(max_tokens=12)),
        ScoreContinuations(ids(17), (ids(1), ids(4), ids(7), ids(1, 1), ids(2))),
        Generate(ids(7), Sampling(max_tokens=12)),
        ScoreTokens(ids(40)),
        Generate(ids(1), sampled),
        ScoreTokens(ids(1)),
        ScoreContinuations(ids(1), (ids(2),)),
        ScoreContinuations(ids(9), (ids(1),)),
        Generate(ids(3), replace(sampled, repetition_penalty=1.5, seed=6)),
        Generate(ids(40), Sampling(max_tokens=1)),
        ScoreTokens(ids(2)),
        ScoreContinuations(ids(33), tuple(ids(n, n) for n in (3, 3, 12))),
    ]


def drive(
    engine: Engine,
    work: Iterable[tuple[EngineRequest, int]],
    cancelled: Collection[int],
    after_step: Callable[[], None],
) -> None:
    """Submit requests with so many steps behind each, cancel some on their way, step to the end:
    every other one is answered once, and as it is alone."""
    submitted: dict[int, EngineRequest] = {}
    results: dict[int, EngineResult] = {}

    def step() -> None:
        for job, result in engine.step():
            assert job not in results
            results[job] = result
        after_step()

    for number, (request, pause) in enumerate(work):
        job = engine.submit(request)
        submitted[job] = request
        for _ in range(pause):
            step()
        if number in cancelled and job not in results:
            engine.cancel(job)
            del submitted[job]
    steps = 0
    while engine.pending:
        step()
        steps += 1
        assert steps < 1000
    assert results.keys() == submitted.keys()
    for job, request in submitted.items():
        assert_same(results[job], alone(engine.model, request))
