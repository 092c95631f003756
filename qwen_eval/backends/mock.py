"""Models that are no models: always right, seeded chance, or a script. For tests and dry runs.

`mock:oracle` answers with the reference that solvers attach; `mock:random` guesses, the same way
for the same seed and prompt, and where replies are drawn for the same draw; `mock:FILE` follows
rules, JSON lines such as {"contains": "2 + 2", "text": "4"} or {"contains": "Rome", "choice": 1}.
The first rule whose `contains` stands in the prompt answers; a list of texts is used up one by one,
the last one stays.
Their tokens are bytes. A text to be read costs the oracle no bits and the guesser 8 a byte, as 256
bytes are all as likely to it; a script says {"contains": "Once", "bits": 1.5}, of every byte.
{"error": "timeout"} fails the request, and so does a rule that has no answer of the kind asked for.
"""

from __future__ import annotations

import hashlib
import math
import random
from pathlib import Path
from typing import Any

from qwen_eval.backends.base import BackendInfo, BackendOptions, refuse_flags
from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash, read_jsonl
from qwen_eval.types import (
    CountRequest,
    GenerateRequest,
    LoglikelihoodRequest,
    ModelRequest,
    PerplexityRequest,
    Response,
)

_ANSWERS = ("text", "choice", "bits", "error")


