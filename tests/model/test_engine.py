"""The engine against one full forward pass per token: nothing it saves may change an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.engine import (
    Engine,
    EngineRequest,
    EngineResult,
    Generate,
    Generated,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
)
from qwen_eval.model.engine.pages import page_bytes
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model
from tests.model.toy_engine import (
    CHUNKED,
    CONFIG,
    GROUPED,
    VOCABULARY,
    alone,
    assert_same,
    continuations,
    drive,
    full_logits,
    ids,
    mixed,
    toy,
)


@pytest.mark.parametrize("config", [CONFIG, CHUNKED, GROUPED])
@pytest.mark.parametrize("token_budget", [1, 7, 2048])
@pytest.mark.parametrize("max_sequences", [1, 3, 32])
def test_cached_batched_and_chunked_is_alone(
    config: ModelConfig, token_budget: int, max_sequences: int
) -> None:
    model = toy(config)
    engine = Engine(model, token_budget=token_budget, max_sequences=max_sequences)
    for request, result in zip(mixed(), engine.run(mixed()), strict=True):
        assert_same(result, alone(model, request))
    assert engine.pending == 0


@st.composite
def requests(draw: st.DrawFn) -> EngineRequest:
    line = st.integers(0, VOCABULARY - 1)
    prompt = tuple(draw(st.lists(line, min_size=1, max_size=36)))
    kind = draw(st.sampled_from(["generate", "continuations", "tokens"]))
    if kind == "tokens":
        return ScoreTokens(prompt)
    if kind == "continuations":
        continuation = st.lists(line, min_size=1, max_size=8).map(tuple)
        return ScoreContinuations(
            prompt, tuple(draw(st.lists(continuation, min_size=1, max_size=5)))
        )
    sampling = Sampling(
        max_tokens=draw(st.integers(1, 12)),
        temperature=draw(st.sampled_from([0.0, 0.0, 0.8, 1.5])),
        top_p=draw(st.sampled_from([1.0, 0.8])),
        top_k=draw(st.sampled_from([0, 5])),
        repetition_penalty=draw(st.sampled_from([1.0, 1.3])),
        seed=draw(st.integers(0, 9)),
    )
    stops = frozenset(draw(st.lists(line, max_size=3)))
    limit = draw(st.integers(0, 5))
    should_stop = (lambda new: new[-1] < limit) if limit else None
    return Generate(prompt, sampling, stops, should_stop)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    work=st.lists(requests(), min_size=1, max_size=8),
    config=st.sampled_from([CONFIG, CHUNKED, GROUPED]),
    max_sequences=st.integers(1, 5),
    token_budget=st.integers(1, 30),
    page_size=st.sampled_from([16, 32, 64]),
    pages=st.integers(20, 40),
    batch_invariant=st.booleans(),
    pauses=st.lists(st.integers(0, 4), min_size=8, max_size=8),
    cancelled=st.sets(st.integers(0, 7), max_size=2),
)
def test_any_workload_gives_each_request_its_own_answer(
    *,
    work: list[EngineRequest],
    config: ModelConfig,
    max_sequences: int,
    token_budget: int,
    page_size: int,
    pages: int,
    batch_invariant: bool,
    pauses: list[int],
    cancelled: set[int],
) -> None:
    model = toy(config)
    engine = Engine(
        model,
        max_sequences=max_sequences,
        token_budget=token_budget,
        cache_bytes=pages * page_bytes(config, torch.float64, page_size),
        page_size=page_size,
        batch_invariant=batch_invariant,
    )
    seen = (0, 0)

    def feeds_no_more_than_it_may() -> None:
        nonlocal seen
        before, seen = seen, (engine.stats.prompt_tokens, engine.stats.decoded_tokens)
        assert seen[0] - before[0] <= token_budget
        assert seen[1] - before[1] <= max_sequences

    drive(engine, zip(work, pauses, strict=False), cancelled, feeds_no_more_than_it_may)


def test_joining_and_leaving_mid_flight() -> None:
    model, engine = toy(), Engine(toy(), token_budget=9)
    work = mixed()
    waiting, jobs, results = list(work), {}, dict[int, EngineResult]()
    order: list[int] = []
    while waiting or engine.pending:
        if waiting:
            request = waiting.pop(0)
            jobs[engine.submit(request)] = request
        for job, result in engine.step():
            results[job] = result
            order.append(job)
    assert order != sorted(order), "short requests leave while long ones go on"
    for job, request in jobs.items():
        assert_same(results[job], alone(model, request))


@pytest.mark.parametrize("penalty", [1.0, 1.4])
@pytest.mark.parametrize("with_stop", [False, True])
def test_greedy_is_that_of_transformers_generate(
    tmp_path: Path, penalty: float, with_stop: bool
) -> None:
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    theirs = transformers.Qwen2ForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(0.1, 0.6, generator=generator)
    theirs.save_pretrained(tmp_path)
    engine = Engine(load_model(tmp_path), token_budget=11)
    prompts = [ids(n) for n in (1, 4, 19, 30)]
    stops = frozenset({2, 3, 5, 7, 11, 13}) if with_stop else frozenset[int]()
    sampling = Sampling(max_tokens=15, repetition_penalty=penalty)
    results = engine.run([Generate(p, sampling, stops) for p in prompts])
    for prompt, result in zip(prompts, results, strict=True):
        out = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            max_new_tokens=15,
            do_sample=False,
            repetition_penalty=penalty,
            eos_token_id=sorted(stops) or None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        new = out.sequences[0, len(prompt) :].tolist()
        ended = bool(new) and new[-1] in stops
        assert isinstance(result, Generated)
        assert list(result.ids) == (new[:-1] if ended else new)
        assert result.reason == ("stop" if ended else "length")
        rows = [float(row[0].log_softmax(-1)[t]) for row, t in zip(out.logits, new, strict=True)]
        assert result.logprobs == pytest.approx(rows[: len(result.ids)], abs=1e-4)


def test_greedy_flags() -> None:
    model, prompt = toy(), ids(11)
    best = alone(model, Generate(prompt, Sampling(max_tokens=5)))
    assert isinstance(best, Generated)
    other = [(token + 1) % VOCABULARY for token in best.ids]
    lines = [
        best.ids,
        best.ids[:1],
        (*best.ids[:4], other[4]),
        (other[0], *best.ids[1:]),
        (other[0],),
        (*best.ids[:2], other[2], *best.ids[3:]),
    ]
    scores = Engine(model, token_budget=7).run([ScoreContinuations(prompt, tuple(lines))])[0]
    assert [score.greedy for score in continuations(scores)] == [
        True,
        True,
        False,
        False,
        False,
        False,
    ]


def test_ends_of_an_answer() -> None:
    model, prompt = toy(), ids(5)
    whole = Engine(model).run([Generate(prompt, Sampling(max_tokens=20))])[0]
    assert isinstance(whole, Generated)
    assert whole.reason == "length"
    assert len(whole.ids) == len(whole.logprobs) == 20
    place = next(i for i in range(3, 20) if whole.ids[i] not in whole.ids[:i])
    seen: list[list[int]] = []

    def should_stop(new: Sequence[int]) -> bool:
        seen.append(list(new))
        return len(new) == 4

    stop = frozenset({whole.ids[place]})
    results = Engine(model).run(
        [
            Generate(prompt, Sampling(max_tokens=20), stop),
            Generate(prompt, Sampling(max_tokens=20), frozenset(), should_stop),
            Generate(prompt, Sampling(max_tokens=20), frozenset({whole.ids[0]})),
            Generate(prompt, Sampling(max_tokens=4), frozenset(), lambda new: len(new) == 4),
            Generate(prompt, Sampling(max_tokens=place), stop),
        ]
    )
    assert [(r.ids, r.reason) for r in results if isinstance(r, Generated)] == [
        (whole.ids[:place], "stop"),
        (whole.ids[:4], "stop"),
        ((), "stop"),
        (whole.ids[:4], "stop"),
        (whole.ids[:place], "length"),
    ]
    assert seen == [list(whole.ids[:n]) for n in range(1, 5)]


def test_a_seed_gives_the_same_answer_whoever_runs_beside_it() -> None:
    model = toy()
    hot = Sampling(max_tokens=15, temperature=1.0, seed=7)
    request = Generate(ids(6), hot)
    first = Engine(model).run([request])[0]
    torch.manual_seed(99)
    crowd: list[EngineRequest] = [*mixed(), request, Generate(ids(6), replace(hot, seed=8))]
    results = Engine(model, token_budget=13, max_sequences=5).run([request, *crowd])
    for twin in (results[0], results[len(mixed()) + 1]):
        assert_same(twin, first)
    assert isinstance(first, Generated)
    assert isinstance(results[-1], Generated)
    assert results[-1].ids != first.ids


def test_log_probabilities_are_the_models_own_not_the_samplers() -> None:
    model, prompt = toy(), ids(4)
    sampling = Sampling(max_tokens=6, temperature=2.0, top_k=3, repetition_penalty=1.5, seed=1)
    result = Engine(model).run([Generate(prompt, sampling)])[0]
    assert isinstance(result, Generated)
    scores = Engine(model).run([ScoreContinuations(prompt, (result.ids,))])[0]
    assert result.logprobs == pytest.approx(continuations(scores)[0].logprobs, abs=1e-6)


# --- NTK -------------------------------------------------------------------------------------


def test_alpha_comes_from_the_whole_prompt_and_stays() -> None:
    # 7 tokens: alpha 1. The answer crosses S = 8 and 2 S, and alpha stays; 9 tokens: alpha 3.
    config = replace(CONFIG, logn=False, windows=())
    model = toy(config)
    for length, alpha in ((7, 1.0), (8, 1.0), (9, 3.0), (16, 3.0), (17, 7.0), (33, 15.0)):
        prompt = ids(length)
        tokens = list(prompt)
        for _ in range(14):
            tokens.append(int(full_logits(model, tokens, alpha)[-1].argmax()))
        for token_budget in (3, 7, 2048):
            engine = Engine(model, token_budget=token_budget)
            work: list[EngineRequest] = [
                Generate(prompt, Sampling(max_tokens=14)),
                ScoreContinuations(prompt, (tuple(tokens[length:]),)),
                Generate(ids(21), Sampling(max_tokens=3)),
                ScoreTokens(prompt),
            ]
            generated, scores, _, line = engine.run(work)
            assert isinstance(generated, Generated)
            assert list(generated.ids) == tokens[length:]
            rows = full_logits(model, tokens, alpha).log_softmax(-1)
            expected = [float(rows[i - 1, tokens[i]]) for i in range(1, len(tokens))]
            assert generated.logprobs == pytest.approx(expected[length - 1 :], abs=1e-5)
            branch = continuations(scores)[0]
            assert branch.logprobs == pytest.approx(expected[length - 1 :], abs=1e-5)
            assert line == pytest.approx(expected[: length - 1], abs=1e-5)


def test_the_ntk_switch_matters_beyond_the_trained_length_alone() -> None:
    off = Transformer(replace(CONFIG, ntk=False)).double()
    off.load_state_dict(toy().state_dict())
    for length, same in ((8, True), (9, False), (30, False)):
        stretched, plain = (Engine(m).run([ScoreTokens(ids(length))])[0] for m in (toy(), off))
        assert (stretched == pytest.approx(plain, abs=1e-6)) == same
