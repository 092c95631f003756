"""`qwen-eval chat`: talk to a model in the terminal."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import DTYPES, check_choice, open_model, say

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend
    from qwen_eval.types import GenerateRequest, Message


@dataclass(frozen=True)
class ChatOptions:
    """The options of `chat`."""

    model: Annotated[str, typer.Option(help="See `qwen-eval models`.")] = "smollm2"
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
    from qwen_eval.types import Decoding, GenerateRequest, Message, Prompt

    backend = open_model(options.model, BackendOptions(dtype=options.dtype, seed=options.seed))
    turns: list[Message] = [Message("system", options.system)] if options.system else []
    decoding = Decoding(
        max_tokens=options.max_tokens,
        temperature=options.temperature,
        top_p=options.top_p,
        seed=options.seed,
    )
    try:
        while line := _ask():
            turns.append(Message("user", line))
            request = GenerateRequest(Prompt(messages=tuple(turns)), decoding)
            turns.append(Message("assistant", _reply(backend, request)))
    finally:
        backend.close()


def _ask() -> str:
    if sys.stdin.isatty():
        print("> ", end="", flush=True)
    return sys.stdin.readline().strip()


def _reply(backend: Backend, request: GenerateRequest) -> str:
    """Print the reply as it grows, where the backend can show it."""
    request_id = backend.submit(request)
    written = getattr(backend, "written", None)
    shown = ""
    while True:
        finished = dict(backend.step())
        if request_id in finished:
            response = finished[request_id]
            if response.error:
                say(f"the model failed: {response.error}")
            print(response.text[len(shown) :], flush=True)
            return str(response.text)
        text = written(request_id) if written else ""
        # A character cut in half decodes to U+FFFD until its last byte is there.
        if text.startswith(shown) and not text.endswith("\ufffd"):
            print(text[len(shown) :], end="", flush=True)
            shown = text
