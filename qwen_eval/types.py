"""The words that travel between tasks, runner and backends. Knows nothing of the rest.

A solver (tasks/solvers) is a generator: it yields one of the requests below, is sent the
matching Response, and ends by returning a Score.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Row = Mapping[str, Any]
"""One record of a data set, as its file holds it."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked: `prefix` is shared by many samples (header and exemplars), `text` is
    this sample's own part. `messages` replaces both where the model's chat template is to be used;
    where the last turn is the assistant's, the model goes on with it.

    A prompt of more than `max_tokens` tokens keeps its last max_tokens - 1: the released MMLU
    script's own rule, with 2,048. None leaves only the model's own limit.
    """

    text: str = ""
    prefix: str = ""
    messages: tuple[Message, ...] = ()
    max_tokens: int | None = None

    @property
    def full_text(self) -> str:
        """Prefix and text joined; for a conversation, its turns as `role: content` lines."""
        if self.messages:
            return "\n".join(f"{m.role}: {m.content}" for m in self.messages)
        return self.prefix + self.text

    @property
    def begun(self) -> str:
        """What the assistant has written already of the turn that the model is to go on with."""
        last = self.messages[-1] if self.messages else None
        return last.content if last is not None and last.role == "assistant" else ""

    @property
    def turns(self) -> tuple[Message, ...]:
        """The messages before the turn that the model writes, or goes on with."""
        return self.messages[:-1] if self.begun else self.messages


@dataclass(frozen=True, slots=True)
class Decoding:
    """How new tokens are chosen. At temperature 0, greedy, top_p, top_k and seed are unused."""

    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Continue the prompt. `reference` is a text that solves it, which only mock:oracle reads."""

    prompt: Prompt
    decoding: Decoding = Decoding()
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class LoglikelihoodRequest:
    """Log-probability of each continuation after the prompt. `reference` indexes the right one."""

    prompt: Prompt
    continuations: tuple[str, ...]
    reference: int | None = None


@dataclass(frozen=True, slots=True)
class PerplexityRequest:
    """Log-probability of every token of `text`, the first one after the model's start token.

    Of a long text a part may be read: its tokens [first, first + length), None for all from first
    on, behind the start token like a text of their own; of these the last `scored` are answered,
    None for all. Counted in tokens of the whole text. A text that has fewer gives fewer.
    """

    text: str
    first: int = 0
    length: int | None = None
    scored: int | None = None

    @property
    def whole(self) -> bool:
        """Whether all tokens are asked for, whatever they are."""
        return (self.first, self.length, self.scored) == (0, None, None)

    def kept(self, logprobs: tuple[float, ...]) -> tuple[float, ...]:
        """Of all tokens that were read those that are answered."""
        return logprobs if self.scored is None else logprobs[max(len(logprobs) - self.scored, 0) :]


@dataclass(frozen=True, slots=True)
class CountRequest:
    """How many tokens each of the texts has, read by itself without a start token.

    Answered in `token_counts`. No forward pass: a solver asks it to build a prompt of a length. A
    backend without a tokenizer of the model estimates, and says how in the response's `text`.
    """

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """Run a model's program against tests in the sandbox (qwen_eval.sandbox), not in a backend.

    `candidate` is the whole program; `tests` are statements that call the function under test by
    its name, `entry_point`, or define `check(candidate)`. `preamble` is trusted code that the
    tests may use (the prompt's own helpers), so that a candidate cannot replace them. `timeout`:
    seconds of processor time, for the candidate and for the tests. `alone`: the tests need the
    program's own objects and run in its process, where a program could forge its verdict; the
    response's text says so. `language`: of both, which then always run as with `alone`; one of
    sandbox.toolchains, or Python.
    """

    candidate: str
    tests: str
    entry_point: str
    preamble: str = ""
    timeout: float = 3.0
    alone: bool = False
    language: str = "Python"


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """A session of the sandbox's interpreter that a solver means to use: each object is one.

    `packages`: installed ones that programs there may import; `files`: what lies in their folder;
    `setup`: trusted code that runs before the first cell. It is opened with its first cell, and
    closed when its sample ends in whichever way.
    """

    packages: tuple[str, ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)
    setup: str = ""


@dataclass(frozen=True, slots=True)
class ExecuteRequest:
    """Run a cell in a session, for at most `seconds` on the wall.

    Answered as a notebook shows it: `text` is what was printed and the value of a last expression,
    `passed` whether the cell ran to its end, `fault` why not, `figures` what it drew. What a cell
    says of itself is a program's word: code that the solver trusts, run in the same session, may
    have been tampered with by what ran there before.
    """

    session: Session
    code: str
    seconds: float = 10.0


