"""Samples as a model writes them: a question, then call by call to the final answer.

The model goes on with a text of examples and tools. It never writes what a tool returned: each call
ends its turn, a program answers where the tool is one, else the model is asked anew in the tool's
place, and the sample says so. Knows nothing of how samples are judged once they are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from qwen_eval.fileio import text_hash
from qwen_eval.types import Decoding, GenerateRequest, Prompt

from ..replies import Model, Replies, Reply
from .programs import run
from .rules import DroppedError, check_call, check_observation, read_piece, read_question
from .samples import Sample, Step, Tool, tool_lines

HEADERS = {
    "en": "Examples of questions, and of how an assistant with tools answers them. It calls a tool "
    "only where one is needed, one at a time, with arguments as JSON. Every question is new.\n\n",
    "zh": "下面是一些问题的例子，以及有工具可用的助手怎样回答。助手只在需要时调用工具，"
    "每次调用一个，参数写成 JSON。每个问题都不重复。\n\n",
}
_BOUNDS = ("\n###", "\nQuestion:", "\nTools:")
SPEAKS_STOP = ("\nObservation", *_BOUNDS)
TOOL_STOP = ("\nThought", "\nAction", "\nFinal Answer", *_BOUNDS)


@dataclass(frozen=True)
class Manner:
    """How a model writes. max_tokens: of a piece at a time. max_calls: of a sample. simulate: the
    model plays tools that are no programs; else samples that call one go."""

    temperature: float = 0.7
    top_p: float = 1.0
    max_tokens: int = 256
    max_calls: int = 3
    simulate: bool = True
    seed: int = 0


@dataclass
class Draft:
    """A sample on its way. text: all that the model has before it. name: what its draws depend on.
    written: what came after the examples, for a person."""

    name: str
    text: str
    tools: Sequence[Tool]
    language: str
    query: str = ""
    steps: list[Step] = field(default_factory=list)
    sample: Sample | None = None
    dropped: DroppedError | None = None
    written: str = ""

    @property
    def live(self) -> bool:
        """Whether it still goes on."""
        return self.sample is None and self.dropped is None

    def append(self, text: str) -> None:
        """Behind all that stands there."""
        self.text += text
        self.written += text


def begin(name: str, examples: Sequence[Sample], tools: Sequence[Tool], language: str) -> Draft:
    """A draft that the model has to ask a question of its own for."""
    parts = [HEADERS[language]]
    parts += [
        f"### Example\nTools:\n{tool_lines(example.tools)}\n\nQuestion: {example.query}\n"
        f"{example.trace}\n\n"
        for example in examples
    ]
    parts.append(f"### Example\nTools:\n{tool_lines(tools)}\n\nQuestion:")
    return Draft(name, "".join(parts), tools, language)


def write(drafts: Sequence[Draft], model: Model, replies: Replies, manner: Manner) -> None:
    """Bring every draft to its end: a whole sample, or what it is dropped for."""
    for turn in range(manner.max_calls + 1):
        live = [draft for draft in drafts if draft.live]
        asked = [_request(draft, f"speaks {turn}", SPEAKS_STOP, manner) for draft in live]
        for draft, reply in zip(live, replies.of(model, asked), strict=True):
            _guarded(draft, reply, _take)
        played = [draft for draft in live if draft.live and not _answered(draft)]
        for draft in played:
            if not manner.simulate:
                draft.dropped = DroppedError("observation", "its tool is no program")
        played = [draft for draft in played if draft.live]
        asked = [_request(draft, f"returns {turn}", TOOL_STOP, manner) for draft in played]
        for draft, reply in zip(played, replies.of(model, asked), strict=True):
            _guarded(draft, reply, _take_observation)
    for draft in drafts:
        if draft.live:
            draft.dropped = DroppedError("call", f"more than {manner.max_calls} calls")


def _request(draft: Draft, what: str, stop: tuple[str, ...], manner: Manner) -> GenerateRequest:
    decoding = Decoding(
        manner.max_tokens,
        stop,
        manner.temperature,
        manner.top_p,
        seed=int(text_hash(f"{manner.seed} {draft.name} {what}", 7), 16),
    )
    return GenerateRequest(Prompt(draft.text), decoding)


def _guarded(draft: Draft, reply: Reply | None, take: Callable[[Draft, str], None]) -> None:

    try:
        if reply is None:
            raise DroppedError("model", "the request failed")
        draft.written += reply.text
        if reply.cut:
            raise DroppedError("model", "its examples are longer than the context")
        if not reply.ended:
            raise DroppedError("form", "it was cut at the limit")
        draft.text += reply.text
        take(draft, reply.text)
    except DroppedError as dropped:
        draft.dropped = dropped


def _take(draft: Draft, text: str) -> None:
    """A piece: the question where there is none yet, and a call or the answer."""
    if draft.query:
        piece = read_piece("Thought:" + text)
    else:
        draft.query, rest = read_question(text)
        piece = read_piece(rest)
    if isinstance(piece, Step):
        check_call(piece, draft.tools)
        draft.steps.append(piece)
        draft.append("\nObservation:")
    else:
        draft.sample = Sample(draft.query, tuple(draft.tools), tuple(draft.steps), *piece)


def _answered(draft: Draft) -> bool:
    """Whether the tool that is called is a program, which then has answered."""
    _, arguments = check_call(draft.steps[-1], draft.tools)
    observation = run(draft.steps[-1].action, arguments)
    if observation is not None:
        _observe(draft, observation, by_program=True)
        draft.append(f" {observation}\nThought:")
    return observation is not None


def _take_observation(draft: Draft, text: str) -> None:
    check_observation(text)
    _observe(draft, text.strip(), by_program=False)
    draft.append("\nThought:")


def _observe(draft: Draft, observation: str, *, by_program: bool) -> None:
    step = draft.steps[-1]
    draft.steps[-1] = Step(step.thought, step.action, step.arguments, observation, by_program)
