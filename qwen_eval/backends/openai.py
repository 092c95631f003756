"""Any server that speaks OpenAI's completions interface: vLLM, SGLang, llama.cpp, and services.

`openai:URL#MODEL`. Prompts go to /completions, conversations to /chat/completions. Options are
scored by echoing prompt and option with log-probabilities, where the server offers that. A request
that fails for a passing reason is repeated, later and later; the key never leaves its header.
"""

from __future__ import annotations

import math
import os
import queue
import random
from threading import Event, Thread
from typing import Any
from urllib.parse import urlsplit

import httpx

from qwen_eval.backends.base import BackendInfo, BackendOptions, refuse_flags
from qwen_eval.backends.queued import estimated, failed
from qwen_eval.errors import InfrastructureError, QwenEvalError, UserError
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    PerplexityRequest,
    Response,
)

DEFAULT_BATCH = 16
ATTEMPTS = 6
UNREACHED = 3  # requests in a row that found no server, after which none is asked any more
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 60.0
TIMEOUT = 600.0
_MOST_STOPS = 4  # the published interface takes no more; the others are looked for in the text
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504, 529}


class OpenAiBackend:
    """One model of one server, asked by `batch` threads.

    The threads are daemons: an answer that never comes keeps no process from ending.
    """

    def __init__(self, url: str, model: str, batch: int, info: BackendInfo) -> None:
        self._url, self._model, self._batch, self._info = url, model, batch, info
        self._client = _client(batch)
        self._closing = Event()
        self._asked: queue.Queue[tuple[int, ModelRequest] | None] = queue.Queue()
        self._done: queue.Queue[tuple[int, Response | QwenEvalError]] = queue.Queue()
        self._count = self._unreached = 0
        # Servers that refuse max_tokens=0 write one token, which is not scored.
        self._least_tokens = 0

    @classmethod
    def open(cls, target: str, options: BackendOptions) -> OpenAiBackend:
        """`URL#MODEL`; the model may be left out where the server has one. Raises UserError."""
        refuse_flags(options, "openai:", "dtype", "device", "max_length")
        url, _, model = target.partition("#")
        url = url.rstrip("/")
        server = _server(url)
        if not server:
            raise UserError(
                f"--model openai:{target}: not a URL; write openai:http://host:8000/v1#NAME"
            )
        served = _served(url)
        if not model:
            if len(served) != 1:
                names = ", ".join(served[:8]) or "none"
                raise UserError(f"--model openai:{target}: name one model after #; served: {names}")
            model = served[0]
        if served and model not in served:
            names = ", ".join(served[:8])
            raise UserError(f"--model openai:{target}: no model {model}; served: {names}")
        batch = options.batch or DEFAULT_BATCH
        info = BackendInfo(
            name=model,
            dtype="server",
            device="server",
            concurrency=2 * batch,
            detail={"backend": "openai", "server": server},
        )
        return cls(url, model, batch, info)

    def submit(self, request: ModelRequest) -> int:
        """Hand the request to a thread; each of the first ones brings its own."""
        self._count += 1
        self._asked.put((self._count, request))
        if self._count <= self._batch:
            Thread(target=self._work, daemon=True).start()
        return self._count

    def step(self) -> list[tuple[int, Response]]:
        """Wait for the next answer and take with it all that are there."""
        found = []
        try:
            item = self._done.get(timeout=1.0)
            while True:
                request_id, response = item
                if isinstance(response, QwenEvalError):
                    raise response
                found.append((request_id, response))
                item = self._done.get_nowait()
        except queue.Empty:
            return found

    def info(self) -> BackendInfo:
        """Model and server; no fingerprint, for a server may change behind its name."""
        return self._info

    def close(self) -> None:
        """Drop what was not asked yet; answers on their way are waited for no longer."""
        self._closing.set()
        for _ in range(self._batch):
            self._asked.put(None)
        self._client.close()

    def _work(self) -> None:
        while (asked := self._asked.get()) and not self._closing.is_set():
            request_id, request = asked
            answer: Response | QwenEvalError
            try:
                answer = self._answer(request)
            except QwenEvalError as error:
                answer = error
            except Exception as error:
                answer = failed(error)
            self._done.put((request_id, answer))

    def _answer(self, request: ModelRequest) -> Response:
        if isinstance(request, CountRequest):
            return estimated(request)
        if isinstance(request, PerplexityRequest):
            if not request.whole:
                raise UserError(
                    f"{self._info.detail['server']}: shows no token ids, by which this recipe cuts "
                    "its texts; use hf: or a folder"
                )
            values = self._echo("", request.text)[0]
            return Response(logprobs=tuple(values), prompt_tokens=len(values))
        if request.prompt.max_tokens is not None:
            raise UserError(
                f"this recipe cuts prompts to {request.prompt.max_tokens} tokens, which a server "
                "does not show; use a recipe without max_prompt_tokens (@strict), hf: or a folder"
            )
        if isinstance(request, GenerateRequest):
            return self._generate(request)
        if request.prompt.messages:
            raise UserError(
                "a chat server gives no log-probabilities of given options; use a recipe that "
                "generates, or the server's completions with a plain prompt"
            )
        return self._score(request)

    def _generate(self, request: GenerateRequest) -> Response:
        decoding, prompt = request.decoding, request.prompt
        body = _decoding(decoding)
        if prompt.messages:
            turns = [{"role": turn.role, "content": turn.content} for turn in prompt.messages]
            if prompt.begun:  # in the words of vLLM and SGLang; others may refuse them
                body |= {"add_generation_prompt": False, "continue_final_message": True}
            reply = self._post("chat/completions", body | {"messages": turns})
            text = (reply["choices"][0].get("message") or {}).get("content") or ""
        else:
            reply = self._post("completions", body | {"prompt": prompt.full_text})
            text = reply["choices"][0].get("text") or ""
        cut = min((i for stop in decoding.stop if (i := text.find(stop)) >= 0), default=None)
        usage = reply.get("usage") or {}
        full = reply["choices"][0].get("finish_reason") == "length" and cut is None
        return Response(
            text=text[:cut],
            finish_reason="length" if full else "stop",
            prompt_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
        )

    def _score(self, request: LoglikelihoodRequest) -> Response:
        # As lm-evaluation-harness does: spaces at the prompt's end belong to the option.
        context = request.prompt.full_text.rstrip()
        moved = request.prompt.full_text[len(context) :]
        sums, counts, greedy, tokens = [], [], [], 0
        for option in request.continuations:
            values, best, tokens = self._echo(context, moved + option)
            sums.append(sum(values))
            counts.append(len(values))
            greedy.append(all(best))
        return Response(
            logprobs=tuple(sums),
            token_counts=tuple(counts),
            greedy=tuple(greedy),
            prompt_tokens=tokens,
        )

    def _echo(self, context: str, text: str) -> tuple[list[float], list[bool], int]:
        """Log-probabilities of the tokens of `text` behind `context`, whether each was the
        likeliest, and the number of tokens before them."""
        whole = context + text
        body = {"prompt": whole, "echo": True, "logprobs": 1, "temperature": 0.0}
        reply = self._post("completions", body | {"max_tokens": self._least_tokens})
        found = reply["choices"][0].get("logprobs") or {}
        values, offsets = found.get("token_logprobs"), found.get("text_offset")
        tokens, best = found.get("tokens"), found.get("top_logprobs")
        if not values or not offsets or not tokens or len(values) != len(offsets):
            raise UserError(
                f"{self._info.detail['server']}: gives no log-probabilities of a prompt "
                "(completions with echo and logprobs); tasks that compare options need them, "
                "tasks that generate do not"
            )
        # A first token that is no text (a start mark) shifts every offset by its own name.
        shift = 0 if whole.startswith(tokens[0]) or len(offsets) < 2 else offsets[1]
        places = [place - shift for place in offsets]
        ends = [*places[1:], len(whole)]
        # The token across the seam belongs to the option; what was written after it to nobody.
        chosen = [
            i
            for i, (place, end) in enumerate(zip(places, ends, strict=True))
            if end > len(context) and place < len(whole) and values[i] is not None and end > place
        ]
        if not chosen:
            raise ValueError("the server scored no token of the option")
        if not all(math.isfinite(values[i]) for i in chosen):
            raise ValueError("the server gave a log-probability that is not a number")
        likeliest = [not best or _is_likeliest(values[i], best[i]) for i in chosen]
        return [float(values[i]) for i in chosen], likeliest, chosen[0]

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's reply. Repeats what may pass; ValueError for what concerns one request,
        UserError for what no request would survive, InfrastructureError when told to stop or when
        the server is gone."""
        reason, asked_pause, reached = "", 0.0, True
        for attempt in range(ATTEMPTS):
            if attempt and self._closing.wait(_pause(attempt, asked_pause)):
                break
            asked_pause = 0.0
            try:
                answer = self._client.post(
                    f"{self._url}/{path}", json={"model": self._model} | body
                )
            except httpx.HTTPError as error:
                reason = f"{type(error).__name__} {error}".strip()
                reached = not isinstance(error, httpx.ConnectError | httpx.ConnectTimeout)
                continue
            reached, self._unreached = True, 0
            if answer.status_code == 400 and body.get("max_tokens") == 0:
                self._least_tokens = 1
                return self._post(path, body | {"max_tokens": 1})
            if answer.status_code in _PASSING:
                reason = f"HTTP {answer.status_code}"
                asked_pause = _retry_after(answer)
                continue
            if answer.status_code in (401, 403, 404):
                raise UserError(
                    f"{self._info.detail['server']}: HTTP {answer.status_code} on /{path} "
                    f"({_message(answer)}); check the URL, the model and OPENAI_API_KEY"
                )
            if answer.status_code != 200:
                raise ValueError(f"HTTP {answer.status_code}: {_message(answer)}")
            try:
                reply = answer.json()
                if reply["choices"]:
                    return dict(reply)
                reason = "a reply without choices"
            except (ValueError, KeyError, TypeError):
                reason = "a reply that is not the interface's JSON"
        if self._closing.is_set():
            raise InfrastructureError("interrupted")
        self._unreached += not reached
        if self._unreached >= UNREACHED:
            raise InfrastructureError(
                f"{self._info.detail['server']}: the server is gone ({reason}); start it again and "
                "repeat the same command, finished samples are kept"
            )
        raise ValueError(f"{reason}, {ATTEMPTS} times")


def _server(url: str) -> str:
    """Host, port and path without a password; empty if this is no URL of the web."""
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname
        _ = parts.port, httpx.URL(url)  # each raises for what the other lets pass
    except (ValueError, httpx.InvalidURL):
        valid = False
    return parts.netloc.rpartition("@")[2] + parts.path if valid else ""


def _pause(attempt: int, asked: float) -> float:
    """Seconds before the next attempt: doubling, never all clients at once, as long as asked."""
    pause: float = FIRST_PAUSE * 2 ** (attempt - 1) * random.uniform(0.5, 1.5)
    return min(max(pause, asked), LONGEST_PAUSE)


def _client(connections: int) -> httpx.Client:
    key = os.environ.get("OPENAI_API_KEY", "")
    return httpx.Client(
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(TIMEOUT, connect=10.0),
        limits=httpx.Limits(max_connections=connections),
    )


def _served(url: str) -> list[str]:
    """The models a server lists, [] if it lists none. Raises UserError if nobody answers."""
    try:
        with _client(1) as client:
            answer = client.get(f"{url}/models", timeout=20.0)
    except (httpx.HTTPError, UnicodeError) as error:  # the latter for a name no host can have
        raise UserError(
            f"--model openai:{url}: no answer ({error or type(error).__name__})"
        ) from error
    if answer.status_code in (401, 403):
        raise UserError(f"--model openai:{url}: HTTP {answer.status_code}; set OPENAI_API_KEY")
    try:
        return [str(entry["id"]) for entry in answer.raise_for_status().json()["data"]]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return []


def _decoding(decoding: Decoding) -> dict[str, Any]:
    """The interface's words; those that only some servers know are sent only when they matter."""
    body: dict[str, Any] = {"max_tokens": decoding.max_tokens, "temperature": decoding.temperature}
    if decoding.stop:
        body["stop"] = list(decoding.stop[:_MOST_STOPS])
    if decoding.temperature > 0:
        body |= {"top_p": decoding.top_p, "seed": decoding.seed}
        if decoding.top_k:
            body["top_k"] = decoding.top_k
    if decoding.repetition_penalty != 1.0:
        body["repetition_penalty"] = decoding.repetition_penalty
    return body


def _is_likeliest(value: float, best: dict[str, float] | None) -> bool:
    return not best or value >= max(best.values()) - 1e-6


def _retry_after(answer: httpx.Response) -> float:
    try:
        return float(answer.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0


def _message(answer: httpx.Response) -> str:
    try:
        error = answer.json()["error"]
        text = error["message"] if isinstance(error, dict) else str(error)
    except (ValueError, KeyError, TypeError):
        text = answer.text
    return " ".join(str(text).split())[:200]
