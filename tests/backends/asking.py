"""Ask a backend and wait for all of its answers."""

from __future__ import annotations

import time

from qwen_eval.backends.base import Backend
from qwen_eval.types import ModelRequest, Response


def ask(backend: Backend, *requests: ModelRequest, seconds: float = 60.0) -> list[Response]:
    """Responses in the order of the requests."""
    ids = [backend.submit(request) for request in requests]
    answers: dict[int, Response] = {}
    limit = time.monotonic() + seconds
    while len(answers) < len(ids):
        assert time.monotonic() < limit, "no answer"
        answers.update(backend.step())
    return [answers[i] for i in ids]
