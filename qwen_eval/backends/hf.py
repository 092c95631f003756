"""Any causal model of the transformers library: the reference, and the way to other architectures.

Prompts are laid flush right in a batch, so that the positions asked for are the last ones and only
they meet the vocabulary. Weights are read from safetensors and no code of the checkpoint is run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    StoppingCriteria,
    StoppingCriteriaList,
)

from qwen_eval.backends.base import (
    BackendInfo,
    BackendOptions,
    choose_device,
    folder_fingerprint,
    model_name,
    refuse_flags,
)
from qwen_eval.backends.encoding import PromptEncoder
from qwen_eval.backends.queued import QueuedBackend, no_conversation
from qwen_eval.errors import UserError
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    PerplexityRequest,
    Prompt,
    Response,
)

DEFAULT_BATCH = 8
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "auto": "auto"}


class HfBackend(QueuedBackend):
    """One model of transformers on one device."""

    def __init__(self, model: Any, tokenizer: Any, info: BackendInfo, batch: int) -> None:
        super().__init__(info, batch)
        self._model, self._tokenizer = model, tokenizer
        self._encoder = PromptEncoder(_Encoder(tokenizer))
        plain = tokenizer.encode("a", add_special_tokens=False)
        framed = tokenizer.encode("a")
        self._begin: list[int] = framed[:1] if framed[:1] != plain[:1] else []
        self._ends = _end_ids(model, tokenizer)

    @classmethod
    def open(cls, target: str, options: BackendOptions) -> HfBackend:
        """A folder or a hub id. Raises UserError when it cannot be loaded."""
        refuse_flags(options, "hf:")
        device = choose_device(options.device)
        try:
            tokenizer = AutoTokenizer.from_pretrained(target)
            model = AutoModelForCausalLM.from_pretrained(
                target, dtype=_DTYPES[options.dtype], use_safetensors=True
            )
            model = model.to(device).eval()
        except Exception as error:  # the library raises many unrelated types
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise UserError(f"--model hf:{target}: cannot be loaded ({reason})") from error
        own_length = getattr(model.config, "max_position_embeddings", None)
        if options.max_length and own_length and options.max_length > own_length:
            raise UserError(
                f"--max-length {options.max_length}: this model's context is {own_length} tokens; "
                "take less"
            )
        info = BackendInfo(
            name=model_name(target),
            fingerprint=folder_fingerprint(Path(target))
            or str(getattr(model.config, "_commit_hash", None) or ""),
            tokenizer=type(tokenizer).__name__,
            dtype=str(model.dtype).removeprefix("torch."),
            device=device,
            max_length=options.max_length or own_length or 2048,
            concurrency=8 * (options.batch or DEFAULT_BATCH),
            detail={"backend": "hf", "architecture": type(model).__name__},
        )
        return cls(model, tokenizer, info, options.batch or DEFAULT_BATCH)

    def _answer(self, requests: Sequence[ModelRequest]) -> list[Response]:
        if isinstance(requests[0], GenerateRequest):
            asked = [r for r in requests if isinstance(r, GenerateRequest)]
            if asked[0].decoding.temperature > 0:  # a seed speaks for one request
                return [self._generate([request])[0] for request in asked]
            return self._generate(asked)
        if isinstance(requests[0], LoglikelihoodRequest):
            return self._score([r for r in requests if isinstance(r, LoglikelihoodRequest)])
        if isinstance(requests[0], CountRequest):
            return [self._encoder.count(r) for r in requests if isinstance(r, CountRequest)]
        return [self._perplexity(r) for r in requests if isinstance(r, PerplexityRequest)]

    def _score(self, requests: list[LoglikelihoodRequest]) -> list[Response]:
        encoded = [self._encode_options(request) for request in requests]
        # Options of one token after one prompt ask the same row: it is computed once.
        rows: dict[tuple[int, ...], torch.Tensor | None] = {}
        reach = 1
        for ids, options, _ in encoded:
            for option in options:
                rows[(*ids, *option[:-1])] = None
                reach = max(reach, len(option))
        keys = sorted(rows, key=len)
        for start in range(0, len(keys), self._batch):
            batch = keys[start : start + self._batch]
            rows.update(zip(batch, self._last_rows(batch, reach), strict=True))
        answers = []
        for ids, options, truncated in encoded:
            sums, greedy = [], []
            for option in options:
                row = rows[(*ids, *option[:-1])]
                assert row is not None
                row = row[-len(option) :]
                chosen = torch.tensor(option, device=row.device)
                sums.append(float(row.gather(1, chosen[:, None]).sum()))
                greedy.append(bool((row.argmax(-1) == chosen).all()))
            answers.append(
                Response(
                    logprobs=tuple(sums),
                    token_counts=tuple(map(len, options)),
                    greedy=tuple(greedy),
                    prompt_tokens=len(ids),
                    prompt_truncated=truncated,
                )
            )
        return answers

    def _perplexity(self, request: PerplexityRequest) -> Response:
        start = self._begin or [_start_id(self._tokenizer)]
        ids = [*start, *self._encoder.part(request)]
        if len(ids) > self._info.max_length:
            raise ValueError(f"{len(ids)} tokens, over the model's {self._info.max_length}")
        row = self._last_rows([tuple(ids)], len(ids))[0][:-1]
        chosen = torch.tensor(ids[1:], device=row.device)
        values = row.gather(1, chosen[:, None])[:, 0].tolist()
        return Response(logprobs=request.kept(tuple(values)), prompt_tokens=len(ids))

    @torch.inference_mode()
    def _last_rows(self, batch: Sequence[tuple[int, ...]], reach: int) -> list[torch.Tensor]:
        """Log-probabilities at the last `reach` positions of each sequence, [reach, vocabulary]."""
        ids, mask = _flush_right(batch, self._model.device)
        output = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
            logits_to_keep=min(reach, ids.shape[1]),
            use_cache=False,
        )
        return list(output.logits.float().log_softmax(-1))

    @torch.inference_mode()
    def _generate(self, requests: list[GenerateRequest]) -> list[Response]:
        decoding = requests[0].decoding
        encoded = [self._encode_prompt(r.prompt, decoding.max_tokens) for r in requests]
        ids, mask = _flush_right([prompt for prompt, _ in encoded], self._model.device)
        stopper = _StopStrings(self._tokenizer, decoding.stop, ids.shape[1])
        torch.manual_seed(decoding.seed)
        output = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=self._generation_config(decoding),
            stopping_criteria=StoppingCriteriaList([stopper]),
        )
        answers = []
        for (prompt, truncated), row in zip(encoded, output.tolist(), strict=True):
            new = row[ids.shape[1] :]
            end = next((i for i, token in enumerate(new) if token in self._ends), len(new))
            text = self._tokenizer.decode(new[:end], skip_special_tokens=True)
            cut = min((i for s in decoding.stop if (i := text.find(s)) >= 0), default=None)
            stopped = cut is not None or end < len(new)
            answers.append(
                Response(
                    text=text[:cut],
                    finish_reason="stop" if stopped else "length",
                    prompt_tokens=len(prompt),
                    output_tokens=min(end + 1, len(new)),
                    prompt_truncated=truncated,
                )
            )
        return answers

    def _generation_config(self, decoding: Decoding) -> GenerationConfig:
        """Ours alone: a checkpoint's own file may ask for sampling or a repetition penalty."""
        sampled: dict[str, Any] = {}
        if decoding.temperature > 0:
            sampled = {
                "temperature": decoding.temperature,
                "top_p": decoding.top_p,
                "top_k": decoding.top_k,
            }
        config = GenerationConfig(
            max_new_tokens=decoding.max_tokens,
            do_sample=decoding.temperature > 0,
            repetition_penalty=decoding.repetition_penalty,
            eos_token_id=sorted(self._ends),
            pad_token_id=min(self._ends),
            **sampled,
        )
        self._model.generation_config = config
        return config

    def _encode_options(
        self, request: LoglikelihoodRequest
    ) -> tuple[list[int], list[list[int]], bool]:
        prompt = request.prompt
        if prompt.messages:
            ids = self._chat_ids(prompt)
            options = [
                self._tokenizer.encode(option, add_special_tokens=False)
                for option in request.continuations
            ]
        else:
            ids, options = self._encoder.encode_options(
                prompt.prefix, prompt.text, request.continuations
            )
            ids = self._begin + ids or [_start_id(self._tokenizer)]
        kept = self._fit(ids, max(map(len, options)) - 1, prompt)
        return kept, options, len(kept) < len(ids)

    def _encode_prompt(self, prompt: Prompt, new_tokens: int) -> tuple[list[int], bool]:
        if prompt.messages:
            ids = self._chat_ids(prompt)
        else:
            ids = self._begin + self._encoder.encode(prompt.prefix, prompt.text)
        kept = self._fit(ids, new_tokens, prompt)
        return kept, len(kept) < len(ids)

    def _chat_ids(self, prompt: Prompt) -> list[int]:
        turns = [{"role": turn.role, "content": turn.content} for turn in prompt.turns]
        try:
            text = self._tokenizer.apply_chat_template(
                turns, add_generation_prompt=True, tokenize=False
            )
        except Exception as error:  # none there, or one that refuses a role in words of its own
            raise no_conversation(f"hf:{self._info.name}", error) from error
        ids: list[int] = self._tokenizer.encode(text + prompt.begun, add_special_tokens=False)
        return ids

    def _fit(self, ids: list[int], behind: int, prompt: Prompt) -> list[int]:
        """Cut from the left to the recipe's own limit, then to leave room for what follows."""
        room = self._info.max_length - behind
        if room < 1:
            raise ValueError("the reply alone is longer than the model's context")
        if prompt.max_tokens is not None and len(ids) > prompt.max_tokens:
            ids = ids[-(prompt.max_tokens - 1) :]
        return ids[-room:]


