"""The radix tree against a plain list of prompts, and the engine with shared beginnings."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.engine import (
    Engine,
    EngineRequest,
    Generate,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
)
from qwen_eval.model.engine.kv_cache import SequenceCache, bytes_per_token
from qwen_eval.model.engine.prefix_cache import BLOCK, Node, PrefixCache
from qwen_eval.model.engine.sequence import Ids
from tests.model.toy_engine import CONFIG, GROUPED, alone, assert_same, drive, ids, toy


def keys_of(line: Ids, parent: SequenceCache | None = None) -> SequenceCache:
    """A cache whose keys are the ids themselves, so that what is read can be recognised."""
    keys = torch.tensor(line, dtype=torch.float64).reshape(1, len(line), 1, 1)
    return SequenceCache(keys, -keys, len(line), parent)


def read(node: Node) -> Ids:
    if node.cache is None:
        return ()
    keys, values = node.cache.read(0)
    assert torch.equal(keys, -values)
    return tuple(int(key) for key in keys.flatten())


def store(tree: PrefixCache, line: Ids, alpha: float = 1.0, room: int = 10_000) -> None:
    """As the engine does it: stand on what is known, read the rest, offer the whole."""
    found = tree.match(line[:-1], alpha)
    tree.insert(line, alpha, keys_of(line[found.length :], found.cache), room)


def nodes(tree: PrefixCache) -> list[Node]:
    return [node for root in tree._roots.values() for node in root.below() if node.parent]


lines = st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple)


@given(stored=st.lists(lines, max_size=8), asked=st.lists(lines, max_size=8))
def test_the_longest_stored_prefix_is_found(stored: list[Ids], asked: list[Ids]) -> None:
    tree = PrefixCache(block=2)
    for line in stored:
        store(tree, line)
    wholes = {line[:n] for line in stored for n in range(0, len(line) + 1, 2)} | {()}
    for line in [*asked, *stored]:
        expected = max(n for n in range(0, len(line) + 1, 2) if line[:n] in wholes)
        assert tree.known(line, 1.0) == expected
        node = tree.match(line, 1.0)
        assert node.length == expected
        assert read(node) == line[:expected]
        assert tree.match(line, 3.0).length == 0, "another alpha, other keys"
    assert tree.tokens == 2 * len({whole for whole in wholes if whole})
    assert tree.tokens == sum(len(node.ids) for node in nodes(tree))


@given(
    work=st.lists(st.tuples(lines, st.booleans()), max_size=12),
    room=st.integers(2, 20),
)
def test_room_is_kept_and_what_is_stood_on_stays(work: list[tuple[Ids, bool]], room: int) -> None:
    tree = PrefixCache(block=2)
    pinned: list[tuple[Node, Ids]] = []
    for line, keep in work:
        store(tree, line, room=room)
        assert tree.tokens <= room
        assert tree.tokens == sum(len(node.ids) for node in nodes(tree))
        if keep:
            node = tree.match(line, 1.0)
            tree.pin(node)
            pinned.append((node, line[: node.length]))
        for node, whole in pinned:
            assert read(node) == whole, "a sequence stands on it"
    for node, _ in pinned:
        tree.unpin(node)
    tree.evict(room)
    assert tree.tokens == 0
    assert nodes(tree) == []


def test_the_least_recently_used_goes_first() -> None:
    tree = PrefixCache(block=2)
    for first in range(4):
        store(tree, (first, 0, first, 1))
    tree.match((0, 0, 0, 1), 1.0)
    assert tree.evict(5) == 8
    assert [tree.known((first, 0, first, 1), 1.0) for first in range(4)] == [4, 0, 0, 4]


def test_no_room_stores_nothing_and_drops_nothing_in_use() -> None:
    tree = PrefixCache(block=2)
    store(tree, (1, 2, 3, 4))
    node = tree.match((1, 2, 3, 4), 1.0)
    tree.pin(node)
    store(tree, (5, 6, 7, 8), room=4)
    assert tree.known((5, 6, 7, 8), 1.0) == 0
    assert read(node) == (1, 2, 3, 4)


# --- the engine ---------------------------------------------------------------------------------


def behind(prefix: Ids, count: int) -> list[EngineRequest]:
    """Questions behind one prefix, of every kind."""
    work: list[EngineRequest] = []
    for n in range(count):
        prompt = prefix + ids(5, n)
        work += [
            ScoreContinuations(prompt, (ids(1, n), ids(3, n), ids(1, n + 1))),
            Generate(prompt, Sampling(max_tokens=6)),
        ]
    return work


@pytest.mark.parametrize("config", [CONFIG, GROUPED])
@pytest.mark.parametrize("token_budget", [3, 40, 2048])
def test_a_shared_prefix_is_read_once(config: ModelConfig, token_budget: int) -> None:
    model, prefix = toy(config), ids(2 * BLOCK)
    engine = Engine(model, token_budget=token_budget)
    work = behind(prefix, 6)
    for request, result in zip(work, engine.run(work), strict=True):
        assert_same(result, alone(model, request))
    # The prefix once, five tokens of each question, two of each longer continuation.
    assert engine.stats.prompt_tokens == len(prefix) + 12 * 5 + 6 * 2
    for request, result in zip(work[:4], engine.run(work[:4]), strict=True):
        assert_same(result, alone(model, request))


def test_a_conversation_that_grows_takes_its_past_from_the_cache() -> None:
    model = toy(GROUPED)
    engine = Engine(model)
    turns = ids(20)
    for turn in range(3):
        before = engine.stats.prompt_tokens
        request = Generate(turns, Sampling(max_tokens=4))
        (result,) = engine.run([request])
        assert_same(result, alone(model, request))
        past = len(turns) if turn == 0 else len(turns) - 20 - 4 * (turn - 1)
        assert engine.stats.prompt_tokens - before <= past + BLOCK
        turns += ids(4, turn)


def test_prompts_of_another_alpha_share_nothing() -> None:
    model = toy(CONFIG)  # S is 8: 33 tokens are read with alpha 15, 20 with alpha 7
    engine = Engine(model)
    prefix = ids(16)
    work = [Generate(prefix + ids(n, n), Sampling(max_tokens=2)) for n in (4, 17)]
    for request, result in zip(work, engine.run(work), strict=True):
        assert_same(result, alone(model, request))
    assert engine.stats.prompt_tokens == 20 + 33


@st.composite
def shared_requests(draw: st.DrawFn) -> EngineRequest:
    prefix = ids(draw(st.sampled_from([1, 16, 17, 33])), draw(st.integers(0, 1)))
    prompt = prefix + ids(draw(st.integers(0, 6)), draw(st.integers(0, 3)))
    kind = draw(st.sampled_from(["generate", "continuations", "tokens"]))
    if kind == "tokens":
        return ScoreTokens(prompt)
    if kind == "generate":
        return Generate(prompt, Sampling(max_tokens=draw(st.integers(1, 6))))
    count = draw(st.integers(1, 3))
    return ScoreContinuations(prompt, tuple(ids(draw(st.integers(1, 5)), n) for n in range(count)))


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    work=st.lists(shared_requests(), min_size=1, max_size=10),
    config=st.sampled_from([CONFIG, GROUPED, replace(GROUPED, windows=(None, 6))]),
    max_sequences=st.integers(1, 5),
    token_budget=st.integers(1, 40),
    cache_tokens=st.integers(60, 300),
    cancelled=st.sets(st.integers(0, 9), max_size=3),
    pauses=st.lists(st.integers(0, 3), min_size=10, max_size=10),
)
def test_any_workload_with_shared_beginnings_gives_each_its_own_answer(
    *,
    work: list[EngineRequest],
    config: ModelConfig,
    max_sequences: int,
    token_budget: int,
    cache_tokens: int,
    cancelled: set[int],
    pauses: list[int],
) -> None:
    model = toy(config)
    engine = Engine(
        model,
        max_sequences=max_sequences,
        token_budget=token_budget,
        cache_bytes=cache_tokens * bytes_per_token(config, torch.float64),
    )
    scheduler = engine._scheduler

    def keeps_its_books() -> None:
        assert scheduler.held <= cache_tokens
        assert scheduler.prefixes.tokens == sum(len(n.ids) for n in nodes(scheduler.prefixes))

    drive(engine, zip(work, pauses, strict=False), cancelled, keeps_its_books)
    assert scheduler.held == scheduler.prefixes.tokens, "nothing is reserved any more"
    scheduler.prefixes.evict(cache_tokens)
    assert scheduler.prefixes.tokens == 0, "nothing is stood on any more"
