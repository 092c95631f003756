"""Replies of models, asked once and kept.

Every reply stands in a journal under a hash of the model and of all that it was asked. So what was
stopped goes on by asking again for everything, and other settings ask only for what is new. Knows
nothing of backends: a model is handed in, and of what is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from qwen_eval.errors import InfrastructureError
from qwen_eval.fileio import Journal, canonical_json, read_jsonl, text_hash
from qwen_eval.types import GenerateRequest, Response


class Model(Protocol):
    """Whom to ask. `identity` is the same for models that answer alike."""

    @property
    def identity(self) -> str:
        """Its name and a hash of its weights."""
        ...

    def ask(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Response]]:
        """(place of a request, its response) in any order, as they come."""
        ...

    def close(self) -> None:
        """Give back its memory; it may be asked again."""
        ...


@dataclass(frozen=True)
class Reply:
    """What a model wrote. ended: it ended by itself or at a stop word, not at the limit. cut: it
    saw the end of the prompt only, which is longer than its context."""

    text: str
    ended: bool
    cut: bool = False


class Replies:
    """The journal and what it holds. `failed` counts the requests that came back with an error, by
    what it says; they are not kept, and asked again at the next start."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._known = {
            row["request"]: Reply(row["text"], row["ended"], row["cut"]) for row in read_jsonl(path)
        }
        self.failed: dict[str, int] = {}

    def of(self, model: Model, requests: Sequence[GenerateRequest]) -> list[Reply | None]:
        """The reply to each request, None where it failed.

        Raises InfrastructureError where the model was asked and every request failed.
        """
        names = [_name(model, request) for request in requests]
        missing = {n: r for n, r in zip(names, requests, strict=True) if n not in self._known}
        asked = list(missing)
        failed = 0
        for place, response in model.ask(list(missing.values())) if asked else ():
            if response.error is not None:
                failed += 1
                self.failed[response.error] = self.failed.get(response.error, 0) + 1
                continue
            ended = response.finish_reason == "stop"
            reply = Reply(response.text, ended, response.prompt_truncated)
            self._known[asked[place]] = reply
            self._journal.append({"request": asked[place]} | asdict(reply))
        if asked and failed == len(asked):
            raise InfrastructureError(f"{model.identity}: all failed: {next(iter(self.failed))}")
        return [self._known.get(name) for name in names]

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()


def _name(model: Model, request: GenerateRequest) -> str:
    asked = [model.identity, asdict(request.prompt), asdict(request.decoding)]
    return text_hash(canonical_json(asked), 32)