class _Encoder:
    """A tokenizer of transformers for PromptEncoder; of any scheme, so texts are not cut."""

    splits_at_spaces = False

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids


class _StopStrings(StoppingCriteria):  # type: ignore[misc]
    """Per sequence: has one of the strings been written?"""

    def __init__(self, tokenizer: Any, stop: tuple[str, ...], prompt_length: int) -> None:
        self._tokenizer, self._stop, self._prompt_length = tokenizer, stop, prompt_length
        # A stop string of n bytes ends in the newest token, so it began at most n tokens ago.
        self._reach = max((len(text.encode()) for text in stop), default=0) + 1

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        tails = input_ids[:, max(self._prompt_length, input_ids.shape[1] - self._reach) :]
        texts = self._tokenizer.batch_decode(tails, skip_special_tokens=True)
        found = [any(stop in text for stop in self._stop) for text in texts]
        return torch.tensor(found, device=input_ids.device)


def _flush_right(
    sequences: Sequence[Sequence[int]], device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, sequences))
    ids = torch.zeros(len(sequences), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, width - len(sequence) :] = torch.tensor(sequence)
        mask[row, width - len(sequence) :] = 1
    return ids.to(device), mask.to(device)


def _end_ids(model: Any, tokenizer: Any) -> set[int]:
    named = getattr(model.generation_config, "eos_token_id", None)
    ends = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    ends.add(tokenizer.get_vocab().get("<|im_end|>"))
    return {int(end) for end in ends if end is not None}


def _start_id(tokenizer: Any) -> int:
    start = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if start is None:
        raise ValueError("the tokenizer names neither a first token nor a last one")
    return int(start)
