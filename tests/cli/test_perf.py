"""`qwen-eval perf`: bounded on slow machines, honest about what it does not know."""

from __future__ import annotations

import json

import pytest

from qwen_eval import perf
from qwen_eval.backends.base import BackendInfo
from qwen_eval.cli import perf as command
from qwen_eval.types import GenerateRequest, LoglikelihoodRequest, ModelRequest, Response
from tests.cli.command import qwen_eval, refused


class Clockwork:
    """A model of a known speed, and the clock that it moves."""

    def __init__(self, rate: float, **detail: int) -> None:
        self.rate, self.now, self.detail = rate, 0.0, detail
        self.prompts: list[str] = []
        self._queue: list[tuple[int, Response]] = []

    def submit(self, request: ModelRequest) -> int:
        assert isinstance(request, GenerateRequest | LoglikelihoodRequest)
        self.prompts.append(request.prompt.full_text)
        tokens = len(request.prompt.full_text.split())
        new = request.decoding.max_tokens if isinstance(request, GenerateRequest) else 0
        self._queue.append((len(self.prompts), Response(prompt_tokens=tokens, output_tokens=new)))
        return len(self.prompts)

    def step(self) -> list[tuple[int, Response]]:
        done, self._queue = self._queue, []
        self.now += sum(r.output_tokens or r.prompt_tokens for _, r in done) / self.rate
        return done

    def info(self) -> BackendInfo:
        return BackendInfo("clockwork", dtype="float32", device="cpu", detail=self.detail)

    def close(self) -> None:
        pass


def measured(backend: Clockwork, monkeypatch: pytest.MonkeyPatch) -> dict[str, perf.Speed]:
    monkeypatch.setattr("qwen_eval.perf.time.perf_counter", lambda: backend.now)
    speeds = {speed.name: speed for speed in perf.measure(backend)}
    assert len(set(backend.prompts)) == len(backend.prompts), "a cached prompt costs nothing"
    return speeds


def test_a_fast_machine_is_asked_for_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = measured(Clockwork(5000), monkeypatch)
    tokens = {name: speed.tokens for name, speed in speeds.items()}
    assert tokens.pop("prefill") == 8 * len(f"Story 0. {perf.WORDS * 35}".split())
    assert tokens == {"decode x1": 32, "decode x8": 8 * 32, "decode x32": 32 * 32}


@pytest.mark.parametrize("rate", [2000, 500, 200, 100, 20, 5])
def test_a_slow_machine_is_asked_for_less(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Clockwork(rate)
    speeds = measured(backend, monkeypatch)
    assert backend.now <= 1.2 * perf.SECONDS
    assert all(speed.rate == pytest.approx(rate) for speed in speeds.values())
    assert {"prefill", "decode x1"} <= set(speeds)


def test_a_share_is_told_only_of_a_model_of_known_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = []
    for detail in ({"parameters": 1000}, {}):
        backend = Clockwork(1e6, **detail)
        monkeypatch.setattr(command, "open_model", lambda *_, backend=backend: backend)
        monkeypatch.setattr("qwen_eval.perf.time.perf_counter", lambda backend=backend: backend.now)
        monkeypatch.setattr(perf, "matmul_rate", lambda _: 4e9)
        command.command("hf:x", "auto", True)
        text = capsys.readouterr().out
        assert ("prefill uses" in text) == bool(detail)
        assert text.endswith("}\n")
        figures.append(json.loads(text.splitlines()[-1])["figures"])
    assert figures[0]["prefill_share"] == 0.5
    assert figures[1] == {k: v for k, v in figures[0].items() if k != "prefill_share"}


@pytest.mark.parametrize("model", ["mock:oracle", "mock:random", "mock:script.jsonl"])
def test_a_mock_has_no_speed(model: str) -> None:
    line = refused(qwen_eval("perf", "--model", model))
    assert line == f"--model {model}: computes nothing, so there is nothing to measure"
