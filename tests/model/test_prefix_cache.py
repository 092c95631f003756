"""The radix tree against a plain list of prompts, and the engine with shared beginnings."""

from __future__ import annotations

from collections import Counter
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
from qwen_eval.model.engine.pages import PagePool, PageTable, Run, page_bytes
from qwen_eval.model.engine.prefix_cache import BLOCK, Node, PrefixCache
from qwen_eval.model.engine.sequence import Ids, Track
from tests.model.test_engine_limits import assert_books_are_right
from tests.model.toy_engine import CHUNKED, CONFIG, GROUPED, alone, assert_same, drive, ids, toy

SIZE = 4  # positions per page, two blocks


class Store:
    """A tree over pages whose keys are the ids themselves, so that what is read is recognised."""

    def __init__(self, pages: int = 400) -> None:
        config = replace(CONFIG, num_layers=1, num_kv_heads=1, head_dim=2, windows=())
        self.pool = PagePool(config, pages, SIZE, 0, torch.float64, torch.device("cpu"))
        self.tree = PrefixCache([self.pool], block=2)

    def add(self, line: Ids, alpha: float = 1.0, room: int = 10_000) -> None:
        """As the engine does it: stand on what is known, read the rest, offer the whole."""
        found = self.tree.match(line[:-1], alpha)
        whole, rest = divmod(found.length, SIZE)
        stored = found.runs[0] if found.runs else Run()
        own = [self.pool.take() for _ in range(-(-len(line) // SIZE) - whole)]
        track = Track(list(line), tables=[PageTable(stored, whole, own)])
        if rest:
            self.pool.copy(stored.page(whole), own[0], rest)
        for at in range(found.length, len(line)):
            self.pool.keys[0][track.page(0, at // SIZE), at % SIZE] = line[at]
        self.tree.pin(found)
        self.tree.insert(line, alpha, track, [room])
        self.tree.unpin(found)
        for page in own:
            self.pool.give_back(page)

    def read(self, node: Node) -> Ids:
        """The ids whose keys a sequence on `node` would see."""
        if not node.runs:
            return ()
        pages = node.runs[0].pages
        assert len(pages) == -(-node.length // SIZE)
        keys = self.pool.keys[0][list(pages)].flatten(0, 1)[: node.length, 0, 0]
        return tuple(int(key) for key in keys)

    def check(self) -> None:
        """The books: what the tree holds is what its nodes list, and nobody else holds anything."""
        listed = Counter(page for node in nodes(self.tree) for page in node.runs[0].pages)
        assert listed == self.tree._held[0]
        assert self.tree.pages(0) == len(listed)
        assert {p: n for p, n in enumerate(self.pool._users) if n} == dict(listed)


def nodes(tree: PrefixCache) -> list[Node]:
    return [node for root in tree._roots.values() for node in root.below() if node.parent]


lines = st.lists(st.integers(0, 1), min_size=1, max_size=14).map(tuple)


@given(stored=st.lists(lines, max_size=8), asked=st.lists(lines, max_size=8))
def test_the_longest_stored_prefix_is_found(stored: list[Ids], asked: list[Ids]) -> None:
    store = Store()
    for line in stored:
        store.add(line)
    wholes = {line[:n] for line in stored for n in range(0, len(line) + 1, 2)} | {()}
    for line in [*asked, *stored]:
        expected = max(n for n in range(0, len(line) + 1, 2) if line[:n] in wholes)
        assert store.tree.known(line, 1.0) == expected
        node = store.tree.match(line, 1.0)
        assert node.length == expected
        assert store.read(node) == line[:expected]
        assert store.tree.match(line, 3.0).length == 0, "another alpha, other keys"
    assert sum(len(node.ids) for node in nodes(store.tree)) == 2 * len(wholes - {()})
    store.check()


@given(
    work=st.lists(st.tuples(lines, st.booleans()), max_size=12),
    room=st.integers(2, 12),
)
def test_room_is_kept_and_what_is_stood_on_stays(work: list[tuple[Ids, bool]], room: int) -> None:
    store = Store()
    pinned: list[tuple[Node, Ids]] = []
    for line, keep in work:
        store.add(line, room=room)
        assert store.tree.pages(0) <= room
        store.check()
        if keep:
            node = store.tree.match(line, 1.0)
            store.tree.pin(node)
            pinned.append((node, line[: node.length]))
        for node, whole in pinned:
            assert store.read(node) == whole, "a sequence stands on it"
    for node, _ in pinned:
        store.tree.unpin(node)
    store.tree.evict(0, room)
    assert store.tree.pages(0) == 0
    assert nodes(store.tree) == []
    assert store.pool.free == 400


def test_the_least_recently_used_goes_first() -> None:
    store = Store()
    for first in range(4):
        store.add((first, 0, first, 1))
    store.tree.match((0, 0, 0, 1), 1.0)
    assert store.tree.evict(0, 2) == 2
    assert [store.tree.known((first, 0, first, 1), 1.0) for first in range(4)] == [4, 0, 0, 4]


def test_no_room_stores_nothing_and_drops_nothing_in_use() -> None:
    store = Store()
    store.add((1, 2, 3, 4))
    node = store.tree.match((1, 2, 3, 4), 1.0)
    store.tree.pin(node)
    store.add((5, 6, 7, 8), room=1)
    assert store.tree.known((5, 6, 7, 8), 1.0) == 0
    assert store.read(node) == (1, 2, 3, 4)


def test_what_could_never_be_kept_drops_nothing() -> None:
    store = Store()
    store.add((1, 2, 3, 4), room=2)
    store.add((5, 6, 7, 8) * 3, room=2)
    assert store.tree.known((5, 6, 7, 8), 1.0) == 0
    assert store.tree.known((1, 2, 3, 4), 1.0) == 4


def test_blocks_must_fill_a_page() -> None:
    with pytest.raises(ValueError, match="pages of 4 positions do not hold whole blocks of 3"):
        PrefixCache([Store().pool], block=3)


# --- the engine ---------------------------------------------------------------------------------


def behind(prefix: Ids, count: int) -> list[ScoreContinuations | Generate]:
    """Questions behind one prefix, of every kind."""
    work: list[ScoreContinuations | Generate] = []
    for n in range(count):
        prompt = prefix + ids(5, n)
        work += [
            ScoreContinuations(prompt, (ids(1, n), ids(3, n), ids(1, n + 1))),
            Generate(prompt, Sampling(max_tokens=6)),
        ]
    return work


@pytest.mark.parametrize("config", [CONFIG, CHUNKED, GROUPED])
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


def test_only_what_others_begin_with_is_kept() -> None:
    model, prefix = toy(GROUPED), ids(2 * BLOCK)
    engine = Engine(model, max_sequences=2)
    work = [replace(request, shared=len(prefix)) for request in behind(prefix + ids(3), 4)]
    for request, result in zip(work, engine.run(work), strict=True):
        assert_same(result, alone(model, request))
    assert sum(len(node.ids) for node in nodes(engine._scheduler.prefixes)) == len(prefix)
    # The first one's prompt, eight more tokens of every other; two of each longer continuation.
    assert engine.stats.prompt_tokens == len(prefix) + 8 * 8 + 4 * 2
    cold = [replace(request, shared=0) for request in work]
    for request, result in zip(cold, Engine(model).run(cold), strict=True):
        assert_same(result, alone(model, request))


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
    config=st.sampled_from([CONFIG, CHUNKED, GROUPED, replace(GROUPED, windows=(None, 6))]),
    max_sequences=st.integers(1, 5),
    token_budget=st.integers(1, 40),
    page_size=st.sampled_from([16, 32]),
    pages=st.integers(16, 40),
    cancelled=st.sets(st.integers(0, 9), max_size=3),
    pauses=st.lists(st.integers(0, 3), min_size=10, max_size=10),
)
def test_any_workload_with_shared_beginnings_gives_each_its_own_answer(
    *,
    work: list[EngineRequest],
    config: ModelConfig,
    max_sequences: int,
    token_budget: int,
    page_size: int,
    pages: int,
    cancelled: set[int],
    pauses: list[int],
) -> None:
    model = toy(config)
    engine = Engine(
        model,
        max_sequences=max_sequences,
        token_budget=token_budget,
        cache_bytes=pages * page_bytes(config, torch.float64, page_size),
        page_size=page_size,
    )
    prefixes, general = engine._scheduler.prefixes, [pool.free for pool in engine.pools]
    drive(
        engine, zip(work, pauses, strict=False), cancelled, lambda: assert_books_are_right(engine)
    )
    held = [pool.free + prefixes.pages(i) for i, pool in enumerate(engine.pools)]
    assert held == general, "nothing else is held any more"
    for i in range(len(general)):
        prefixes.evict(i, 10 * pages)
    assert [pool.free for pool in engine.pools] == general, "nothing is stood on any more"
