"""Replies are kept as they come, asked once, and those that failed are asked again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from qwen_eval.errors import InfrastructureError
from qwen_eval.train.replies import Replies, Reply
from qwen_eval.types import Decoding, GenerateRequest, Prompt, Response


@dataclass
class Echo:
    """Says the prompt backwards, last request first; fails at the words it is told to."""

    identity: str = "echo 1"
    failing: tuple[str, ...] = ()
    heard: list[str] = field(default_factory=list)
    stops_after: int | None = None

    def ask(self, requests: Sequence[GenerateRequest]) -> Iterator[tuple[int, Response]]:
        for count, place in enumerate(reversed(range(len(requests)))):
            if count == self.stops_after:
                raise KeyboardInterrupt
            text = requests[place].prompt.text
            self.heard.append(text)
            error = "no answer" if text in self.failing else None
            reply = Response(text=text[::-1], finish_reason="stop", error=error)
            yield place, replace(reply, finish_reason="length") if text == "long" else reply

    def close(self) -> None:
        """Nothing to release."""


def requests(*texts: str, **decoding: float) -> list[GenerateRequest]:
    return [GenerateRequest(Prompt(text), Decoding(**decoding)) for text in texts]  # type: ignore[arg-type]


def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with closing(Replies(path)) as replies, pytest.raises(KeyboardInterrupt):
        replies.of(Echo(stops_after=2), requests("abc", "def", "long"))
    with path.open("a") as file:
        file.write('{"request": "torn')
    again = Echo()
    with closing(Replies(path)) as replies:
        found = replies.of(again, requests("abc", "def", "long", "abc"))
    assert found == [
        Reply("cba", True),
        Reply("fed", True),
        Reply("gnol", False),
        Reply("cba", True),
    ]
    assert again.heard == ["abc"]


def test_another_model_or_sampler_is_asked_anew(tmp_path: Path) -> None:
    with closing(Replies(tmp_path / "replies.jsonl")) as replies:
        for model, asked in (
            (Echo(), requests("abc")),
            (Echo(identity="echo 2"), requests("abc")),
            (Echo(), requests("abc", temperature=1.0)),
            (Echo(), requests("abc", temperature=1.0, seed=3)),
        ):
            replies.of(model, asked)
            assert model.heard == ["abc"]
        known = Echo()
        told = [replace(request, reference="cba") for request in requests("abc")]
        assert replies.of(known, told) == [Reply("cba", True)]
        assert known.heard == []


def test_a_failure_is_counted_and_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "replies.jsonl"
    with closing(Replies(path)) as replies:
        assert replies.of(Echo(failing=("def",)), requests("abc", "def"))[1] is None
        assert replies.failed == {"no answer": 1}
        with pytest.raises(InfrastructureError, match="no answer"):
            replies.of(Echo(failing=("def",)), requests("abc", "def"))
    with closing(Replies(path)) as replies:
        assert replies.of(Echo(), requests("def")) == [Reply("fed", True)]
