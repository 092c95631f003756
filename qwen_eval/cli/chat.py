"""`qwen-eval chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import DTYPES, check_choice, open_model, say
from qwen_eval.errors import InfrastructureError
from qwen_eval.types import Decoding, GenerateRequest, Message, Prompt

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend


@dataclass(frozen=True)
class ChatOptions:
    """The options of `chat`."""

    model: Annotated[str, typer.Option(help="See `qwen-eval models`.")] = "tiny-chat"
    system: Annotated[str, typer.Option(help="A system message; else the model's own.")] = ""
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto"
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest reply in tokens.")] = 256
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0
    top_p: Annotated[float, typer.Option(min=0.01, max=1.0, help="Nucleus.")] = 1.0
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0


@command_from(ChatOptions)
def command(options: ChatOptions) -> None:
    """Talk to a model; an empty line or Ctrl-D ends it."""
    check_choice("--dtype", options.dtype, DTYPES)
    from qwen_eval.backends.base import BackendOptions

    backend = open_model(options.model, BackendOptions(dtype=options.dtype, seed=options.seed))
    decoding = Decoding(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    talk = Conversation(backend, decoding, options.system)
    worked = True
    try:
        while line := _ask():
            worked = talk.answer(line)
    finally:
        backend.close()
    if not worked:
        raise typer.Exit(InfrastructureError.exit_code)


class Conversation:
    """The turns so far. A turn that fails leaves nothing behind; when the context is full, whole
    turns are forgotten, oldest first, and never the system message."""

    def __init__(self, backend: Backend, decoding: Decoding, system: str = "") -> None:
        self._backend, self._decoding = backend, decoding
        self._system = [Message("system", system)] if system else []
        self.turns: list[Message] = []
        self._forgot = False

    def answer(self, line: str) -> bool:
        """Ask the model and print its reply; whether there was one."""
        self.turns.append(Message("user", line))
        try:
            while not self._fits():
                if len(self.turns) == 1:
                    raise _FailedError("the message alone is longer than the model's context")
                if not self._forgot:
                    say("the model's context is full: the oldest turns are forgotten from here on")
                    self._forgot = True
                del self.turns[:2]
            self.turns.append(Message("assistant", self._reply()))
        except _FailedError as error:
            say(f"the model failed: {error}")
            del self.turns[-1]
            return False
        return True

    def _request(self, decoding: Decoding, limit: int | None = None) -> GenerateRequest:
        return GenerateRequest(Prompt(messages=self._all(), max_tokens=limit), decoding)

    def _all(self) -> tuple[Message, ...]:
        return (*self._system, *self.turns)

    def _fits(self) -> bool:
        """Whether the turns and a whole reply fit the context.

        Only the backend can count tokens. Where there may be too many it is asked for a single
        one, with the reply's room taken off the prompt's, and says whether it had to cut.
        """
        room = self._backend.info().max_length - self._decoding.max_tokens
        # A token is at least a byte; some more stand around each turn and in a default system.
        texts = [turn.content.encode("utf-8", "surrogatepass") for turn in self._all()]
        most = 64 + sum(16 + len(text) for text in texts)
        if room < 2 or most <= room:
            return True  # the context is unknown, or too short for any prompt, or long enough
        probe = self._request(replace(self._decoding, max_tokens=1), room)
        request_id = self._backend.submit(probe)
        while (response := dict(self._backend.step()).get(request_id)) is None:
            pass
        if response.error:
            raise _FailedError(response.error)
        return not response.prompt_truncated

    def _reply(self) -> str:
        """Print the reply as it grows, where the backend can show it."""
        request_id = self._backend.submit(self._request(self._decoding))
        written = getattr(self._backend, "written", None)
        shown = ""
        while (response := dict(self._backend.step()).get(request_id)) is None:
            text = written(request_id) if written else ""
            # A character cut in half decodes to U+FFFD until its last byte is there.
            if text.startswith(shown) and not text.endswith("\ufffd"):
                print(text[len(shown) :], end="", flush=True)
                shown = text
        if response.error is None or shown:
            print(response.text[len(shown) :], flush=True)
        if response.error:
            raise _FailedError(response.error)
        if response.prompt_truncated:  # a backend that did not tell its limit
            say("the conversation was longer than the model's context: its beginning was cut")
        return response.text


class _FailedError(Exception):
    """This turn got no reply."""


def _ask() -> str:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    return sys.stdin.readline().strip()
