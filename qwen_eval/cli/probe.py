"""`qwen-eval data probe`: whether a model seems to know the tasks' test sets by heart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.contamination import check_file
from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import (
    DEVICES,
    DTYPES,
    LoadedTask,
    check_choice,
    load_tasks,
    name_samples,
    open_model,
    say,
)
from qwen_eval.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend
    from qwen_eval.cli.table import ResultsTable
    from qwen_eval.memorisation import OrderTest
    from qwen_eval.metrics import Estimate
    from qwen_eval.types import ModelRequest, Response

ALPHA = 0.05
MOST_NATS = 700.0  # a token: beyond it no number holds the perplexity
COLUMNS = (
    "\nn",
    "\nperplexity",
    "\nmin 20%",
    "\n95% interval",
    "\nbeats",
    "p of\norder",
    "p of\nwords",
)


@dataclass(frozen=True)
class ProbeOptions:
    """The options of `data probe`."""

    tasks: Annotated[str, typer.Option(help="Tasks or suites, comma-separated: mmlu,gsm8k.")]
    model: Annotated[str, typer.Option(help="What to probe; see `qwen-eval models`.")] = "tiny"
    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="About so many items per task, in whole stretches.")
    ] = None
    shuffles: Annotated[
        int, typer.Option(min=1, max=999, help="Other orders that each stretch is held against.")
    ] = 9
    seed: Annotated[int, typer.Option(help="Seed of the shuffles.")] = 0
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences computed at a time.")] = None
    out: Annotated[Path | None, typer.Option(help="Write a JSON line for every item there.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@dataclass(frozen=True)
class Texts:
    """A task's rows as they are read: the text of each, its words for likeness, those that are
    asked by themselves, and the stretches. `long` fit no context and are left out."""

    task: LoadedTask
    texts: Sequence[str]
    asked: Sequence[int]
    stretches: Sequence[range]
    long: int


@dataclass
class Read:
    """What a model answered. `items`: log-probabilities read into (min-k, sum, tokens) by row;
    `orders`: sum and tokens by (first row of the stretch, number of the order, 0 the published)."""

    items: dict[int, tuple[float, float, int]] = field(default_factory=dict)
    orders: dict[tuple[int, int], tuple[float, int]] = field(default_factory=dict)
    failed: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Probed:
    """A task's figures. `order` is None where no stretch could be read; `p` is that of the order,
    after Holm over the tasks."""

    task: LoadedTask
    perplexity: float
    min_k: Estimate
    order: OrderTest | None
    p: float
    long: int
    failed: int
    reason: str


@command_from(ProbeOptions)
def command(options: ProbeOptions) -> None:
    """Probe a model for test sets it knows: Min-K% of each item, and the order of the rows."""
    from rich.console import Console

    from qwen_eval.backends.base import BackendOptions

    check_choice("--dtype", options.dtype, DTYPES)
    check_choice("--device", options.device, DEVICES)
    check_file(options.out)
    tasks = load_tasks(options.tasks, options.data, None)
    name_samples(tasks)
    wishes = BackendOptions(dtype=options.dtype, device=options.device, batch=options.batch)
    backend = open_model(options.model, wishes)
    try:
        texts = [prepared(task, backend, options.limit) for task in tasks]
        answers = read(texts, backend, options)
    finally:
        backend.close()
    found = adjusted([probed(*pair, options) for pair in zip(texts, answers, strict=True)])
    console = Console(stderr=options.as_json, emoji=False, highlight=False)
    console.print(probe_table(found))
    for line in notes(found):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    if options.out is not None:
        _write(options.out, texts, answers)
    if options.as_json:
        rows = {
            one.task.info.recipe: {
                "n": one.min_k.n,
                "perplexity": one.perplexity,
                "min_k": asdict(one.min_k),
                "order": asdict(one.order) | {"p_adjusted": one.p} if one.order else None,
                "too_long": one.long,
                "failed": one.failed,
            }
            for one in found
        }
        print(
            json.dumps({"schema": 1, "model": options.model, "seed": options.seed, "tasks": rows})
        )


def prepared(task: LoadedTask, backend: Backend, limit: int | None) -> Texts:
    """What is read of a task: with a limit, stretches by a fixed draw until they hold as many rows.
    Raises UserError where no row fits the model's context."""
    from qwen_eval.fileio import text_hash
    from qwen_eval.memorisation import SEPARATOR, stretches
    from qwen_eval.types import CountRequest
    from qwen_eval.wording import wording

    pairs = [wording(task.spec, item) for item in task.items]
    texts = ["\n".join(filter(None, map(str.strip, pair))) for pair in pairs]
    room = backend.info().max_length - 1 if backend.info().max_length else None
    requests = [CountRequest((text + SEPARATOR,)) for text in texts]
    tokens = [0] * len(texts)
    for number, response in drained(backend, requests):
        if response.error is not None:
            raise InfrastructureError(f"{backend.info().name}: counts no tokens: {response.error}")
        tokens[number] = response.token_counts[0]
    fits = [room is None or count <= room for count in tokens]
    if not any(fits):
        raise UserError(f"--tasks {task.info.recipe}: no item fits the model's context of {room}")
    found = stretches(tokens, [item.sample.group for item in task.items], room)
    asked = [i for i, fit in enumerate(fits) if fit and texts[i]]
    if limit is not None and limit < len(asked):
        drawn = sorted(found, key=lambda rows: text_hash(task.items[rows[0]].sample.id))
        found, rows = [], 0
        for one in drawn:
            if rows < limit:
                found.append(one)
                rows += len(one)
        asked = [i for one in found for i in one] or asked[:limit]
    return Texts(task, texts, asked, found, len(fits) - sum(fits))


