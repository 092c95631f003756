"""Our engine as a model of lm-evaluation-harness, under the name qwen_eval.

It speaks in texts; the seams between contexts and continuations, the start token and the windows
over long texts are those of its own hf model. Prompts are asked in the order of their ids, so that
those that begin alike are neighbours and what they share is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby, pairwise
from typing import Any

from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from qwen_eval.backends.base import BackendOptions
from qwen_eval.backends.encoding import PromptEncoder
from qwen_eval.backends.native import NativeBackend
from qwen_eval.errors import UserError
from qwen_eval.lm_eval.solving import NEW_TOKENS, decoding_of
from qwen_eval.types import Decoding, Message, Response

NAME = "qwen_eval"
CONTEXT = ("ntk", "ntk_chunks", "logn", "window", "window_sizes", "yarn")
Ids = list[int]


@dataclass
class _Texts:
    """A tokenizer as lm-evaluation-harness knows them: control tokens in a text are read as such,
    for its chat templates come as texts."""

    encode: Callable[[str], Ids]
    splits_at_spaces: bool


@dataclass(frozen=True)
class _Job:
    ids: Ids
    wanted: Decoding | list[Ids]


class EngineLM(LM):  # type: ignore[misc]
    """`pretrained`: a folder, or what `find` knows besides. `dtype`, `max_length` and the switches
    of the context are those of `qwen-eval run`. Its --batch_size counts from 2 on: the engine fills
    its batches itself, and 1 is what that option says where nobody gave it."""

    find: Callable[[str], str] = staticmethod(str)

    def __init__(
        self,
        pretrained: str,
        dtype: str = "auto",
        device: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,  # lm-eval gives it to every model
        max_length: int | None = None,
        batch_invariant: bool = True,
        **context: Any,
    ) -> None:
        super().__init__()
        if unknown := context.keys() - set(CONTEXT):
            raise UserError(f"--model_args {min(unknown)}: unknown; known: {', '.join(CONTEXT)}")
        batch = int(batch_size or 1) if str(batch_size).isdecimal() else 1
        options = BackendOptions(
            batch=batch if batch > 1 else None,
            dtype=dtype,
            device=_device(device),
            max_length=max_length,
            batch_invariant=batch_invariant,
            context=context,
        )
        self.backend = NativeBackend.open(type(self).find(pretrained), options)
        tokenizer = self.backend.tokenizer
        self._encode = partial(tokenizer.encode, allow_special=True)
        self._encoder = PromptEncoder(_Texts(self._encode, tokenizer.splits_at_spaces))
        self.max_length = self.backend.info().max_length
        self.max_gen_toks = NEW_TOKENS

    def loglikelihood(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(log-probability, whether greedy decoding would write it) of each continuation. Those of
        one context that stand together are scored together."""
        jobs, asked = [], []
        for context, run in groupby((request.args for request in requests), lambda args: args[0]):
            pairs = list(run)
            jobs.append(self._pair(context, [continuation for _, continuation in pairs]))
            asked += pairs
        found = [
            pair
            for response in self._ask(jobs, disable_tqdm)
            for pair in zip(response.logprobs, response.greedy, strict=True)
        ]
        for arguments, pair in zip(asked, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", arguments, pair)
        return found

    def loglikelihood_rolling(
        self, requests: Sequence[Any], disable_tqdm: bool = False
    ) -> list[float]:
        """Log-probability of each text, read in windows where it is longer than the context."""
        jobs, owners = [], []
        for number, request in enumerate(requests):
            windows = get_rolling_token_windows(
                token_list=self.tok_encode(request.args[0]),
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            for context, continuation in map(make_disjoint_window, windows):
                jobs.append(_Job(context, [continuation]))
                owners.append(number)
        found = [0.0] * len(requests)
        for owner, response in zip(owners, self._ask(jobs, disable_tqdm), strict=True):
            found[owner] += response.logprobs[0]
        for request, total in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, total)
        return found

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """The text behind each context. Where it is drawn, the place in the list is the seed."""
        jobs = [
            _Job(
                self.tok_encode(request.args[0]) or [self.prefix_token_id],
                replace(decoding_of(request.args[1]), seed=number),
            )
            for number, request in enumerate(requests)
        ]
        found = [response.text for response in self._ask(jobs, disable_tqdm)]
        for request, text in zip(requests, found, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, text)
        return found

    def apply_chat_template(
        self, chat_history: Sequence[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """ChatML, with the system message that the model's own template adds."""
        turns = [Message(turn["role"], turn["content"]) for turn in chat_history]
        return self.backend.chat_text(turns, goes_on=not add_generation_prompt)

    def chat_template(self, chat_template: bool | str = False) -> str:
        """A name for what apply_chat_template does."""
        return "ChatML" if chat_template else ""

    @property
    def tokenizer_name(self) -> str:
        """What tells this tokenizer apart, for the cache of requests."""
        return f"{NAME}-{self.backend.info().tokenizer}"

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.backend.tokenizer.eos_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands where there is no context."""
        return self.backend.tokenizer.start_id

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> Ids:
        """Ids of a text, behind the token that the model was trained to see first, if any."""
        ids = self._encode(string)
        return ids if add_special_tokens is False else self._begun(ids)

    def tok_decode(self, tokens: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Text of ids."""
        return self.backend.tokenizer.decode(list(tokens), show_special=not skip_special_tokens)

    def get_model_info(self) -> dict[str, Any]:
        """What its results file says of the model beside its arguments."""
        info = self.backend.info()
        return {
            "model_num_parameters": info.detail["parameters"],
            "model_dtype": info.dtype,
            "model_fingerprint": info.fingerprint,
        }

    def _begun(self, ids: Ids) -> Ids:
        bos = self.backend.tokenizer.bos_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def _pair(self, context: str, continuations: Sequence[str]) -> _Job:
        ids, options = self._encoder.encode_options("", context, continuations)
        return _Job(self._begun(ids) if context else [self.prefix_token_id], options)

    def _ask(self, jobs: Sequence[_Job], quiet: bool) -> list[Response]:
        from tqdm import tqdm

        order = sorted(range(len(jobs)), key=lambda index: jobs[index].ids)
        shared = _shared([jobs[index].ids for index in order])
        waiting = iter(zip(order, shared, strict=True))
        running: dict[int, int] = {}
        found: dict[int, Response] = {}
        with tqdm(total=len(jobs), disable=quiet, desc="qwen_eval") as bar:
            while len(found) < len(jobs):
                while len(running) < self.backend.info().concurrency:
                    index, alike = next(waiting, (None, 0))
                    if index is None:
                        break
                    job = jobs[index]
                    running[self.backend.submit_ids(job.ids, job.wanted, alike)] = index
                for request_id, response in self.backend.step():
                    found[running.pop(request_id)] = response
                    bar.update()
        return [found[index] for index in range(len(jobs))]


def _device(wish: str | None) -> str:
    """Its command says cuda where nobody said anything, whether there is a GPU or not."""
    if wish is None or wish in ("cuda", "cuda:0"):
        return "auto"
    if wish != "cpu":
        raise UserError(f"--device {wish}: give cuda or cpu; CUDA_VISIBLE_DEVICES chooses a GPU")
    return wish


def _shared(prompts: Sequence[Ids]) -> list[int]:
    """Of sorted prompts, how many first ids each has in common with any other: it is one of its
    neighbours that has the most."""
    alike = [_alike(one, other) for one, other in pairwise(prompts)]
    return [max(pair) for pair in zip([0, *alike], [*alike, 0], strict=True)][: len(prompts)]


def _alike(one: Ids, other: Ids) -> int:
    most = min(len(one), len(other))
    return next((n for n in range(most) if one[n] != other[n]), most)


def register(find: Callable[[str], str]) -> None:
    """Make the engine known to lm-evaluation-harness. `find`: the folder of what pretrained= says;
    may raise UserError."""
    from lm_eval import models  # noqa: F401 - its own, which it makes known only to an empty list

    EngineLM.find = staticmethod(find)
    register_model(NAME)(EngineLM)