ModelRequest = GenerateRequest | LoglikelihoodRequest | PerplexityRequest | CountRequest
Request = ModelRequest | JudgeRequest | ExecuteRequest
FinishReason = Literal["stop", "length", "scored", "judged", "executed", "error"]

IN_SESSIONS = frozenset({"code_interpreter", "hf_agent"})
"""Solvers that run what a model wrote cell by cell, and learn from it what to ask next."""
RUN_PROGRAMS = frozenset({"code"}) | IN_SESSIONS
"""Solvers that need a sandbox. Their results depend on whether something held the programs."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to one request. A failed item has `error` set and never stops its neighbours.

    `logprobs`: natural-log probabilities, for a GenerateRequest one per new token (or none, where
    the backend shows none), for a LoglikelihoodRequest one sum per continuation, for a
    PerplexityRequest one per token.
    `token_counts`: tokens of each continuation, or of each text of a CountRequest. `greedy`:
    whether each continuation is what greedy decoding would have written. Counts are in tokens.
    `passed`: the verdict on a program, or whether a cell ran to its end; `fault`: why it did not.
    `figures`: the beginning of the SHA-256 of each picture that a cell left, not the picture.
    """

    text: str = ""
    logprobs: tuple[float, ...] = ()
    token_counts: tuple[int, ...] = ()
    greedy: tuple[bool, ...] = ()
    finish_reason: FinishReason = "scored"
    prompt_tokens: int = 0
    output_tokens: int = 0
    prompt_truncated: bool = False
    passed: bool | None = None
    fault: str = ""
    figures: tuple[str, ...] = ()
    error: str | None = None


Status = Literal["scored", "no_answer", "excluded", "error"]
UNSCORED = frozenset[str]({"excluded", "error"})
"""The ways to end without a value: these samples take no part in an estimate."""


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of one sample. `values` maps a metric's name to this sample's contribution.

    A metric that weighs its samples (measures.py) has the weight beside it: bits_per_byte the
    `bytes` of the text.
    no_answer: the reply held nothing the extractor could read; it counts as wrong, and is counted.
    excluded: the recipe has nothing to ask of it (a text shorter than the length to be read); left
    out of the estimate, which is no fault, and counted. `detail` says why.
    error: nothing can be said of the model (a failed request); left out of the estimate.
    """

    values: Mapping[str, float]
    answer: str | None = None
    status: Status = "scored"
    detail: Mapping[str, Any] = field(default_factory=dict)


Solver = Generator[Request, Response, Score]


@dataclass(frozen=True, slots=True)
class Sample:
    """One question. `id` is a hash of its row, so it survives reordering; `group` is its subject
    or passage (the cluster of the statistics)."""

    id: str
    task: str
    row: Row
    group: str = ""


@dataclass(frozen=True, slots=True)
class Window:
    """How a recipe reads more than a prompt, in tokens of the model's own tokenizer.

    `length`: what the model is fed at a time, its start token included. `span`: how much of a text
    is read. `stride`: how far one window lies behind the one before; None where they only touch.
    """

    length: int
    span: int = 0
    stride: int | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """What a solver hides before it asks: `needle`, a sentence or two, at `depth` (0 the beginning,
    1 the end) of a haystack, of which it takes as much from the beginning as it needs."""

    needle: str
    haystack: str
    depth: float


@dataclass(frozen=True, slots=True)
class Item:
    """A sample rendered under one recipe: all that a solver needs.

    Prompt and scorer come from the same recipe, because only prompts.render makes an Item.
    `target` is the gold answer as text. For a choice `options` holds the continuations and `gold`
    the index of the right one. `reference` is a reply that solves it, for mock:oracle. `window`
    says how long texts are read, where the recipe does. `hidden` stands between the prompt's
    prefix and its text, where the recipe hides something. `repeats`: how many replies are drawn,
    and `also` what is measured of them together (`pass@10`, `maj@8`), besides the metric.
    `program`: how a reply's program is judged; its `candidate` is what the program begins with.
    `cells`: how many an agent may run, and with `repair` it goes on after one that failed.
    `fault`: why the sample cannot be asked; its runner makes an error of it. `folder` is the
    task's, where a scorer of its own lies.
    """

    sample: Sample
    recipe: str
    prompt: Prompt
    target: str
    scorer: str
    metric: str
    options: tuple[str, ...] = ()
    gold: int | None = None
    decoding: Decoding = Decoding()
    reference: str = ""
    window: Window | None = None
    hidden: Hidden | None = None
    repeats: int = 1
    also: tuple[str, ...] = ()
    program: JudgeRequest | None = None
    cells: int = 0
    repair: bool = True
    fault: str = ""
    folder: Path | None = None