def read(texts: Sequence[Texts], backend: Backend, options: ProbeOptions) -> list[Read]:
    """Have the model read every item by itself, and every stretch in all its orders."""
    from qwen_eval.cli.progress import progress
    from qwen_eval.memorisation import SEPARATOR, min_k
    from qwen_eval.types import PerplexityRequest

    requests: list[PerplexityRequest] = []
    meaning: list[tuple[Read, int | tuple[int, int]]] = []
    answers = [Read() for _ in texts]
    for one, answer in zip(texts, answers, strict=True):
        for i in one.asked:
            requests.append(PerplexityRequest(one.texts[i]))
            meaning.append((answer, i))
        for rows in one.stretches:
            for number, order in enumerate(_orders(one, rows, options)):
                text = SEPARATOR.join(one.texts[rows[i]] for i in order)
                requests.append(PerplexityRequest(text))
                meaning.append((answer, (rows[0], number)))
    with progress(len(requests), unit="texts") as bar:
        for number, response in drained(backend, requests):
            bar.advance()
            answer, key = meaning[number]
            logprobs = response.logprobs
            if response.error is not None or not logprobs or not all(map(math.isfinite, logprobs)):
                answer.failed += 1
                answer.reason = response.error or "no finite log-probabilities"
            elif isinstance(key, int):
                answer.items[key] = min_k(logprobs), math.fsum(logprobs), len(logprobs)
            else:
                answer.orders[key] = math.fsum(logprobs), len(logprobs)
    return answers


def drained(backend: Backend, requests: Sequence[ModelRequest]) -> Iterator[tuple[int, Response]]:
    """Every request's number and response, as they finish; the backend has at hand at a time what
    it asks for."""
    at_hand = max(backend.info().concurrency, 1)
    numbers: dict[int, int] = {}
    sent = 0
    while sent < len(requests) or numbers:
        while sent < len(requests) and len(numbers) < at_hand:
            numbers[backend.submit(requests[sent])] = sent
            sent += 1
        for request_id, response in backend.step():
            yield numbers.pop(request_id), response


def probed(texts: Texts, answer: Read, options: ProbeOptions) -> Probed:
    """The figures of one task. Raises InfrastructureError where the model could read no item."""
    from qwen_eval.memorisation import StretchScores, likeness, order_test, vocabulary
    from qwen_eval.metrics import estimate

    mean = estimate([value for value, _, _ in answer.items.values()])
    if mean is None:
        raise InfrastructureError(f"{texts.task.info.recipe}: nothing was read: {answer.reason}")
    nats = -math.fsum(total for _, total, _ in answer.items.values())
    tokens = sum(count for _, _, count in answer.items.values())
    scores = []
    for rows in texts.stretches:
        keys = [(rows[0], number) for number in range(options.shuffles + 1)]
        if not all(key in answer.orders for key in keys):
            continue
        sums = [answer.orders[key][0] for key in keys]
        known = [vocabulary(texts.texts[i]) for i in rows]
        alike = [likeness(known, order) for order in _orders(texts, rows, options)]
        count = answer.orders[keys[0]][1]
        scores.append(StretchScores(len(rows), count, sums[0], sums[1:], alike[0], alike[1:]))
    order = order_test(scores) if scores else None
    return Probed(
        texts.task,
        math.exp(min(nats / tokens, MOST_NATS)),
        mean,
        order,
        order.p if order else 1.0,
        texts.long,
        answer.failed,
        answer.reason,
    )


