"""How a document of lm-evaluation-harness is asked: its requests as ours, then its own filters and
its own process_results.

Knows nothing of how documents are rendered or of which backend answers.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.lm_eval.documents import Document
from qwen_eval.lm_eval.figures import DETAIL, Scoring, values_of
from qwen_eval.types import (
    CountRequest,
    Decoding,
    GenerateRequest,
    Item,
    LoglikelihoodRequest,
    PerplexityRequest,
    Request,
    Response,
    Score,
    Solver,
)

NEW_TOKENS = 256  # of a reply, where a task sets no number: its own models' default
UNREAD = "[invalid]"  # what its filters leave of a reply in which they find nothing
_IGNORED = {"num_beams": 1, "num_return_sequences": 1, "use_cache": True, "pad_token_id": None}
Answers = Generator[Request, Response, list[Any]]


def solve(item: Item, document: Document, scoring: Scoring, max_length: int) -> Solver:
    """All requests of one document, one after the other; those that share a context are one.

    `max_length`: the model's context in tokens, by which longer texts are read in windows; 0 where
    it is not known. `margin` (natural log): between the two best of options that were scored."""
    answers: list[list[Any]] = []
    for kind, run in _runs(document.instances):
        if kind == "loglikelihood":
            answers += yield from _score(item, document, run, len(answers))
        elif kind == "loglikelihood_rolling":
            answers += yield from _read(run, max_length)
        else:
            answers += yield from _write(item, document, run)
    return _judge(item, document, scoring, answers)


def _runs(instances: Sequence[Any]) -> Iterator[tuple[str, list[Any]]]:
    def key(instance: Any) -> tuple[str, Any]:
        scored = instance.request_type == "loglikelihood"
        return instance.request_type, instance.args[0] if scored else instance.idx

    for (kind, _), run in groupby(instances, key):
        yield kind, list(run)


def _score(item: Item, document: Document, run: Sequence[Any], before: int) -> Answers:
    options = tuple(instance.args[1] for instance in run)
    right = -1 if item.gold is None else item.gold - before
    reply = yield LoglikelihoodRequest(
        document.prompt(run[0].args[0]),
        options,
        reference=right if 0 <= right < len(run) else None,
    )
    pairs = zip(reply.logprobs, reply.greedy, strict=True)
    return [[pair] * instance.repeats for instance, pair in zip(run, pairs, strict=True)]


def _read(run: Sequence[Any], max_length: int) -> Answers:
    """A text longer than the context is read in windows of its full length. As there, each goes on
    behind the one before it, with the one token before it in front, and the last one reaches as far
    back as it can; here the start token stands in front of every window, not of the first alone."""
    found = []
    for instance in run:
        (text,) = instance.args
        counted = yield CountRequest((text,))
        nats = 0.0
        for first, length, scored in windows(counted.token_counts[0], max_length):
            reply = yield PerplexityRequest(text, first, length, scored)
            nats += sum(reply.logprobs)
        found.append([nats] * instance.repeats)
    return found


def windows(tokens: int, max_length: int) -> Iterator[tuple[int, int | None, int | None]]:
    """(first token, length, how many of the last ones are scored) of each window over a text."""
    room = max_length - 1  # the start token takes one place
    if not max_length or tokens <= room:
        yield 0, None, None
        return
    yield 0, room, room
    done = room
    while done < tokens:
        done_after = min(done + room - 1, tokens)
        yield done_after - room, room, done_after - done
        done = done_after


def _write(item: Item, document: Document, run: Sequence[Any]) -> Answers:
    found = []
    for instance in run:
        context, settings = instance.args[:2]
        decoding = decoding_of(settings)
        replies: list[str] = []
        for number in range(instance.repeats):
            # Repeated draws of a reply differ; a greedy one would be the same each time.
            if not replies or decoding.temperature:
                seed = int(text_hash(f"{item.sample.id} {instance.idx} {number}", 8), 16)
                reply = yield GenerateRequest(
                    document.prompt(context), replace(decoding, seed=seed), item.reference
                )
            replies.append(reply.text)
        found.append(replies)
    return found


def decoding_of(settings: Mapping[str, Any]) -> Decoding:
    """Its generation_kwargs in our words. Raises UserError for one that we cannot honour."""
    from lm_eval.models.utils import normalize_gen_kwargs

    given = dict(normalize_gen_kwargs(dict(settings), NEW_TOKENS))
    until = given.pop("until", None) or []
    samples = given.pop("do_sample", False)
    decoding = Decoding(
        max_tokens=int(given.pop("max_gen_toks")),
        stop=tuple(text for text in ([until] if isinstance(until, str) else until) if text),
        temperature=float(given.pop("temperature", 1.0 if samples else 0.0)) if samples else 0.0,
        top_p=float(given.pop("top_p", 1.0) or 1.0),
        top_k=int(given.pop("top_k", 0) or 0),
        repetition_penalty=float(given.pop("repetition_penalty", 1.0) or 1.0),
    )
    for name, value in given.items():
        if name not in ("temperature", "seed") and value != _IGNORED.get(name):
            raise UserError(f"generation_kwargs: {name}: {value!r} is nothing that we can do")
    return decoding


def _judge(item: Item, document: Document, scoring: Scoring, answers: Sequence[list[Any]]) -> Score:
    """What its filters leave of the answers, through process_results. The first filter's metrics
    have their own names, those of the others NAME,FILTER."""
    task = document.task
    instances = [
        replace(instance, resps=list(answer), filtered_resps={})
        for instance, answer in zip(document.instances, answers, strict=True)
    ]
    for ensemble in task._filters:
        ensemble.apply(instances)
    filters = list(instances[0].filtered_resps)
    given: dict[str, Any] = {}
    for number, name in enumerate(filters):
        left = [instance.filtered_resps[name] for instance in instances]
        for metric, value in task.process_results(document.row, left).items():
            given[f"{metric},{name}" if number else metric] = value
    values, rest = values_of(task, given)
    first = instances[0].filtered_resps[filters[0]]
    detail: dict[str, Any] = {DETAIL: rest} if rest else {}
    if scoring.metric not in values | rest:
        why = f"process_results gave no {scoring.name}, but {', '.join(given) or 'nothing'}"
        return Score(values, status="excluded", detail=detail | {"excluded": why})
    if item.options and item.prompt.full_text and len(answers) > 1:
        ranked = sorted((answer[0][0] for answer in answers), reverse=True)
        best = max(range(len(answers)), key=lambda i: answers[i][0][0])
        detail |= {"margin": ranked[0] - ranked[1]}
        return Score(values, answer=item.options[best].strip(), detail=detail)
    written = first[0] if isinstance(first, list) and first else first
    answer = written if isinstance(written, str) else None
    return Score(values, answer, "no_answer" if answer == UNREAD else "scored", detail)
