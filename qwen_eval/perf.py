"""How fast a model is here: prompt tokens and new tokens per second, and the machine's ceiling.

Asked through the backend protocol like any task, so the figures are what a run would see.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from qwen_eval.backends.base import Backend
from qwen_eval.errors import InfrastructureError, UserError
from qwen_eval.types import (
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    Prompt,
    Response,
)

SECONDS = 20.0
BATCHES = (1, 8, 32)
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


def measure(backend: Backend, seconds: float = SECONDS) -> Iterator[Speed]:
    """Prefill of eight prompts of about 600 tokens, then decoding of 32 tokens at each batch.

    A slow machine is asked for less, and not for large batches, so that all of it takes about
    `seconds` at most. Every prompt begins differently, so no shared prefix flatters the figure.
    Raises UserError if the model counts no tokens.
    """
    stories, share = itertools.count(), seconds / (1 + len(BATCHES))

    def score(words: int) -> list[ModelRequest]:
        # In WORDS: 35 make a prompt, fewer a short one.
        texts = [
            f"Story {next(stories)}. {WORDS * min(words, 35)}" for _ in range(max(words // 35, 1))
        ]
        return [LoglikelihoodRequest(Prompt(text), (" A", " B")) for text in texts]

    def write(batch: int, tokens: int) -> list[ModelRequest]:
        # A short prompt, so that decoding is all that is measured.
        prompts = [Prompt(f"Story {next(stories)}.") for _ in range(batch)]
        return [GenerateRequest(prompt, Decoding(max_tokens=tokens)) for prompt in prompts]

    _drain(backend, score(1))  # the first pass pays for memory and kernels
    yield _grown(backend, "prefill", score, (4, 16, 35, 70, 280), share)
    rate = float("inf")
    for batch in BATCHES:
        if 2 * batch / rate > share:
            return
        speed = _grown(backend, f"decode x{batch}", partial(write, batch), (2, 8, 32), share)
        rate = speed.rate
        yield speed


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


def _grown(
    backend: Backend,
    name: str,
    make: Callable[[int], list[ModelRequest]],
    sizes: Sequence[int],
    share: float,
) -> Speed:
    """The largest of the sizes that is expected to end within `share` seconds, all counted."""
    began = time.perf_counter()
    speed, last = _timed(backend, name, make(sizes[0])), sizes[0]
    for size in sizes[1:]:
        if time.perf_counter() - began + speed.seconds * size / last > share:
            break
        speed, last = _timed(backend, name, make(size)), size
    return speed


def _timed(backend: Backend, name: str, requests: Sequence[ModelRequest]) -> Speed:
    began = time.perf_counter()
    responses = _drain(backend, requests)
    seconds = time.perf_counter() - began
    tokens = sum(r.prompt_tokens if name == "prefill" else r.output_tokens for r in responses)
    if not tokens:
        raise UserError(
            f"perf: {backend.info().name} counts no tokens, there is nothing to measure"
        )
    return Speed(name, tokens, seconds)


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
