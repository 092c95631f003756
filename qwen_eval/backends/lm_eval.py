"""Any model of lm-evaluation-harness (vLLM, SGLang, Megatron, APIs, ...) under our tasks.

`lm_eval:NAME,ARGS` takes the words of its own --model and --model_args. Its interface is text, so
the seam between prompt and option is its own.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model

from qwen_eval.backends.base import (
    BackendInfo,
    BackendOptions,
    choose_device,
    folder_fingerprint,
    model_name,
    refuse_flags,
)
from qwen_eval.backends.queued import QueuedBackend, estimated, no_conversation
from qwen_eval.errors import UserError
from qwen_eval.types import (
    CountRequest,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    PerplexityRequest,
    Prompt,
    Response,
)

DEFAULT_BATCH = 8
_BATCHES_AT_ONCE = 4  # it sorts what it is given by length, so give it a few batches


class LmEvalBackend(QueuedBackend):
    """One `lm_eval.api.model.LM`."""

    def __init__(self, lm: Any, info: BackendInfo, batch: int) -> None:
        super().__init__(info, batch)
        self._lm = lm

    @classmethod
    def open(cls, target: str, options: BackendOptions) -> LmEvalBackend:
        """`NAME,key=value,...`. Raises UserError when the model cannot be made."""
        refuse_flags(options, "lm_eval:")
        name, _, arguments = target.partition(",")
        batch = options.batch or DEFAULT_BATCH
        wishes: dict[str, Any] = {"batch_size": batch, "max_length": options.max_length}
        wishes["dtype"] = None if options.dtype == "auto" else options.dtype
        given = {argument.partition("=")[0] for argument in arguments.split(",")}
        try:
            with contextlib.redirect_stdout(sys.stderr):
                model = get_model(name)
                wishes["device"] = _device(model, options.device)
                lm = model.create_from_arg_string(
                    arguments, {key: value for key, value in wishes.items() if key not in given}
                )
        except Exception as error:  # each of its models raises types of its own
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"--model lm_eval:{target}: {reason[:300]}") from error
        folder = next(
            (part[11:] for part in arguments.split(",") if part.startswith("pretrained=")), ""
        )
        info = BackendInfo(
            name=model_name(folder) if folder else name,
            fingerprint=folder_fingerprint(Path(folder)) if folder else "",
            tokenizer=str(getattr(lm, "tokenizer_name", "")).replace("/", "__"),
            dtype=str(getattr(getattr(lm, "model", None), "dtype", "")).removeprefix("torch."),
            device=str(getattr(lm, "device", "") or ""),
            max_length=int(getattr(lm, "max_length", 0) or 0),
            concurrency=2 * _BATCHES_AT_ONCE * batch,
            detail={"backend": "lm_eval", "model": name, "class": type(lm).__name__},
        )
        return cls(lm, info, _BATCHES_AT_ONCE * batch)

    def _answer(self, requests: Sequence[ModelRequest]) -> list[Response]:
        if isinstance(requests[0], CountRequest):
            return [self._count(r) for r in requests if isinstance(r, CountRequest)]
        if isinstance(requests[0], PerplexityRequest):
            if not requests[0].whole:
                raise UserError(
                    "lm-evaluation-harness gives no log-probabilities of tokens, which this recipe "
                    "needs; use hf: or a folder"
                )
            raise ValueError("lm-evaluation-harness gives sums only; use hf: or a folder")
        with contextlib.redirect_stdout(sys.stderr):
            if isinstance(requests[0], GenerateRequest):
                return self._generate([r for r in requests if isinstance(r, GenerateRequest)])
            return self._score([r for r in requests if isinstance(r, LoglikelihoodRequest)])

    def _score(self, requests: list[LoglikelihoodRequest]) -> list[Response]:
        contexts = [self._context(request.prompt) for request in requests]
        instances = [
            Instance("loglikelihood", {}, (context, option), number)
            for number, (context, request) in enumerate(zip(contexts, requests, strict=True))
            for option in request.continuations
        ]
        values = iter(self._lm.loglikelihood(instances, disable_tqdm=True))
        answers = []
        for context, request in zip(contexts, requests, strict=True):
            pairs = [next(values) for _ in request.continuations]
            counts = [self._tokens(option) for option in request.continuations]
            tokens = self._tokens(context)
            answers.append(
                Response(
                    logprobs=tuple(float(value) for value, _ in pairs),
                    greedy=tuple(bool(greedy) for _, greedy in pairs),
                    token_counts=tuple(counts) if all(counts) else (),
                    prompt_tokens=tokens,
                    prompt_truncated=self._is_cut(context, request.prompt, max(counts)),
                )
            )
        return answers

    def _generate(self, requests: list[GenerateRequest]) -> list[Response]:
        decoding = requests[0].decoding
        if decoding.temperature > 0 and len(requests) > 1:  # a seed speaks for one request
            return [self._generate([request])[0] for request in requests]
        settings: dict[str, Any] = {
            "until": list(decoding.stop),
            "max_gen_toks": decoding.max_tokens,
            "do_sample": decoding.temperature > 0,
            "temperature": decoding.temperature,
        }
        if decoding.temperature > 0:
            settings |= {"top_p": decoding.top_p, "top_k": decoding.top_k}
            settings |= self._seeded(decoding.seed)
        if decoding.repetition_penalty != 1.0:
            settings["repetition_penalty"] = decoding.repetition_penalty
        contexts = [self._context(request.prompt) for request in requests]
        instances = [
            Instance("generate_until", {}, (context, dict(settings)), number)
            for number, context in enumerate(contexts)
        ]
        texts = self._lm.generate_until(instances, disable_tqdm=True)
        answers = []
        for request, context, text in zip(requests, contexts, texts, strict=True):
            count = self._tokens(text)
            answers.append(
                Response(
                    text=text,
                    # It does not say why a text ended; one of full length was cut.
                    finish_reason="length" if count >= decoding.max_tokens else "stop",
                    prompt_tokens=self._tokens(context),
                    output_tokens=count,
                    prompt_truncated=self._is_cut(context, request.prompt, decoding.max_tokens),
                )
            )
        return answers

    def _seeded(self, seed: int) -> dict[str, int]:
        """How its model is told the seed of a draw: a setting, but for transformers, which takes
        none and draws from torch's own generator."""
        from lm_eval.models.huggingface import HFLM

        if not isinstance(self._lm, HFLM):
            return {"seed": seed}
        import torch

        torch.manual_seed(seed)
        return {}

    def _context(self, prompt: Prompt) -> Any:
        """A text; for a conversation what its model makes of one, which its APIs send as it is."""
        if prompt.messages:
            turns = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
            try:
                whole = self._lm.apply_chat_template(turns[: len(prompt.turns)])
                if not prompt.begun:
                    return whole
                if isinstance(whole, str):
                    return whole + prompt.begun
                return self._lm.apply_chat_template(turns, add_generation_prompt=False)
            except Exception as error:  # each of its models raises types of its own
                name = self._info.detail["model"]
                raise no_conversation(f"lm_eval:{name}", error) from error
        text = prompt.full_text
        if prompt.max_tokens is None:
            return text
        if not hasattr(self._lm, "tok_decode"):
            raise UserError(
                f"this recipe cuts prompts to {prompt.max_tokens} tokens and this model shows no "
                "tokenizer; use a recipe without max_prompt_tokens (@strict), hf: or a folder"
            )
        ids = self._lm.tok_encode(text)
        if len(ids) <= prompt.max_tokens:
            return text
        return str(self._lm.tok_decode(ids[-(prompt.max_tokens - 1) :]))

    def _count(self, request: CountRequest) -> Response:
        if not hasattr(self._lm, "tok_encode"):
            return estimated(request)
        return Response(token_counts=tuple(map(self._tokens, request.texts)))

    def _tokens(self, text: Any) -> int:
        """Tokens of a text; 0 where the model shows no tokenizer, or its API makes the text."""
        encode = getattr(self._lm, "tok_encode", None)
        return len(encode(text)) if encode and isinstance(text, str) else 0

    def _is_cut(self, context: Any, prompt: Prompt, behind: int) -> bool:
        too_long = self._tokens(context) + behind > (self._info.max_length or sys.maxsize)
        return too_long or (not prompt.messages and context != prompt.full_text)


def _device(model: Any, wish: str) -> str | None:
    """Its models on a local device take cuda unless told, whether there is any or not."""
    local = "device" in inspect.signature(model.__init__).parameters
    return choose_device(wish) if local or wish != "auto" else None
