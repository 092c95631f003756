"""What the bench programs share: the same items for us and for a peer."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from qwen_eval.backends.base import Backend, BackendOptions, open_backend
from qwen_eval.datasets import open_data, take
from qwen_eval.fileio import read_jsonl
from qwen_eval.prompts import Renderer
from qwen_eval.taskspec import find_task
from qwen_eval.types import Item, LoglikelihoodRequest, ModelRequest, Prompt, Response


def task_items(name: str, data: Path, count: int) -> list[Item]:
    """`count` items of a task, the fixed draw that --limit takes."""
    spec, recipe = find_task(name)
    source = open_data(spec, data)
    renderer = Renderer(source, recipe)
    return [renderer.render(sample) for sample in take(source.samples(), count)]


def mmlu_requests(data: Path, count: int) -> list[LoglikelihoodRequest]:
    """MMLU, 5-shot: one letter per option."""
    items = task_items("mmlu", data, count)
    return [LoglikelihoodRequest(i.prompt, i.options, reference=i.gold) for i in items]


def arc_requests(data: Path, count: int) -> list[LoglikelihoodRequest]:
    """Shaped as lm-eval's arc_easy: the options' texts after `Question: …\\nAnswer:`."""
    rows = islice(read_jsonl(data / "arc" / "easy_test.jsonl.gz"), count)
    return [
        LoglikelihoodRequest(
            Prompt(f"Question: {row['query'].removeprefix('Question: ')}\nAnswer:"),
            tuple(f" {choice}" for choice in row["choices"]),
            reference=row["gold"],
        )
        for row in rows
    ]


def hellaswag_requests(data: Path, count: int) -> list[LoglikelihoodRequest]:
    """Shaped as lm-eval's hellaswag: long endings after a context."""
    rows = islice(read_jsonl(data / "hellaswag" / "validation.jsonl.gz"), count)
    return [
        LoglikelihoodRequest(
            Prompt(row["ctx"]),
            tuple(f" {ending}" for ending in row["endings"]),
            reference=int(row["label"]),
        )
        for row in rows
    ]


def native(folder: Path, batch: int = 8, dtype: str = "float32") -> Backend:
    """Our engine."""
    return open_backend("native", str(folder), BackendOptions(dtype=dtype, batch=batch))


def answers(backend: Backend, requests: list[ModelRequest]) -> list[Response]:
    """Responses in the order of the requests."""
    ids = [backend.submit(request) for request in requests]
    found: dict[int, Response] = {}
    while len(found) < len(ids):
        found.update(backend.step())
    return [found[i] for i in ids]
