"""Our own model and engine behind the backend protocol: text in, text and log-probabilities out.

The only file that imports qwen_eval.model. Turns prompts into ids (tokenizer, ChatML), makes a
predicate of stop strings, cuts what does not fit the context and says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from qwen_eval.backends.base import (
    BackendInfo,
    BackendOptions,
    choose_device,
    folder_fingerprint,
)
from qwen_eval.backends.encoding import PromptEncoder
from qwen_eval.errors import UserError
from qwen_eval.model import chatml
from qwen_eval.model.config import ModelConfig, load_config
from qwen_eval.model.engine import (
    Engine,
    EngineResult,
    Generate,
    Generated,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
)
from qwen_eval.model.fused import fuse
from qwen_eval.model.tokenizer import Tokenizer, load_tokenizer
from qwen_eval.model.weights import load_model
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    Message,
    ModelRequest,
    PerplexityRequest,
    Prompt,
    Response,
)

DEFAULT_BATCH = 32


class NativeBackend:
    """One checkpoint folder on one device."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, info: BackendInfo) -> None:
        self.engine, self.tokenizer = engine, tokenizer
        self._info = info
        self._encoder = PromptEncoder(tokenizer)
        self._asked: dict[int, tuple[ModelRequest, int, bool]] = {}
        self._engine_ids: dict[int, int] = {}
        self._ready: list[tuple[int, Response]] = []
        self._next_id = 0

    @classmethod
    def open(cls, target: str, options: BackendOptions) -> NativeBackend:
        """Load a folder. Raises UserError for anything wrong with it or with the options."""
        folder = Path(target)
        device = choose_device(options.device)
        dtype = _dtype(options.dtype, device)
        config = load_config(folder).with_context(**options.context, max_length=options.max_length)
        tokenizer = load_tokenizer(folder)
        model = fuse(load_model(folder, dtype, device, config))
        try:
            engine = Engine(
                model,
                max_sequences=options.batch or DEFAULT_BATCH,
                cache_bytes=options.kv_memory,
                batch_invariant=options.batch_invariant,
            )
            _hold(engine, [length for length in options.lengths if length <= config.max_length])
        except ValueError as error:
            raise UserError(str(error)) from error
        info = BackendInfo(
            name=folder.resolve().name,
            fingerprint=folder_fingerprint(folder),
            tokenizer=tokenizer.fingerprint,
            dtype=str(dtype).removeprefix("torch."),
            device=device,
            max_length=config.max_length,
            concurrency=4 * (options.batch or DEFAULT_BATCH),
            detail={
                "backend": "native",
                "family": config.family,
                "parameters": config.parameters,
                **_context(config),
                "threads": torch.get_num_threads(),
                "kernels": model.kernels,
                "attention": engine.attention,
                "batch_invariant": engine.exact,
                "note": _note(folder),
            },
        )
        return cls(engine, tokenizer, info)

    def submit(self, request: ModelRequest) -> int:
        """Encode and queue; a request that cannot be served fails alone."""
        request_id = self._next_id
        self._next_id += 1
        if (response := self._at_once(request)) is not None:
            self._ready.append((request_id, response))
            return request_id
        try:
            engine_id, prompt_tokens, truncated = self._submit(request)
        except ValueError as error:
            response = Response(finish_reason="error", error=str(error))
            self._ready.append((request_id, response))
        else:
            self._asked[engine_id] = (request, prompt_tokens, truncated)
            self._engine_ids[engine_id] = request_id
        return request_id

    def step(self) -> list[tuple[int, Response]]:
        """One forward pass."""
        finished, self._ready = self._ready, []
        for engine_id, result in self.engine.step():
            request, prompt_tokens, truncated = self._asked.pop(engine_id)
            response = self._response(request, result)
            finished.append(
                (
                    self._engine_ids.pop(engine_id),
                    replace(response, prompt_tokens=prompt_tokens, prompt_truncated=truncated),
                )
            )
        return finished

    def info(self) -> BackendInfo:
        """Name, fingerprint, dtype, device and context switches."""
        return self._info

    def close(self) -> None:
        """Forget what was asked; the memory goes with the last reference."""
        self._asked.clear()
        self._engine_ids.clear()

    def written(self, request_id: int) -> str:
        """The text of a running GenerateRequest so far, for a conversation on a screen."""
        for engine_id, asked in self._engine_ids.items():
            if asked == request_id:
                return self.tokenizer.decode(list(self.engine.written(engine_id)))
        return ""

    def _at_once(self, request: ModelRequest) -> Response | None:
        """The answer to what needs no model: counting, and reading where no token is."""
        if isinstance(request, CountRequest):
            return self._encoder.count(request)
        if isinstance(request, PerplexityRequest) and not self._encoder.part(request):
            return Response(prompt_tokens=1)
        return None

    def _submit(self, request: ModelRequest) -> tuple[int, int, bool]:
        assert not isinstance(request, CountRequest)
        limit = self.engine.config.max_length
        if isinstance(request, PerplexityRequest):
            ids = [self.tokenizer.start_id, *self._encoder.part(request)]
            return self.engine.submit(ScoreTokens(tuple(ids))), len(ids), False
        if isinstance(request, LoglikelihoodRequest):
            prompt, options = self._encode_options(request)
            room = limit - max(len(option) for option in options) + 1
            ids, truncated = _fit(prompt, room, request.prompt)
            scored = ScoreContinuations(
                tuple(ids), tuple(map(tuple, options)), self._shared(request.prompt, truncated)
            )
            return self.engine.submit(scored), len(ids), truncated
        room = self._room(request.decoding)
        ids, truncated = _fit(self._encode_prompt(request.prompt), room, request.prompt)
        shared = self._shared(request.prompt, truncated)
        return (
            self.engine.submit(self._generate(ids, request.decoding, shared)),
            len(ids),
            truncated,
        )

    def submit_ids(
        self,
        ids: Sequence[int],
        wanted: Decoding | Sequence[Sequence[int]],
        shared: int | None = None,
    ) -> int:
        """Queue a prompt that is encoded already, for a reply or for the log-probabilities of
        continuations; what does not fit is cut from the left. `shared`: of the first ids, those
        that other prompts may begin with as well, None for all.

        Raises ValueError for what the engine cannot serve."""
        request_id = self._next_id
        self._next_id += 1
        request: ModelRequest
        if isinstance(wanted, Decoding):
            request = GenerateRequest(Prompt(), wanted)
            kept, truncated = _fit(list(ids), self._room(wanted), request.prompt)
            engine_id = self.engine.submit(self._generate(kept, wanted, shared))
        else:
            request = LoglikelihoodRequest(Prompt(), ("",) * len(wanted))
            room = self.engine.config.max_length - max(map(len, wanted)) + 1
            kept, truncated = _fit(list(ids), room, request.prompt)
            options = tuple(map(tuple, wanted))
            engine_id = self.engine.submit(ScoreContinuations(tuple(kept), options, shared))
        self._asked[engine_id] = (request, len(kept), truncated)
        self._engine_ids[engine_id] = request_id
        return request_id

    def _room(self, decoding: Decoding) -> int:
        limit = self.engine.config.max_length
        if decoding.max_tokens >= limit:  # so it is for every sample: nothing needs to be asked
            raise UserError(
                f"replies of up to {decoding.max_tokens} tokens do not fit this model's context of "
                f"{limit}"
            )
        return limit - decoding.max_tokens

    def _generate(self, ids: Sequence[int], d: Decoding, shared: int | None) -> Generate:
        return Generate(
            tuple(ids),
            Sampling(d.max_tokens, d.temperature, d.top_p, d.top_k, d.repetition_penalty, d.seed),
            frozenset(self.tokenizer.stop_ids),
            self._stops_at(d.stop),
            shared,
        )

    def chat_text(self, turns: Sequence[Message], *, goes_on: bool) -> str:
        """A conversation as one text with its control tokens written out. `goes_on`: the last turn
        is the beginning of a reply that is to be continued; else a reply is to begin behind it."""
        said = [(turn.role, turn.content) for turn in turns]
        return chatml.chat_text(said, self.tokenizer, goes_on=goes_on)

    def _encode_prompt(self, prompt: Prompt) -> list[int]:
        if prompt.messages:
            turns = [(message.role, message.content) for message in prompt.turns]
            chat = chatml.encode_chat(turns, self.tokenizer, add_generation_prompt=True)
            return [*chat.ids, *self.tokenizer.encode(prompt.begun)]
        return self._begin() + self._encoder.encode(prompt.prefix, prompt.text)

    def _encode_options(self, request: LoglikelihoodRequest) -> tuple[list[int], list[list[int]]]:
        prompt = request.prompt
        if prompt.messages:
            encoded = [self.tokenizer.encode(option) for option in request.continuations]
            return self._encode_prompt(prompt), encoded
        ids, options = self._encoder.encode_options(
            prompt.prefix, prompt.text, request.continuations
        )
        ids = self._begin() + ids
        return ids or [self.tokenizer.start_id], options

    def _shared(self, prompt: Prompt, truncated: bool) -> int | None:
        """How much of a prompt others begin with: all of a conversation, which goes on."""
        if prompt.messages or truncated:
            return None
        return len(self._begin()) + self._encoder.length(prompt.prefix)

    def _begin(self) -> list[int]:
        return [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]

    def _stops_at(self, stop: tuple[str, ...]) -> Callable[[Sequence[int]], bool] | None:
        if not stop:
            return None
        wanted = [text.encode() for text in stop]
        # A stop string of n bytes ends in the newest token, so it began at most n tokens ago.
        reach = max(map(len, wanted)) + 1

        def should_stop(new_ids: Sequence[int]) -> bool:
            tail = self.tokenizer.decode_bytes(list(new_ids[-reach:]))
            return any(text in tail for text in wanted)

        return should_stop

    def _response(self, request: ModelRequest, result: EngineResult) -> Response:
        if isinstance(result, Generated):
            assert isinstance(request, GenerateRequest)
            text = self.tokenizer.decode(list(result.ids))
            cut = min((i for s in request.decoding.stop if (i := text.find(s)) >= 0), default=None)
            return Response(
                text=text[:cut],
                logprobs=result.logprobs,
                finish_reason=result.reason,
                output_tokens=len(result.ids),
            )
        if isinstance(request, PerplexityRequest):
            logprobs = tuple(x for x in result if isinstance(x, float))
            return Response(logprobs=request.kept(logprobs))
        scores = [score for score in result if not isinstance(score, float)]
        return Response(
            logprobs=tuple(sum(score.logprobs) for score in scores),
            token_counts=tuple(len(score.logprobs) for score in scores),
            greedy=tuple(score.greedy for score in scores),
        )


