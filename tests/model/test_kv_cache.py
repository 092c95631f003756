"""Layers with windows: what they hold, what is read of it, and when a stored prefix can be used."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.engine import (
    Engine,
    EngineRequest,
    Generate,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
    paged_attention,
)
from qwen_eval.model.engine.kv_cache import CacheShape, ring_pages
from qwen_eval.model.engine.pages import page_bytes
from tests.model.test_engine_limits import assert_books_are_right, users
from tests.model.test_invariance import SHAPE as LARGE
from tests.model.test_invariance import answers, model_of
from tests.model.toy_engine import CONFIG, alone, assert_same, continuations, drive, ids, toy

PAGE = 16
BANDS = replace(
    CONFIG, num_layers=4, windows=(6, 20, 20, None), max_length=512, trained_length=48, ntk=False
)
SINKS = replace(BANDS, sinks=3)
CHUNKED = replace(SINKS, ntk=True, ntk_chunks=True)
NOTHING_FULL = replace(BANDS, windows=(6, 6, 20, 33), sinks=1)


@st.composite
def long_requests(draw: st.DrawFn) -> EngineRequest:
    stem = ids(draw(st.sampled_from([1, 32, 64, 100])), draw(st.integers(0, 1)))
    prompt = stem + ids(draw(st.integers(0, 40)), draw(st.integers(0, 3)))
    kind = draw(st.sampled_from(["generate", "continuations", "tokens"]))
    if kind == "tokens":
        return ScoreTokens(prompt)
    shared = draw(st.sampled_from([None, len(stem), 0]))
    if kind == "generate":
        return Generate(prompt, Sampling(max_tokens=draw(st.integers(1, 40))), shared=shared)
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=3))
    return ScoreContinuations(prompt, tuple(ids(n, n) for n in lengths), shared)


@settings(derandomize=True, max_examples=30, deadline=None)
@given(
    work=st.lists(long_requests(), min_size=1, max_size=6),
    config=st.sampled_from([BANDS, SINKS, CHUNKED, NOTHING_FULL]),
    max_sequences=st.integers(1, 4),
    token_budget=st.sampled_from([1, 7, 30, 512]),
    pages=st.integers(30, 60),
    cancelled=st.sets(st.integers(0, 5), max_size=2),
    pauses=st.lists(st.integers(0, 4), min_size=6, max_size=6),
)
def test_any_workload_beyond_the_windows_gives_each_its_own_answer(
    *,
    work: list[EngineRequest],
    config: ModelConfig,
    max_sequences: int,
    token_budget: int,
    pages: int,
    cancelled: set[int],
    pauses: list[int],
) -> None:
    engine = Engine(
        toy(config),
        max_sequences=max_sequences,
        token_budget=token_budget,
        cache_bytes=pages * page_bytes(config, torch.float64, PAGE),
        page_size=PAGE,
    )
    free = [pool.free for pool in engine.pools]
    drive(
        engine, zip(work, pauses, strict=False), cancelled, lambda: assert_books_are_right(engine)
    )
    prefixes = engine._scheduler.prefixes
    for i in range(len(free)):
        prefixes.evict(i, 1000)
    assert [pool.free for pool in engine.pools] == free


@pytest.mark.parametrize("config", [BANDS, SINKS])
@pytest.mark.parametrize("chunk", [5, 64])
def test_a_window_holds_no_more_however_long_the_text(config: ModelConfig, chunk: int) -> None:
    peaks = []
    for length in (100, 200, 400):
        engine = Engine(toy(config), token_budget=chunk, page_size=PAGE)
        engine.submit(ScoreTokens(ids(length)))
        peak = [0, 0, 0]
        while engine.pending:
            engine.step()
            peak = [max(most, len(users(engine, i))) for i, most in enumerate(peak)]
        peaks.append(peak)
    assert [pool.window for pool in engine.pools] == [6, 20, None]
    rings = [ring_pages(window, chunk, PAGE, config.sinks) for window in (6, 20)]
    for pages, peak in zip((7, 13, 25), peaks, strict=True):
        assert peak == [*(min(ring, pages) for ring in rings), pages]


@given(
    window=st.integers(1, 60),
    chunk=st.integers(1, 60),
    size=st.sampled_from([1, 4, 16]),
    start=st.integers(0, 300),
)
def test_a_ring_is_as_many_pages_as_may_be_needed(
    window: int, chunk: int, size: int, start: int
) -> None:
    def touched(start: int) -> int:
        first = max(0, start - window + 1)
        return (start + chunk - 1) // size - first // size + 1

    assert touched(start) <= ring_pages(window, chunk, size)
    assert ring_pages(window, chunk, size) - max(map(touched, range(200, 200 + size))) <= 1


@pytest.mark.parametrize("config", [BANDS, NOTHING_FULL, replace(BANDS, windows=())])
@pytest.mark.parametrize("budget", [60_000, 300_000, 5_000_000])
def test_the_pools_fill_the_budget_and_no_more(config: ModelConfig, budget: int) -> None:
    engine = Engine(toy(config), cache_bytes=budget, page_size=PAGE, token_budget=16)
    held = sum(
        layer.nbytes
        for pool in engine.pools
        for layer in (*pool.keys.values(), *pool.values.values())
    )
    assert held <= budget
    if None in config.windows or not config.windows:
        assert held > budget - page_bytes(config, torch.float64, PAGE)
    shape = CacheShape(config, PAGE, 32, 16, 0.125, torch.float64)
    assert held == shape.bytes(shape.pages(budget))


def test_windows_leave_the_budget_to_full_attention() -> None:
    def full(config: ModelConfig) -> int:
        engine = Engine(
            toy(config), cache_bytes=5_000_000, page_size=PAGE, max_sequences=2, token_budget=16
        )
        return engine.pools[-1].count

    # One layer of four has it, and the others' share is small.
    assert full(BANDS) > 3 * full(replace(BANDS, windows=()))


def test_one_sequence_at_a_time_has_room_for_branches_and_a_stored_prefix() -> None:
    model = toy(BANDS)
    engine = Engine(model, max_sequences=1, page_size=PAGE, token_budget=64)
    stem = ids(96)
    branchy = ScoreContinuations(stem + ids(4), tuple(ids(20, n) for n in range(8)), shared=96)
    for expected in (100, 4):
        before = engine.stats.prompt_tokens
        (result,) = engine.run([branchy])
        assert_same(result, alone(model, branchy))
        assert engine.stats.prompt_tokens - before == expected + 8 * 19
    too_many = replace(branchy, continuations=tuple(ids(20, n) for n in range(20)))
    with pytest.raises(ValueError, match=r"give it more \(--kv-memory, --batch\)"):
        engine.submit(too_many)
    wide = Engine(model, max_sequences=32, page_size=PAGE, token_budget=64)
    (result,) = wide.run([too_many])
    assert_same(result, alone(model, too_many))


@pytest.mark.parametrize("config", [BANDS, SINKS])
def test_a_prefix_is_taken_up_where_its_windows_are_kept_and_nowhere_else(
    config: ModelConfig,
) -> None:
    """One prompt of 100 tokens, of which 96 are for others; then ones that leave it earlier."""
    model = toy(config)
    engine = Engine(model, token_budget=10, page_size=PAGE)
    stem = ids(100)

    def read(prompt: tuple[int, ...], shared: int) -> int:
        before = engine.stats.prompt_tokens
        request = Generate(prompt, Sampling(max_tokens=3), shared=shared)
        (result,) = engine.run([request])
        assert_same(result, alone(model, request))
        return engine.stats.prompt_tokens - before

    assert read(stem, 96) == 100
    assert read(stem[:96] + ids(9), 96) == 9, "as stored"
    assert read(stem[:64] + ids(9), 64) == 73, "its windows have moved on from there"
    assert read(stem[:64] + ids(9, 1), 64) == 9, "that one is stored now, too"
    assert read(stem[:80] + ids(9), 80) == 25, "from the last place before it"
    assert read(stem, 96) == 4


def test_a_prefix_within_the_windows_is_taken_up_anywhere() -> None:
    wide = replace(BANDS, windows=(120, 200, 200, None))
    engine = Engine(toy(wide), page_size=PAGE)
    stem = ids(100)
    engine.run([Generate(stem, Sampling(max_tokens=1))])
    before = engine.stats.prompt_tokens
    request = Generate(stem[:48] + ids(7), Sampling(max_tokens=5))
    (result,) = engine.run([request])
    assert_same(result, alone(toy(wide), request))
    assert engine.stats.prompt_tokens - before == 7


@settings(derandomize=True, max_examples=15, deadline=None)
@given(
    windows=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    size=st.sampled_from([16, 48]),
    shared=st.integers(16, 120),
    token_budget=st.integers(1, 40),
)
def test_the_least_that_can_be_taken_of_a_prefix(
    windows: tuple[int, int], size: int, shared: int, token_budget: int
) -> None:
    config = replace(BANDS, num_layers=3, windows=(*windows, None))
    engine = Engine(toy(config), page_size=size, token_budget=token_budget)
    prompt, end = ids(130), shared // 16 * 16
    engine.run([Generate(prompt, Sampling(max_tokens=1), shared=shared)])
    prefixes = engine._scheduler.prefixes
    least = prefixes.least(end)
    for length in range(16, end + 1, 16):
        first_seen = [max(0, length - window + 1) // size for window in windows]
        kept = [max(0, end - window + 1) // size for window in windows]
        usable = all(seen >= first for seen, first in zip(first_seen, kept, strict=True))
        assert usable == (length >= least)
        assert prefixes.known(prompt[:length], 1.0) == (length if usable else 0)


def test_nobody_waits_for_a_beginning_that_windows_let_go_of() -> None:
    """Eight prompts of 116 tokens that begin alike, read 512 a step; then five tokens each."""
    steps = []
    for head in ((), ids(16)):
        engine = Engine(toy(BANDS), page_size=PAGE, token_budget=512, max_sequences=8, drafts=False)
        engine.run(
            [Generate(head + ids(116 - len(head), n), Sampling(max_tokens=5)) for n in range(8)]
        )
        steps.append(engine.stats.steps)
    assert steps == [6, 6]


def test_prompts_begun_anew_are_shared_again() -> None:
    """S is 128: every answer runs past it, and what is read again begins alike."""
    config = replace(CHUNKED, trained_length=128)
    engine = Engine(toy(config), page_size=PAGE, token_budget=64, drafts=False)
    stem = ids(96)
    work = [Generate(stem + ids(4, n), Sampling(max_tokens=32), shared=96) for n in range(5)]
    for request, result in zip(work, engine.run(work), strict=True):
        assert_same(result, alone(toy(config), request))
    # The prompts, and with the next alpha the 129 tokens that there are by then.
    assert engine.stats.prompt_tokens == 96 + 5 * 4 + 96 + 5 * (129 - 96)


def test_what_lies_outside_a_window_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of queries and keys, counted: linear in the length where every layer has a window.
    The 16 rows of a page fill half a tile of 32, which meets the pages that 20 keys lie on."""
    plain, pairs = paged_attention.attend_tiles, 0

    def counting(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        nonlocal pairs
        pairs += q.shape[0] * q.shape[1] * q.shape[2] * k.shape[2]
        return plain(q, k, v, mask)

    monkeypatch.setattr(paged_attention, "attend_tiles", counting)
    config = replace(BANDS, windows=(20,) * 4)
    counts = []
    for length in (200, 400):
        engine = Engine(toy(config), page_size=PAGE, batch_invariant=False)
        pairs = 0
        engine.run([ScoreTokens(ids(length))])
        counts.append(pairs)
    heads = config.num_layers * config.num_heads
    assert counts[1] < 2.1 * counts[0]
    assert counts[1] <= 25 * 32 * heads * 3 * PAGE


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("sinks", [0, 4])
def test_the_same_bits_however_the_rings_turn(dtype: torch.dtype, sinks: int) -> None:
    model = model_of(replace(LARGE, windows=(40, None), sinks=sinks), dtype, fused=True)
    alone = answers(model, max_sequences=1, prefixes=False, drafts=False, page_size=32)
    for options in (
        {"max_sequences": 8},
        {"order": 1, "max_sequences": 64},
        {"order": 2, "max_sequences": 3, "token_budget": 50},
        {"max_sequences": 8, "prefixes": False, "token_budget": 17},
    ):
        assert answers(model, **options, page_size=32) == alone


def test_chunks_are_read_with_the_alpha_of_their_own_length() -> None:
    """Each token's figure is the one that a text ending there has, by the released rule; what is
    read again is told in the statistics."""
    config = replace(CONFIG, ntk_chunks=True, windows=())
    text = ids(60, seed=random.Random(0).randrange(100))
    chunked = Engine(toy(config))
    (ours,) = chunked.run([ScoreTokens(text)])
    assert isinstance(ours, tuple)
    whole = Engine(toy(replace(config, ntk_chunks=False)))
    for end in (2, 8, 9, 16, 17, 33, 60):
        (expected,) = whole.run([ScoreContinuations(text[: end - 1], (text[end - 1 : end],))])
        (score,) = continuations(expected)
        assert ours[end - 2] == pytest.approx(score.logprobs[0], abs=1e-6)
    # S is 8: 8, 16 and 32 tokens are read again with the next alpha.
    assert chunked.stats.prompt_tokens == 8 + 16 + 32 + 59
