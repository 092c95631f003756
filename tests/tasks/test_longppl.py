"""Perplexity by length of context: which windows are read, what is made of them, and that native
and transformers agree on every token."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import load_tokenizer
from qwen_eval.runner import Finished, Runner, replay
from qwen_eval.suites import SUITES_DIR, load_suite
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.tasks.solvers.long_perplexity import windows
from qwen_eval.taskspec import find_task
from qwen_eval.types import CountRequest, Item, PerplexityRequest, Prompt, Response, Window
from tests.backends.asking import ask
from tests.harness.toys import item
from tests.model.toy_folder import toy_checkpoint

TEXT = "".join(f"{n}: the {n % 7}th bell of 月 {n * n}; " for n in range(40))
SEGMENTS, SLIDING = Window(64, 300), Window(64, 300, 24)
LENGTHS = (1024, 2048, 4096, 8192, 16384, 32768)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module", params=["native", "hf"])
def backend(request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
    backend = open_backend(request.param, str(folder), BackendOptions(dtype="float32", batch=3))
    yield backend
    backend.close()


def document(text: str, window: Window) -> Item:
    return item(1, metric="nats_per_token", prompt=Prompt(text), window=window)


def judged(backend: Backend, asked: Item) -> Finished:
    (found,) = Runner(backend, SOLVERS["long_perplexity"]).run([asked])
    return found


# --- which windows ------------------------------------------------------------------------------


@given(st.integers(0, 400), st.integers(2, 60), st.data())
def test_every_token_is_scored_once_and_every_window_is_full(
    tokens: int, length: int, data: st.DataObject
) -> None:
    stride = data.draw(st.none() | st.integers(1, length - 1))
    found = list(windows(tokens, Window(length, 400, stride)))
    width, scored = length - 1, list[int]()
    for first, count in found:
        assert 0 <= first <= first + width <= tokens
        scored += range(first + width - count, first + width)
    assert scored == list(range(len(scored))), "in order, none twice, none left out"
    assert tokens - len(scored) < (stride or width) or not found
    assert bool(found) is (tokens >= width)
    assert all(b[0] - a[0] == (stride or width) for a, b in pairwise(found))


@pytest.mark.parametrize("task", ["longppl_en", "longppl_zh"])
def test_the_recipes_are_the_papers_lengths(task: str) -> None:
    spec, _ = find_task(task)
    for length in LENGTHS:
        assert spec.recipes[str(length)].window == Window(length, 32768)
        assert spec.recipes[f"{length}-sliding"].window == Window(length, 32768, length // 2)
    assert spec.recipes["strict"] == spec.recipes["4096"]
    assert len(spec.recipes) == 13
    suite = load_suite(SUITES_DIR / "longppl.yaml").tasks
    assert {f"{task}@{length}" for length in LENGTHS} <= set(suite)


# --- what is made of them -----------------------------------------------------------------------


@pytest.mark.parametrize("window", [Window(130, 400), Window(130, 400, 50)])
def test_values_are_a_plain_mean_and_the_curve_adds_up_to_it(window: Window) -> None:
    replies, seen = [Response(token_counts=(390,))], []
    for first, scored in windows(390, window):
        values = [-0.01 * token for token in range(first + 129 - scored, first + 129)]
        replies.append(Response(logprobs=tuple(values)))
        seen += [(130 - scored + i, -value) for i, value in enumerate(values)]
    score = replay(SOLVERS["long_perplexity"](document("x", window)), replies)
    assert score.status == "scored"
    assert score.values["tokens"] == len(seen) == {None: 387, 50: 379}[window.stride]
    mean = sum(0.01 * token for token in range(len(seen))) / len(seen)
    assert score.values["nats_per_token"] == pytest.approx(mean)
    curve = score.detail["curve"]
    assert (curve["width"], score.detail["segments"]) == (64, len(replies) - 1)
    for place in range(3):  # positions 0 to 63 (0 is the start token), 64 to 127, 128 and 129
        inside = [nat for position, nat in seen if position // 64 == place]
        assert curve["counts"][place] == len(inside)
        assert curve["nats"][place] == pytest.approx(sum(inside))


def test_a_text_that_fills_no_window_is_excluded() -> None:
    score = replay(
        SOLVERS["long_perplexity"](document("x", SEGMENTS)), [Response(token_counts=(62,))]
    )
    assert (score.status, score.values) == ("excluded", {})
    assert score.detail["excluded"] == "62 tokens do not fill a window of 64"


def test_a_backend_that_answers_too_little_is_no_score() -> None:
    replies = [Response(token_counts=(300,)), Response(logprobs=(-1.0,) * 62)]
    score = replay(SOLVERS["long_perplexity"](document("x", SEGMENTS)), replies)
    assert score.status == "error"
    assert "62 tokens were answered, 63 were asked for" in score.detail["error"]


def test_the_mock_models_read_bytes() -> None:
    for name, bits in (("oracle", 0.0), ("random", 8.0)):
        mock = open_backend("mock", name, BackendOptions())
        found = judged(mock, document(TEXT, SEGMENTS)).score
        assert found.values["nats_per_token"] == pytest.approx(bits * math.log(2))
        assert found.values["tokens"] == 4 * 63


# --- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("window", [SEGMENTS, SLIDING, Window(256, 300)])
def test_windows_are_scored_as_transformers_scores_them(
    backend: Backend, folder: Path, window: Window
) -> None:
    from transformers import AutoModelForCausalLM

    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(TEXT)[:300]
    width, stride = window.length - 1, window.stride or window.length - 1
    expected, first = [], 0
    while first + width <= len(ids):
        fed = [tokenizer.start_id, *ids[first : first + width]]
        with torch.no_grad():
            rows = peer(torch.tensor([fed])).logits[0].log_softmax(-1)
        values = [float(rows[i, fed[i + 1]]) for i in range(width)]
        expected += values[-stride if first else 0 :]
        first += stride
    done = judged(backend, document(TEXT, window))
    assert [value for r in done.responses for value in r.logprobs] == pytest.approx(
        expected, abs=1e-4
    )
    assert done.score.values["tokens"] == len(expected)
    assert done.score.values["nats_per_token"] == pytest.approx(
        -sum(expected) / len(expected), abs=1e-5
    )
    assert {r.prompt_tokens for r in done.responses[1:]} == {window.length}


def test_parts_of_a_text_are_parts_of_its_ids(backend: Backend, folder: Path) -> None:
    count = len(load_tokenizer(folder).encode(TEXT))
    whole, first, tail, short, behind, counted = ask(
        backend,
        PerplexityRequest(TEXT, 0, 200),
        PerplexityRequest(TEXT, 0, 50),
        PerplexityRequest(TEXT, 0, 200, 7),
        PerplexityRequest(TEXT, count - 5, 100, 50),
        PerplexityRequest(TEXT, count, 100),
        CountRequest((TEXT, "ab", "")),
    )
    assert first.logprobs == pytest.approx(whole.logprobs[:50], abs=1e-5)
    assert tail.logprobs == pytest.approx(whole.logprobs[-7:], abs=1e-5)
    assert len(short.logprobs) == 5
    assert (behind.logprobs, behind.error) == ((), None)
    assert counted.token_counts == (count, 2, 0)


def test_a_window_of_the_trained_length_is_not_stretched(tmp_path: Path) -> None:
    """A window holds exactly `length` tokens, so NTK begins behind it and not within."""
    folder = toy_checkpoint(
        tmp_path / "toy", family="qwen", num_kv_heads=4, max_length=256, trained_length=64
    )

    def read(window: Window, *, ntk: bool) -> float:
        options = BackendOptions(dtype="float32", context={"ntk": ntk})
        opened = open_backend("native", str(folder), options)
        return judged(opened, document(TEXT, window)).score.values["nats_per_token"]

    assert read(SEGMENTS, ntk=True) == read(SEGMENTS, ntk=False)
    assert read(Window(65, 300), ntk=True) != read(Window(65, 300), ntk=False)


def test_a_length_that_the_cache_cannot_hold_ends_before_any_work(tmp_path: Path) -> None:
    folder = str(toy_checkpoint(tmp_path / "toy", max_length=1024, trained_length=1024))
    lengths = (64, 1024, 4096)  # the last is longer than the context: it is not asked
    small = BackendOptions(dtype="float32", kv_memory=2**17, lengths=lengths)
    with pytest.raises(UserError) as error:
        open_backend("native", folder, small)
    assert str(error.value).startswith("a sequence of 1,024 tokens needs ")
    assert "--kv-memory" in str(error.value)
    assert "\n" not in str(error.value)
    enough = BackendOptions(dtype="float32", kv_memory=2**20, lengths=lengths)
    assert open_backend("native", folder, enough).step() == [], "nothing was asked"
