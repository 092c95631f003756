"""The openai backend at its ends: interrupted, left by its server, asked for what no server has."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends import openai
from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.cli.main import app
from qwen_eval.errors import InfrastructureError, UserError
from qwen_eval.results import read_metrics, read_samples
from qwen_eval.types import (
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    PerplexityRequest,
    Prompt,
    Response,
)
from tests.backends.asking import ask
from tests.backends.completions import QUESTION, Server, opened, replied
from tests.cli.command import PROGRAM, environment


def writer(port: int = 0) -> Server:
    """A server that writes something to everything."""
    return Server(open_backend("mock", "random", BackendOptions()), port)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(openai, "FIRST_PAUSE", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    server = writer()
    yield server
    server.stop()


def test_an_interrupt_ends_the_process_though_the_server_hangs(
    server: Server, tmp_path: Path
) -> None:
    asked, release = threading.Event(), threading.Event()

    def hang(_: Any) -> bool:
        asked.set()
        release.wait(60)
        return True

    server.faults = [hang] * 100
    command = [*PROGRAM, "run", "--model", f"openai:{server.url}", "--tasks", "gsm8k"]
    with subprocess.Popen(
        [*command, "--out", str(tmp_path / "run")],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A test runner in the background may ignore it, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        try:
            assert asked.wait(60)
            begun = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
            took = time.monotonic() - begun
        finally:
            process.kill()
            release.set()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "stopped: 0 of 30 samples kept" in said
    assert took < 5


def test_a_server_that_is_gone_ends_the_run_and_is_named(server: Server) -> None:
    backend = opened(server)
    assert ask(backend, QUESTION)[0].error is None
    server.stop()
    for _ in range(100):
        backend.submit(QUESTION)
    failed: list[tuple[int, Response]] = []

    def collect() -> None:
        while len(failed) < 100:
            failed.extend(backend.step())

    with pytest.raises(InfrastructureError, match=r"127\.0\.0\.1:\d+/v1: the server is gone"):
        collect()
    assert len(failed) < openai.UNREACHED
    assert all("ConnectError" in (response.error or "") for _, response in failed)
    backend.close()


def test_an_answer_between_says_that_the_server_is_there(server: Server) -> None:
    """Two requests in a row find nobody, then the server is back: each failed alone."""
    backend = opened(server)
    port = server.http.server_port
    for _ in range(3):
        server.stop()
        for _ in range(openai.UNREACHED - 1):
            assert "ConnectError" in (ask(backend, QUESTION)[0].error or "")
        server.http = writer(port).http
        assert ask(backend, QUESTION)[0].error is None


def test_requests_that_the_server_refuses_fail_alone(server: Server) -> None:
    backend = opened(server)
    server.faults = [replied(500, b"oops")] * (10 * openai.ATTEMPTS)
    answers = ask(backend, *[QUESTION] * 10)
    assert {answer.error for answer in answers} == {f"HTTP 500, {openai.ATTEMPTS} times"}


def test_the_same_command_goes_on_when_the_server_is_back(server: Server, tmp_path: Path) -> None:
    def leave(handler: Any) -> bool:
        threading.Thread(target=server.stop).start()
        time.sleep(0.3)
        handler.connection.close()
        return True

    command = ["run", "--model", f"openai:{server.url}", "--tasks", "gsm8k", "--batch", "2"]
    command += ["--out", str(tmp_path)]
    server.faults = [None] * 5 + [leave]
    with pytest.raises(InfrastructureError, match="the server is gone"):
        app(command, standalone_mode=False)
    kept = [record for record in read_samples(tmp_path) if record.status != "error"]
    assert 5 <= len(kept) < 20
    assert not (tmp_path / "DONE").exists()

    server.http = writer(server.http.server_port).http
    app(command, standalone_mode=False)
    assert all(record in read_samples(tmp_path) for record in kept)
    assert read_metrics(tmp_path)["tasks"]["gsm8k@strict"]["counts"]["errors"] == 0


@pytest.mark.parametrize(
    "request_of",
    [
        lambda prompt: GenerateRequest(prompt, Decoding(max_tokens=4)),
        lambda prompt: LoglikelihoodRequest(prompt, (" A", " B")),
    ],
)
def test_a_recipe_that_cuts_by_tokens_ends_the_run_with_the_way_out(
    server: Server, request_of: Any
) -> None:
    with pytest.raises(UserError, match=r"cuts prompts to 2048 tokens.*@strict"):
        ask(opened(server), request_of(Prompt("q", max_tokens=2048)))
    assert server.bodies == []


@pytest.mark.parametrize("value", [float("-inf"), float("nan")])
@pytest.mark.parametrize(
    "request_", [LoglikelihoodRequest(Prompt("ab"), ("c", "d")), PerplexityRequest("abc")]
)
def test_what_is_no_number_fails_alone(
    server: Server, request_: ModelRequest, value: float
) -> None:
    logprobs = {
        "tokens": ["a", "b", "c"],
        "token_logprobs": [None, -1.0, value],
        "text_offset": [0, 1, 2],
    }
    server.faults = [replied(200, {"choices": [{"logprobs": logprobs}]})]
    answer = ask(opened(server), request_)[0]
    assert (answer.logprobs, answer.finish_reason) == ((), "error")
    assert "a log-probability that is not a number" in (answer.error or "")


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        (BackendOptions(dtype="float32"), "--dtype float32"),
        (BackendOptions(device="cpu"), "--device cpu"),
        (BackendOptions(max_length=512), "--max-length 512"),
    ],
)
def test_flags_that_change_nothing_are_refused(
    server: Server, options: BackendOptions, flag: str
) -> None:
    with pytest.raises(UserError, match=f"{flag}: changes nothing of openai: models"):
        open_backend("openai", f"{server.url}#toy", options)
