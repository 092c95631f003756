"""The openai backend against a real HTTP server, friendly and hostile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends import openai
from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.errors import UserError
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    Message,
    PerplexityRequest,
    Prompt,
    Response,
)
from tests.backends.asking import ask
from tests.backends.completions import (
    QUESTION,
    Server,
    hang_up,
    hang_up_in_the_middle,
    opened,
    replied,
)
from tests.model.toy_folder import toy_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def native(folder: Path) -> Backend:
    return open_backend("native", str(folder), BackendOptions(dtype="float32"))


@pytest.fixture
def server(native: Backend, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = Server(native)
    yield server
    server.stop()


def test_texts_are_the_models(server: Server, native: Backend) -> None:
    requests = [
        GenerateRequest(Prompt("x" * n), Decoding(max_tokens=20, stop=("a", "zz")))
        for n in (1, 4, 9, 30, 31, 32)
    ]
    with server.lock:
        expected = ask(native, *requests)
    answers = ask(opened(server), *requests)
    for mine, theirs in zip(expected, answers, strict=True):
        assert theirs.text == mine.text
        assert theirs.finish_reason == mine.finish_reason
        assert theirs.prompt_tokens == mine.prompt_tokens


def test_conversations_go_to_the_chat_interface(server: Server, native: Backend) -> None:
    turns = (Message("user", "Hello"),)
    request = GenerateRequest(Prompt(messages=turns), Decoding(max_tokens=9))
    expected = ask(native, request)[0].text
    assert ask(opened(server), request)[0].text == expected
    assert server.bodies[-1]["messages"] == [{"role": "user", "content": "Hello"}]
    assert "continue_final_message" not in server.bodies[-1]


def test_a_server_is_told_to_go_on_with_the_assistants_turn(
    server: Server, native: Backend
) -> None:
    turns = (Message("user", "Hello"), Message("assistant", "I was"))
    request = GenerateRequest(Prompt(messages=turns), Decoding(max_tokens=9))
    assert ask(opened(server), request)[0].text == ask(native, request)[0].text
    sent = server.bodies[-1]
    assert sent["messages"][-1] == {"role": "assistant", "content": "I was"}
    # What chat completions of vLLM and SGLang call it.
    assert (sent["continue_final_message"], sent["add_generation_prompt"]) == (True, False)


@pytest.mark.parametrize("start_mark", ["", "<s>"])
@pytest.mark.parametrize("allows_no_tokens", [True, False])
def test_options_are_scored_by_echo(
    server: Server, native: Backend, start_mark: str, allows_no_tokens: bool
) -> None:
    server.start_mark, server.allows_no_tokens = start_mark, allows_no_tokens
    prompts = [Prompt(f"{i} is the question:", "A header. ") for i in range(5)]
    requests = [LoglikelihoodRequest(p, (" A", " B", " longer")) for p in prompts]
    requests.append(LoglikelihoodRequest(Prompt("ends in a space "), ("A", "B")))
    whole = [
        [
            ask(native, PerplexityRequest(r.prompt.full_text + o))[0].logprobs
            for o in r.continuations
        ]
        for r in requests
    ]
    for request, rows, answer in zip(requests, whole, ask(opened(server), *requests), strict=True):
        context = len(request.prompt.full_text.rstrip())
        for row, value in zip(rows, answer.logprobs, strict=True):
            assert value == pytest.approx(sum(row[context:]), abs=1e-6)


def test_without_token_ids_texts_are_not_cut_and_counts_are_estimates(server: Server) -> None:
    with pytest.raises(UserError, match="shows no token ids, by which this recipe cuts its texts"):
        ask(opened(server), PerplexityRequest("Some words.", 0, 3))
    counted = ask(opened(server), CountRequest(("", "abcd", "abcde", "月月")))[0]
    assert counted.token_counts == (0, 1, 2, 2)
    assert counted.text == "estimated: 4 bytes a token"


def test_perplexity_is_the_echo_of_all(server: Server, native: Backend) -> None:
    expected = ask(native, PerplexityRequest("Some words."))[0].logprobs
    assert ask(opened(server), PerplexityRequest("Some words."))[0].logprobs == pytest.approx(
        expected
    )


@pytest.mark.parametrize(
    "fault",
    [
        replied(429, {"error": {"message": "slow down"}}, Retry_After="0"),
        replied(500, b"oops"),
        replied(503, b"", Retry_After="soon"),
        replied(200, b"<html>a proxy's page</html>"),
        replied(200, {"choices": []}),
        replied(200, {"nothing": 1}),
        hang_up,
        hang_up_in_the_middle,
    ],
)
def test_what_passes_is_tried_again(server: Server, native: Backend, fault: Any) -> None:
    expected = ask(native, QUESTION)[0].text
    server.faults = [fault, fault, None]
    answer = ask(opened(server), QUESTION)[0]
    assert (answer.error, answer.text) == (None, expected)
    assert len(server.bodies) == 3


def test_retry_after_is_waited_for(server: Server) -> None:
    server.faults = [replied(429, b"", Retry_After="1")]
    begun = time.monotonic()
    assert ask(opened(server), QUESTION)[0].error is None
    assert time.monotonic() - begun >= 1.0


def test_what_never_passes_is_one_samples_error(server: Server) -> None:
    server.faults = [replied(500, b"down")] * openai.ATTEMPTS
    failed = ask(opened(server), QUESTION)[0]
    assert failed.error == f"HTTP 500, {openai.ATTEMPTS} times"
    assert ask(opened(server), QUESTION)[0].error is None


def test_a_server_that_hangs_is_given_up(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai, "TIMEOUT", 0.2)
    monkeypatch.setattr(openai, "ATTEMPTS", 2)

    def hang(_: Any) -> bool:
        time.sleep(1.0)
        return True

    server.faults = [hang, hang]
    assert "ReadTimeout" in (ask(opened(server), QUESTION)[0].error or "")


def test_a_refused_request_fails_alone_with_the_servers_words(server: Server) -> None:
    server.faults = [replied(400, {"error": {"message": "context\nlength  exceeded"}})]
    assert ask(opened(server), QUESTION)[0].error == "HTTP 400: context length exceeded"
    assert len(server.bodies) == 1


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_wrong_key_or_model_ends_the_run_with_one_line(server: Server, status: int) -> None:
    server.faults = [replied(status, {"error": {"message": "no such key"}})]
    with pytest.raises(UserError, match=rf"HTTP {status} .*no such key.*OPENAI_API_KEY"):
        ask(opened(server), QUESTION)


def test_a_server_without_logprobs_is_said_so_once(server: Server) -> None:
    server.offers_logprobs = False
    with pytest.raises(UserError, match="no log-probabilities"):
        ask(opened(server), LoglikelihoodRequest(Prompt("q"), (" A", " B")))


def test_the_key_is_sent_and_nowhere_written(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    backend = opened(server)
    ask(backend, QUESTION)
    assert set(server.keys) == {"Bearer sk-very-secret"}
    assert "secret" not in repr(backend.info())
    user = open_backend("openai", server.url.replace("//", "//me:pass@") + "#toy", BackendOptions())
    assert "pass" not in repr(user.info())


def test_all_stop_strings_hold_even_beyond_what_a_server_takes(server: Server) -> None:
    stops = ("q1", "q2", "q3", "q4", *map(chr, range(33, 127)))
    text = ask(opened(server), GenerateRequest(Prompt("hello"), Decoding(30, stops)))[0].text
    assert len(server.bodies[-1]["stop"]) == 4
    assert not any(stop in text for stop in stops)


def test_names(server: Server) -> None:
    assert open_backend("openai", server.url, BackendOptions()).info().name == "toy"
    with pytest.raises(UserError, match="no model gpt; served: toy"):
        open_backend("openai", f"{server.url}#gpt", BackendOptions())
    server.names = ["one", "two"]
    with pytest.raises(UserError, match="name one model after #; served: one, two"):
        open_backend("openai", server.url, BackendOptions())
    server.lists_models = False
    assert open_backend("openai", f"{server.url}#any", BackendOptions()).info().name == "any"


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("localhost:8000", "not a URL"),
        ("ftp://x/v1#m", "not a URL"),
        ("http://[::1", "not a URL"),
        ("http://localhost:abc/v1", "not a URL"),
        ("http://localhost:99999/v1", "not a URL"),
        ("http:///v1", "not a URL"),
        (f"http://{'x' * 300}/v1", "no answer"),
        ("http://127.0.0.1:1/v1#m", "no answer"),
    ],
)
def test_an_address_without_a_server_is_one_line(target: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        open_backend("openai", target, BackendOptions())
    assert "\n" not in str(error.value)


def test_a_port_that_goes_without_saying_is_not_made_up() -> None:
    assert openai._server("https://me:pass@api.example.com/v1") == "api.example.com/v1"
    assert openai._server("http://[::1]:8000/v1") == "[::1]:8000/v1"


def test_close_does_not_wait(server: Server) -> None:
    def hang(_: Any) -> bool:
        time.sleep(5)
        return True

    server.faults = [hang] * 8
    backend = opened(server)
    for _ in range(8):
        backend.submit(QUESTION)
    time.sleep(0.2)
    begun = time.monotonic()
    backend.close()
    backend.close()
    assert time.monotonic() - begun < 2


def test_answers_come_as_they_finish(server: Server) -> None:
    release = threading.Event()

    def slow(_: Any) -> bool:
        release.wait(20)
        return False

    server.faults = [slow]
    backend = opened(server)
    first = backend.submit(QUESTION)
    time.sleep(0.2)
    second = backend.submit(QUESTION)
    found: dict[int, Response] = {}
    while second not in found:
        found.update(backend.step())
    assert first not in found
    release.set()
    while first not in found:
        found.update(backend.step())
