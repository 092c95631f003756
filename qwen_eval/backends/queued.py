"""For backends that answer whole batches: a queue, like requests together, failures alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from qwen_eval.backends.base import BackendInfo
from qwen_eval.errors import QwenEvalError, UserError
from qwen_eval.types import CountRequest, ModelRequest, PerplexityRequest, Response


class QueuedBackend(ABC):
    """Subclasses answer a batch of like requests; `batch` is how many they get at most."""

    def __init__(self, info: BackendInfo, batch: int) -> None:
        self._info, self._batch = info, batch
        self._queues: dict[Any, list[tuple[int, ModelRequest]]] = {}
        self._last_id = 0

    def submit(self, request: ModelRequest) -> int:
        """Queue a request behind those of its kind."""
        self._last_id += 1
        self._queues.setdefault(_kind(request), []).append((self._last_id, request))
        return self._last_id

    def step(self) -> list[tuple[int, Response]]:
        """Answer one batch of the fullest queue, texts of like length together."""
        if not self._queues:
            return []
        kind = max(self._queues, key=lambda kind: len(self._queues[kind]))
        queue = self._queues[kind]
        queue.sort(key=lambda asked: _length(asked[1]))
        taken = queue[-self._batch :]
        del queue[-self._batch :]
        if not queue:
            del self._queues[kind]
        ids = [request_id for request_id, _ in taken]
        answers = self._answer_or_fail([request for _, request in taken])
        return list(zip(ids, answers, strict=True))

    def info(self) -> BackendInfo:
        """What provenance records."""
        return self._info

    def close(self) -> None:
        """Forget what was asked."""
        self._queues.clear()

    @abstractmethod
    def _answer(self, requests: Sequence[ModelRequest]) -> list[Response]:
        """Responses in order. May raise; then each request is tried alone."""

    def _answer_or_fail(self, requests: list[ModelRequest]) -> list[Response]:
        try:
            return self._answer(requests)
        except QwenEvalError:
            raise
        except Exception as error:
            if len(requests) > 1:
                return [self._answer_or_fail([request])[0] for request in requests]
            return [failed(error)]


def failed(error: Exception) -> Response:
    """One request's end; a ValueError of ours speaks for itself, others are named."""
    reason = str(error).partition("\n")[0]
    if not isinstance(error, ValueError):
        reason = f"{type(error).__name__}: {reason}"
    return Response(finish_reason="error", error=reason)


def no_conversation(model: str, error: Exception) -> UserError:
    """What no conversation would survive, where a chat template fails."""
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UserError(
        f"{model}: cannot be asked a conversation ({reason[:200]}); take a model that chats, or a "
        "recipe that does not"
    )


def estimated(request: CountRequest) -> Response:
    """Counts where no tokenizer of the model can be had."""
    counts = (-(-len(text.encode("utf-8", "surrogatepass")) // 4) for text in request.texts)
    return Response(token_counts=tuple(counts), text="estimated: 4 bytes a token")


def _kind(request: ModelRequest) -> Any:
    return (type(request), getattr(request, "decoding", None))


def _length(request: ModelRequest) -> int:
    if isinstance(request, CountRequest):
        return sum(map(len, request.texts))
    if isinstance(request, PerplexityRequest):
        return len(request.text)
    return len(request.prompt.full_text)