class MockBackend:
    """Answers at once, in the order asked."""

    def __init__(self, mode: str, rules: list[dict[str, Any]], seed: int, fingerprint: str) -> None:
        self._mode, self._rules, self._seed = mode, rules, seed
        self._fingerprint = fingerprint
        self._used: dict[int, int] = {}
        self._ready: list[tuple[int, Response]] = []
        self._next_id = 0

    @classmethod
    def open(cls, target: str, options: BackendOptions) -> MockBackend:
        """`oracle`, `random`, or a file of rules. Raises UserError naming a bad line."""
        refuse_flags(options, "mock:", "dtype", "device", "max_length")
        if target in ("oracle", "random"):
            return cls(target, [], options.seed, f"{target}-{options.seed}")
        path = Path(target)
        if not path.is_file():
            raise UserError(f"--model mock:{target}: no such file; also known: oracle, random")
        rules = list(read_jsonl(path))
        for number, rule in enumerate(rules, 1):
            if fault := _fault(rule):
                raise UserError(f"{path}, line {number}: {fault}")
        return cls("script", rules, options.seed, file_hash(path)[:16])

    def submit(self, request: ModelRequest) -> int:
        """Answer, to be handed out by the next step."""
        request_id = self._next_id
        self._next_id += 1
        self._ready.append((request_id, self._answer(request)))
        return request_id

    def step(self) -> list[tuple[int, Response]]:
        """Everything asked since the last step."""
        ready, self._ready = self._ready, []
        return ready

    def info(self) -> BackendInfo:
        """Name and fingerprint (mode and seed, or the script's hash)."""
        return BackendInfo(f"mock:{self._mode}", self._fingerprint, concurrency=1024)

    def close(self) -> None:
        """Nothing to release."""

    def _answer(self, request: ModelRequest) -> Response:
        if isinstance(request, LoglikelihoodRequest):
            return self._choose(request)
        if isinstance(request, GenerateRequest):
            return self._write(request)
        if isinstance(request, CountRequest):
            return Response(token_counts=tuple(map(_size, request.texts)))
        return self._read(request)

    def _choose(self, request: LoglikelihoodRequest) -> Response:
        options = len(request.continuations)
        if options == 1:
            return self._weigh(request)
        if self._mode == "oracle":
            chosen = request.reference or 0
        elif self._mode == "random":
            # Sentences that are scored whole have no prompt: they tell themselves apart.
            asked = request.prompt.full_text or "\0".join(request.continuations)
            chosen = self._rng(asked).randrange(options)
        else:
            rule = self._rule(request.prompt.full_text)
            if "choice" not in rule:
                return _unanswered(rule)
            chosen = rule["choice"]
            if not 0 <= chosen < options:
                reason = f"the script chooses {chosen} of 0 to {options - 1}"
                return Response(finish_reason="error", error=reason)
        high, low = math.log(0.9), math.log(0.1 / max(options - 1, 1))
        return Response(
            logprobs=tuple(high if i == chosen else low for i in range(options)),
            token_counts=(1,) * options,
            greedy=tuple(i == chosen for i in range(options)),
        )

    def _weigh(self, request: LoglikelihoodRequest) -> Response:
        """A single continuation: likely or not. The guesser finds some text likelier than other,
        and would never write it."""
        if self._mode == "script":
            rule = self._rule(request.prompt.full_text)
            if "choice" not in rule:
                return _unanswered(rule)
            likely = rule["choice"] == 0
        else:
            likely = self._mode == "oracle" and request.reference == 0
        chance = self._rng(request.prompt.full_text).uniform(0.01, 0.5)
        logprob = math.log(0.9 if likely else chance if self._mode == "random" else 0.1)
        return Response(logprobs=(logprob,), token_counts=(1,), greedy=(likely,))

    def _read(self, request: PerplexityRequest) -> Response:
        bits = {"oracle": 0.0, "random": 8.0}.get(self._mode)
        if bits is None:
            rule = self._rule(request.text)
            if "bits" not in rule:
                return _unanswered(rule)
            bits = float(rule["bits"])
        size = max(_size(request.text) - request.first, 0)
        size = size if request.length is None else min(size, request.length)
        logprobs = request.kept((-bits * math.log(2),) * size)
        return Response(logprobs=logprobs, prompt_tokens=size)

    def _write(self, request: GenerateRequest) -> Response:
        if self._mode == "oracle":
            text = request.reference or ""
        elif self._mode == "random":
            asked, decoding = request.prompt.full_text, request.decoding
            if decoding.temperature:
                asked += f"\0{decoding.seed}"
            text = f" The answer is {self._rng(asked).randrange(100)}."
        else:
            rule = self._rule(request.prompt.full_text)
            if "text" not in rule:
                return _unanswered(rule)
            text = self._next_text(rule)
        cuts = [i for stop in request.decoding.stop if (i := text.find(stop)) >= 0]
        return Response(
            text=text[: min(cuts, default=None)],
            finish_reason="stop",
            output_tokens=len(text.split()),
        )

    def _rule(self, prompt: str) -> dict[str, Any]:
        return next((rule for rule in self._rules if rule.get("contains", "") in prompt), {})

    def _next_text(self, rule: dict[str, Any]) -> str:
        texts = rule["text"] if isinstance(rule["text"], list) else [rule["text"]]
        turn = self._used.get(id(rule), 0)
        self._used[id(rule)] = turn + 1
        text: str = texts[min(turn, len(texts) - 1)]
        return text

    def _rng(self, text: str) -> random.Random:
        # From the prompt, not from the order of asking: resumed runs guess alike.
        digest = hashlib.sha256(f"{self._seed}\0{text}".encode("utf-8", "surrogatepass"))
        return random.Random(digest.digest())


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _fault(rule: dict[str, Any]) -> str | None:
    """What is wrong with a rule of a script."""
    texts = rule.get("text", "")
    if not rule.keys() <= {"contains", *_ANSWERS} or not rule.keys() - {"contains"}:
        return f"a rule has contains and one of {', '.join(_ANSWERS)}"
    if not all(isinstance(rule.get(key, ""), str) for key in ("contains", "error")):
        return "contains and error are texts"
    if not all(isinstance(text, str) for text in (texts if isinstance(texts, list) else [texts])):
        return "text is a text or a list of texts"
    if texts == []:
        return "text is an empty list; give at least one text"
    if type(rule.get("choice", 0)) is not int:
        return "choice is the number of an option, from 0"
    if type(rule.get("bits", 0)) not in (int, float) or not 0 <= rule.get("bits", 0) < math.inf:
        return "bits is a number from 0 on"
    return None


def _unanswered(rule: dict[str, Any]) -> Response:
    reason = rule.get("error") or "no rule of the script answers this"
    return Response(finish_reason="error", error=reason)