def adjusted(found: Sequence[Probed]) -> list[Probed]:
    """The same with each p after Holm (1979) over the tasks that were tested."""
    from qwen_eval.paired import holm

    tested = [i for i, one in enumerate(found) if one.order]
    corrected = dict(zip(tested, holm([found[i].p for i in tested]), strict=True))
    return [replace(one, p=corrected.get(i, one.p)) for i, one in enumerate(found)]


def probe_table(found: Sequence[Probed]) -> ResultsTable:
    """One row per task."""
    from qwen_eval.cli.table import ResultsTable, Row

    rows = []
    for one in found:
        mean, order = one.min_k, one.order
        interval = "–" if mean.n == 1 else f"{mean.low:.2f} – {mean.high:.2f}"
        tested = ("–", "–", "–")
        if order:
            tested = (f"{order.beaten:.0%}", _p(one.p), _p(order.p_words))
        cells = (str(mean.n), f"{one.perplexity:.3g}", f"{mean.estimate:.2f}", interval, *tested)
        rows.append(Row(one.task.label, cells))
    return ResultsTable(tuple(rows), COLUMNS, words=())


def notes(found: Sequence[Probed]) -> list[str]:
    """What the numbers say, and what they cannot, one line each."""
    lines = [
        "min 20%: mean log-probability of the least likely fifth of an item's tokens (Min-K%, "
        "arXiv 2310.16789). It has no scale of its own: hold it against another model's on the "
        "same task",
        "p of order: whether the published order of rows is likelier to the model than shuffles of "
        "it (arXiv 2310.17623), one-sided, Holm's over all tasks; it beats half of them where "
        "nothing is known. A set that was trained on in another order, or row by row, is not seen",
    ]
    for one in found:
        name, order = one.task.label, one.order
        if order is None:
            lines.append(f"{name}: too few rows fit together: nothing is known of their order")
        elif order.p_words <= ALPHA:
            lines.append(
                f"{name}: neighbouring rows share more words than shuffled ones (p of words "
                f"{_p(order.p_words)}). Their order has a meaning, which any model may like: the p "
                "of order says NOTHING here"
            )
        elif one.p <= ALPHA:
            lines.append(
                f"{name}: the published order beats {order.beaten:.0%} of the shuffles, by "
                f"{order.gain:.4f} nats a token (stretches: {order.stretches}, rows: "
                f"{order.rows}), p {_p(one.p)}: the model seems to KNOW this file"
            )
        else:
            lines.append(
                f"{name}: no sign that the order is known (stretches: {order.stretches}, rows: "
                f"{order.rows}). That is no proof that the set is not"
            )
        if one.long:
            lines.append(f"{name}: {one.long} items are longer than the model's context, left out")
        if one.failed:
            lines.append(f"{name}: {one.failed} texts could not be read: {one.reason}")
    return lines


def _orders(texts: Texts, rows: range, options: ProbeOptions) -> list[Sequence[int]]:
    """The published order of a stretch, and its shuffles."""
    from qwen_eval.memorisation import shuffles

    key = f"{options.seed} {texts.task.items[rows[0]].sample.id}"
    return [range(len(rows)), *shuffles(len(rows), options.shuffles, key)]


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<0.001"


def _write(path: Path, texts: Sequence[Texts], answers: Sequence[Read]) -> None:
    from qwen_eval.fileio import write_atomic

    lines = []
    for one, answer in zip(texts, answers, strict=True):
        for i, (lowest, total, tokens) in sorted(answer.items.items()):
            sample = one.task.items[i].sample
            record: dict[str, Any] = {"task": one.task.info.recipe, "id": sample.id}
            record |= {"tokens": tokens, "nats_per_token": -total / tokens, "min_k": lowest}
            lines.append(json.dumps(record) + "\n")
    write_atomic(path, "".join(lines))
    say(f"wrote {path}")