def _hold(engine: Engine, lengths: Sequence[int]) -> None:
    """Raises ValueError for sequences so long that their keys and values could never be held."""
    for length in lengths:
        try:
            engine.cancel(engine.submit(ScoreTokens((0,) * length)))
        except ValueError as error:
            raise ValueError(f"a sequence of {length:,} tokens {error}") from error


def _fit(ids: list[int], room: int, prompt: Prompt) -> tuple[list[int], bool]:
    """Cut a prompt from the left: to the recipe's own limit, then to the model's."""
    if room < 1:
        raise ValueError("the reply alone is longer than the model's context")
    kept = ids
    if prompt.max_tokens is not None and len(kept) > prompt.max_tokens:
        kept = kept[-(prompt.max_tokens - 1) :]
    kept = kept[-room:]
    return kept, len(kept) < len(ids)


def _context(config: ModelConfig) -> dict[str, Any]:
    """How the model goes beyond its trained length; `ntk`: off, or whether its stretch is taken
    from the prompt or follows the text chunk by chunk."""
    return {
        "trained_length": config.trained_length,
        "ntk": ("chunk" if config.ntk_chunks else "prompt") if config.ntk else "off",
        "logn": config.logn,
        "yarn": asdict(config.yarn) if config.yarn else None,
        "windows": list(config.windows),
        "sinks": config.sinks,
    }


def _note(folder: Path) -> str:
    """What the converter of a checkpoint had to say of it, such as its quantisation."""
    path = folder / "NOTE"
    return path.read_text(encoding="utf-8").strip() if path.exists() else ""


def _dtype(wish: str, device: str) -> torch.dtype:
    if wish == "auto":
        # Without bf16 products in hardware, bf16 on a CPU is slower than fp32 and less exact.
        fast = device != "cpu" or torch.cpu._is_avx512_bf16_supported()
        return torch.bfloat16 if fast else torch.float32
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[wish]
