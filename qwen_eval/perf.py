"""How fast a model is here: prompt tokens and new tokens per second, and the machine's ceiling.

Asked through the backend protocol like any task, so the figures are what a run would see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from qwen_eval.backends.base import Backend
from qwen_eval.errors import InfrastructureError
from qwen_eval.types import (
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    Prompt,
    Response,
)

WORDS = "the old harbour lay quiet while seven small boats came home under a grey evening sky "


@dataclass(frozen=True)
class Speed:
    """One measurement: tokens, seconds of wall time, and their ratio."""

    name: str
    tokens: int
    seconds: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def measure(backend: Backend, batches: Sequence[int] = (1, 8, 32)) -> list[Speed]:
    """Prefill of eight prompts of about 600 tokens, then decoding of 32 tokens at each batch.

    Every prompt begins differently, so no shared prefix flatters the figure.
    """
    text = WORDS * 35
    scored = [LoglikelihoodRequest(Prompt(f"Story {i}. {text}"), (" A", " B")) for i in range(8)]
    _drain(backend, scored[:1])  # the first pass pays for memory and kernels
    speeds = [_timed(backend, "prefill", scored, lambda r: r.prompt_tokens)]
    for batch in batches:
        requests = [
            GenerateRequest(Prompt(f"Story {i}. {WORDS}"), Decoding(max_tokens=32))
            for i in range(batch)
        ]
        speeds.append(_timed(backend, f"decode x{batch}", requests, lambda r: r.output_tokens))
    return speeds


def matmul_rate(dtype: str, rows: int = 512, size: int = 1024) -> float:
    """FLOP/s of a [rows, size] x [size, size] product, best of several."""
    import torch

    kind = {"bfloat16": torch.bfloat16, "float32": torch.float32}[dtype]
    x, w = torch.randn(rows, size).to(kind), torch.randn(size, size).to(kind)
    best = float("inf")
    for _ in range(20):
        began = time.perf_counter()
        torch.nn.functional.linear(x, w)
        best = min(best, time.perf_counter() - began)
    return 2 * rows * size * size / best


def _timed(
    backend: Backend,
    name: str,
    requests: Sequence[ModelRequest],
    tokens: Callable[[Response], int],
) -> Speed:
    began = time.perf_counter()
    responses = _drain(backend, requests)
    return Speed(name, sum(map(tokens, responses)), time.perf_counter() - began)


def _drain(backend: Backend, requests: Sequence[ModelRequest]) -> list[Response]:
    waiting = {backend.submit(request) for request in requests}
    responses = []
    while waiting:
        for request_id, response in backend.step():
            waiting.discard(request_id)
            if response.error:
                raise InfrastructureError(f"perf: the model failed: {response.error}")
            responses.append(response)
    return responses
