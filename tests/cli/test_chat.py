"""A conversation: what the model is asked after failures and when the context is full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_eval.backends.base import Backend, BackendInfo, BackendOptions
from qwen_eval.cli.chat import Conversation
from qwen_eval.types import Decoding, GenerateRequest, Message, ModelRequest, Response
from tests.cli.command import qwen_eval
from tests.model.toy_folder import toy_checkpoint

SYSTEM = "You are brief."


class Recorder:
    """A backend that keeps what went through it."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.asked: dict[int, GenerateRequest] = {}
        self.answered: dict[int, Response] = {}

    def submit(self, request: ModelRequest) -> int:
        assert isinstance(request, GenerateRequest)
        request_id = self.inner.submit(request)
        self.asked[request_id] = request
        return request_id

    def step(self) -> list[tuple[int, Response]]:
        finished = self.inner.step()
        self.answered.update(finished)
        return finished

    def info(self) -> BackendInfo:
        return self.inner.info()

    def close(self) -> None:
        self.inner.close()

    def conversations(self, max_tokens: int) -> list[tuple[Sequence[Message], Response]]:
        return [
            (request.prompt.messages, self.answered[i])
            for i, request in self.asked.items()
            if request.decoding.max_tokens == max_tokens
        ]


@pytest.fixture
def toy(tmp_path: Path) -> Recorder:
    """A native model of random weights: bytes as tokens, a context of 256."""
    from qwen_eval.backends.native import NativeBackend

    folder = toy_checkpoint(tmp_path / "model")
    return Recorder(NativeBackend.open(str(folder), BackendOptions(dtype="float32")))


def test_a_full_context_loses_whole_turns_and_never_the_system_message(
    toy: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = Conversation(toy, Decoding(max_tokens=8), SYSTEM)
    lines = [f"Question {i} " + "x" * 30 for i in range(9)]
    for line in lines:
        assert talk.answer(line)
    asked = toy.conversations(8)
    assert len(asked) == len(lines)
    lengths = []
    for line, (messages, response) in zip(lines, asked, strict=True):
        assert not response.prompt_truncated
        assert messages[0] == Message("system", SYSTEM)
        assert [m.role for m in messages[1:]] == ["user", "assistant"] * (
            len(messages) // 2 - 1
        ) + ["user"]
        # The newest user turns, without a gap.
        users = [m.content for m in messages if m.role == "user"]
        end = lines.index(line) + 1
        assert users == lines[end - len(users) : end]
        lengths.append(len(users))
    assert lengths[:2] == [1, 2]
    assert max(lengths) < len(lines)
    assert capsys.readouterr().err.count("oldest turns are forgotten") == 1


def test_a_conversation_that_just_fits_is_kept_whole(toy: Recorder) -> None:
    def tokens(line: str) -> int:
        talk = Conversation(toy, Decoding(max_tokens=8), SYSTEM)
        assert talk.answer(line)
        return toy.conversations(8)[-1][1].prompt_tokens

    room = 256 - 8
    longest = room - tokens("x") + 1
    assert tokens("x" * longest) == room
    assert not Conversation(toy, Decoding(max_tokens=8), SYSTEM).answer("x" * (longest + 1))


def test_a_message_longer_than_the_context_fails_alone(
    toy: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    talk = Conversation(toy, Decoding(max_tokens=8), SYSTEM)
    assert not talk.answer("x" * 300)
    assert talk.turns == []
    assert "the message alone is longer than the model's context" in capsys.readouterr().err
    assert talk.answer("short")
    assert [m.content for m in toy.conversations(8)[-1][0]] == [SYSTEM, "short"]


def test_a_failed_turn_leaves_nothing_behind(tmp_path: Path) -> None:
    from qwen_eval.backends.mock import MockBackend

    script = tmp_path / "script.jsonl"
    rules = [{"contains": "fail", "error": "no such thing"}, {"text": "fine"}]
    script.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    backend = Recorder(MockBackend.open(str(script), BackendOptions()))
    talk = Conversation(backend, Decoding())
    assert [talk.answer(line) for line in ("one", "fail", "two")] == [True, False, True]
    assert [m.content for m in talk.turns] == ["one", "fine", "two", "fine"]


def test_a_cut_that_came_as_a_surprise_is_told(
    toy: Recorder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy, "info", lambda: replace(toy.inner.info(), max_length=0))
    assert Conversation(toy, Decoding(max_tokens=8)).answer("x" * 300)
    assert "its beginning was cut" in capsys.readouterr().err


@pytest.mark.parametrize(("lines", "code"), [("fail\nok\n", 0), ("ok\nfail\n", 4), ("", 0)])
def test_the_exit_code_is_the_last_replys(lines: str, code: int, tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"contains": "fail", "error": "no luck"}\n{"text": "fine"}\n')
    done = qwen_eval("chat", "--model", f"mock:{script}", stdin=lines)
    assert done.returncode == code, done.stderr
    assert done.stdout == ("fine\n" if lines else "")
    assert done.stderr.count("the model failed: no luck") == ("fail" in lines)


def test_bytes_that_are_no_text_do_not_end_it(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    script.write_text('{"text": "d\u00e9j\u00e0 vu"}\n')
    done = qwen_eval(
        "chat", "--model", f"mock:{script}", stdin="caf\u00e9\n", PYTHONIOENCODING="ascii"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "d?j? vu\n"
