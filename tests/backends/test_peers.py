"""The hf and lm_eval backends against the native one: three ways to the same numbers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends.base import Backend, BackendInfo, BackendOptions, open_backend
from qwen_eval.backends.lm_eval import LmEvalBackend
from qwen_eval.errors import UserError
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    Message,
    ModelRequest,
    PerplexityRequest,
    Prompt,
)
from tests.backends.asking import ask
from tests.model.toy_folder import toy_chat, toy_checkpoint

OPTIONS = (" A", " B", " a longer one", "x")
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_chat(tmp_path_factory.mktemp("toy"), TEMPLATE)


@pytest.fixture(scope="module")
def native(folder: Path) -> Iterator[Backend]:
    backend = open_backend("native", str(folder), BackendOptions(dtype="float32"))
    yield backend
    backend.close()


@pytest.fixture(scope="module", params=["hf", "lm_eval"])
def peer(request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
    target = {"hf": str(folder), "lm_eval": f"hf,pretrained={folder}"}[request.param]
    backend = open_backend(request.param, target, BackendOptions(dtype="float32", batch=3))
    yield backend
    backend.close()


def loglikelihoods() -> list[ModelRequest]:
    prompts = [
        *(Prompt(f"{i} apples and the rest:", "Shared words here. ") for i in range(7)),
        Prompt("ends in spaces  "),
        Prompt("é" * 20, ""),
    ]
    return [LoglikelihoodRequest(prompt, OPTIONS) for prompt in prompts]


def test_options_agree(native: Backend, peer: Backend) -> None:
    for mine, theirs in zip(
        ask(native, *loglikelihoods()), ask(peer, *loglikelihoods()), strict=True
    ):
        assert theirs.error is None
        assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
        assert theirs.greedy == mine.greedy
        assert theirs.prompt_truncated is False
        if peer.info().detail["backend"] == "hf":
            assert theirs.token_counts == mine.token_counts
            assert theirs.prompt_tokens == mine.prompt_tokens


def test_greedy_texts_agree(native: Backend, peer: Backend) -> None:
    requests = [
        GenerateRequest(Prompt("x" * n), Decoding(max_tokens=24, stop=stop))
        for n in (1, 5, 9, 30)
        for stop in ((), ("a", "zz"))
    ]
    for mine, theirs in zip(ask(native, *requests), ask(peer, *requests), strict=True):
        assert theirs.text == mine.text
        assert theirs.error is None


@pytest.mark.parametrize("begun", ["", "Thought: it"])
def test_conversations_agree(native: Backend, peer: Backend, begun: str) -> None:
    turns = [Message("system", "Be brief."), Message("user", "Hello")]
    turns += [Message("assistant", begun)] if begun else []
    request = GenerateRequest(Prompt(messages=tuple(turns)), Decoding(max_tokens=12))
    assert ask(peer, request)[0].text == ask(native, request)[0].text


def test_a_model_without_a_chat_template_is_one_line(tmp_path: Path) -> None:
    folder = toy_checkpoint(tmp_path)
    request = GenerateRequest(Prompt(messages=(Message("user", "Hi"),)), Decoding(max_tokens=4))
    for kind, target in (("hf", str(folder)), ("lm_eval", f"hf,pretrained={folder}")):
        backend = open_backend(kind, target, BackendOptions(dtype="float32"))
        with pytest.raises(
            UserError, match=rf"^{kind}:\S+: cannot be asked a conv.*that does not$"
        ):
            ask(backend, request, request)


def test_lm_evals_apis_get_conversations_as_they_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.registry import get_model

    lm = get_model("local-chat-completions")(model="m", base_url="http://127.0.0.1:1/v1")
    sent: list[Any] = []

    def answer(messages: Any, **_: Any) -> dict[str, Any]:
        sent.extend(lm.create_message(messages))
        return {"choices": [{"index": 0, "message": {"content": "Hi."}}]}

    monkeypatch.setattr(lm, "model_call", answer)
    backend = LmEvalBackend(lm, BackendInfo("m", detail={"model": "local"}), 1)
    turns = (Message("system", "Be brief."), Message("user", "Hello"))
    said = ask(backend, GenerateRequest(Prompt(messages=turns), Decoding(max_tokens=12)))[0]
    assert (said.error, said.text) == (None, "Hi.")
    assert [(turn["role"], turn["content"]) for turn in sent] == [
        ("system", "Be brief."),
        ("user", "Hello"),
    ]


def test_the_recipes_cut_agrees(native: Backend, peer: Backend) -> None:
    """More than max_tokens tokens: the last max_tokens - 1 are kept, and it is said."""
    request = LoglikelihoodRequest(Prompt("abcdefghij" * 9, max_tokens=64), (" A", " B"))
    mine, theirs = ask(native, request)[0], ask(peer, request)[0]
    assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
    assert (mine.prompt_tokens, mine.prompt_truncated) == (63, True)
    assert (theirs.prompt_tokens, theirs.prompt_truncated) == (63, True)


def test_a_prompt_longer_than_the_context_is_cut_and_reported(peer: Backend) -> None:
    answer = ask(peer, LoglikelihoodRequest(Prompt("word " * 100), (" A", " B")))[0]
    assert answer.error is None
    assert answer.prompt_truncated is True


def test_perplexity(native: Backend, peer: Backend) -> None:
    request = PerplexityRequest("Some words to be read.")
    mine, theirs = ask(native, request)[0], ask(peer, request)[0]
    if peer.info().detail["backend"] == "hf":
        assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
    else:
        assert "sums only" in (theirs.error or "")


def test_parts_of_texts_and_counts(native: Backend, peer: Backend) -> None:
    counting = CountRequest(("Some words", "月", ""))
    assert ask(peer, counting)[0].token_counts == ask(native, counting)[0].token_counts
    request = PerplexityRequest("Some words to be read.", 5, 9, 4)
    if peer.info().detail["backend"] == "hf":
        mine, theirs = ask(native, request)[0], ask(peer, request)[0]
        assert theirs.logprobs == pytest.approx(mine.logprobs, abs=1e-4)
        assert len(theirs.logprobs) == 4
    else:
        with pytest.raises(UserError, match="no log-probabilities of tokens"):
            ask(peer, request)


def test_one_that_fails_does_not_take_its_batch_along(peer: Backend) -> None:
    good = GenerateRequest(Prompt("abc"), Decoding(max_tokens=5000))
    fine = LoglikelihoodRequest(Prompt("abc"), OPTIONS)
    bad = PerplexityRequest("x" * 1000)
    answers = ask(peer, fine, bad, good, fine)
    assert answers[0].error is answers[3].error is None
    assert answers[1].error is not None


def test_info_tells_models_apart(peer: Backend, native: Backend) -> None:
    info = peer.info()
    assert info.max_length == native.info().max_length == 256
    assert info.dtype == "float32"
    assert len(info.fingerprint) == 16


def test_hf_sampling_follows_its_seed(folder: Path) -> None:
    backend = open_backend("hf", str(folder), BackendOptions(dtype="float32"))

    def sampled(seed: int) -> str:
        decoding = Decoding(max_tokens=20, temperature=1.0, seed=seed)
        return ask(backend, GenerateRequest(Prompt("abc"), decoding))[0].text

    assert sampled(1) == sampled(1) != sampled(2)


@pytest.mark.parametrize(
    ("kind", "target", "said"),
    [
        ("hf", "/nowhere/at/all", "--model hf:/nowhere/at/all: cannot be loaded"),
        ("lm_eval", "no_such_model,x=1", "--model lm_eval:no_such_model,x=1: "),
        ("lm_eval", "hf,pretrained=/nowhere", "--model lm_eval:hf,pretrained=/nowhere: "),
    ],
)
def test_a_model_that_cannot_be_had_is_one_line(kind: str, target: str, said: str) -> None:
    with pytest.raises(UserError) as error:
        open_backend(kind, target, BackendOptions())
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)


def test_hf_takes_no_more_context_than_the_model_has(folder: Path) -> None:
    assert open_backend("hf", str(folder), BackendOptions(max_length=200)).info().max_length == 200
    with pytest.raises(UserError, match="--max-length 257: this model's context is 256 tokens"):
        open_backend("hf", str(folder), BackendOptions(max_length=257))


@pytest.mark.parametrize(("kind", "target"), [("hf", "."), ("lm_eval", "hf,pretrained=.")])
def test_a_folder_has_a_name_wherever_one_stands(
    kind: str, target: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert open_backend(kind, target, BackendOptions()).info().name == folder.name


def test_a_cut_that_a_model_cannot_make_ends_the_run_with_the_way_out() -> None:
    backend = open_backend("lm_eval", "dummy", BackendOptions())
    with pytest.raises(UserError, match=r"cuts prompts to 64 tokens.*@strict"):
        ask(backend, LoglikelihoodRequest(Prompt("q", max_tokens=64), (" A", " B")))


@pytest.mark.parametrize("kind", ["hf", "lm_eval", "openai", "mock"])
def test_switches_of_our_own_engine_are_refused(kind: str) -> None:
    with pytest.raises(UserError, match="--no-batch-invariant: changes nothing"):
        open_backend(kind, "x", BackendOptions(batch_invariant=False))
    with pytest.raises(UserError, match="--kv-memory"):
        open_backend(kind, "x", BackendOptions(kv_memory=2**30))
    with pytest.raises(UserError, match="--no-ntk"):
        open_backend(kind, "x", BackendOptions(context={"ntk": False}))
