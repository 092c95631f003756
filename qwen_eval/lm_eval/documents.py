"""From a task of lm-evaluation-harness to our items: its documents, and what it asks about each.

Its few-shot sampler draws from one generator as it goes through the documents. So all of them are
gone through here, in their order and with its command's own seed, even where a few are asked: a
document's prompt is what `lm_eval` makes of it in one process, whatever --limit and ranks.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from qwen_eval.datasets import take
from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, text_hash
from qwen_eval.lm_eval.figures import plain
from qwen_eval.lm_eval.loading import Benchmark
from qwen_eval.results import TaskInfo
from qwen_eval.taskspec import DEFAULT_RECIPE, TASKS_DIR, Recipe, Split, TaskSpec
from qwen_eval.types import Item, Prompt, Sample

LOCAL = ("json", "csv", "parquet", "text", "arrow", "pandas")
"""Loaders of the datasets library that read files of one's own."""


@dataclass(frozen=True)
class Document:
    """What is asked of one document: `instances` are its requests in its own order. `prefix`:
    what its contexts begin with before its own part, description and exemplars."""

    task: Any
    row: Any
    instances: tuple[Any, ...]
    prefix: str

    def prompt(self, context: str) -> Prompt:
        """A context as we ask it: the same text, cut where others begin alike."""
        shared = self.prefix if context.startswith(self.prefix) else ""
        return Prompt(context[len(shared) :], shared)


@dataclass(frozen=True)
class Rendered:
    """A benchmark's items, and their documents by the samples' ids. `spec` says of it what a
    task.yaml says of a task whose rows are handed in."""

    benchmark: Benchmark
    spec: TaskSpec
    info: TaskInfo
    items: list[Item]
    documents: Mapping[str, Document]

    @property
    def task(self) -> Any:
        """The first of its tasks, which all are scored alike."""
        return next(iter(self.benchmark.tasks.values()))


def render(benchmark: Benchmark, limit: int | None) -> Rendered:
    """All documents of a benchmark, or the `limit` that take() draws. Raises UserError for what
    cannot be rendered."""
    rows = [(name, row) for name, task in benchmark.tasks.items() for row in _rows(name, task)]
    digest = hashlib.sha256()
    samples, seen = [], dict[str, int]()
    for name, row in rows:
        line = canonical_json(row_as_json(row))
        digest.update(line.encode("utf-8", "surrogatepass") + b"\n")
        identity = text_hash(line)
        seen[identity] = seen.get(identity, 0) + 1
        identity += f"-{seen[identity]}" if seen[identity] > 1 else ""
        group = name if len(benchmark.tasks) > 1 else ""
        samples.append(Sample(identity, benchmark.task, {"doc": row}, group))
    chosen = {sample.id for sample in take(samples, limit)}
    documents, items = {}, []
    for sample, document in _documents(benchmark, samples, chosen):
        documents[sample.id] = document
        items.append(_item(benchmark, sample, document))
    info = _info(benchmark, items, documents, digest.hexdigest()[:16], len(samples))
    return Rendered(benchmark, _spec(benchmark, info), info, items, documents)


def row_as_json(row: Any) -> Any:
    """A document for its hash: what JSON cannot hold, dates and the like, as it is written out."""
    if isinstance(row, Mapping):
        return {str(key): row_as_json(value) for key, value in row.items()}
    if isinstance(row, list | tuple):
        return [row_as_json(value) for value in row]
    if row is None or isinstance(row, str | bool | int):
        return row
    if isinstance(row, float):
        return row if row - row == 0 else str(row)  # NaN and infinities are no JSON
    return str(row)


def _rows(name: str, task: Any) -> list[Any]:
    try:
        return list(task.eval_docs)
    except Exception as error:  # the code of a task raises what it likes
        raise UserError(
            f"--tasks lm_eval:{name}: no documents ({type(error).__name__}: {error})"
        ) from error


def _documents(
    benchmark: Benchmark, samples: Sequence[Sample], chosen: set[str]
) -> Iterator[tuple[Sample, Document]]:
    from lm_eval.api.task import ConfigurableTask

    number, before = 0, ""
    for sample in samples:
        name = sample.group or next(iter(benchmark.tasks))
        number, before = (number + 1 if name == before else 0), name
        task, row = benchmark.tasks[name], sample.row["doc"]
        try:
            if sample.id in chosen:
                yield sample, _document(name, task, row, number)
            elif task.config.num_fewshot:
                if type(task).fewshot_context is ConfigurableTask.fewshot_context:
                    _draw(task, row)
                else:
                    _context(task, row)
        except UserError:
            raise
        except Exception as error:  # templates and the code of a task raise what they like
            reason = " ".join(str(error).split())
            raise UserError(
                f"--tasks lm_eval:{name}: document {number} cannot be rendered "
                f"({type(error).__name__}: {reason[:200]})"
            ) from error


def _draw(task: Any, row: Any) -> None:
    """Leave its generator where fewshot_context() would."""
    own = task.fewshot_cfg.split == task.config.test_split
    task.sampler.sample(n=task.config.num_fewshot, eval_doc=row if own else None)


def _context(task: Any, row: Any, shots: int | None = None) -> Any:
    return task.fewshot_context(
        row,
        num_fewshot=(task.config.num_fewshot or 0) if shots is None else shots,
        system_instruction=None,
        apply_chat_template=False,
        fewshot_as_multiturn=False,
        chat_template=None,
        gen_prefix=task.doc_to_prefix(row),
    )


def _document(name: str, task: Any, row: Any, number: int) -> Document:
    context = _context(task, row)
    prefix = ""
    if task.config.num_fewshot:
        bare = _context(task, row, shots=0)
        whole, own = (c[0] if isinstance(c, list) else c for c in (context, bare))
        prefix = whole[: len(whole) - _alike_at_end(whole, own)]
    asked = task.construct_requests(
        doc=row,
        ctx=context,
        metadata=(name, number, task.config.repeats),
        apply_chat_template=False,
        chat_template=None,
    )
    instances = asked if isinstance(asked, list) else [asked]
    instances.sort(key=lambda instance: instance.idx)
    return Document(task, row, tuple(instances), prefix)


def _alike_at_end(text: str, other: str) -> int:
    most = min(len(text), len(other))
    return next((n for n in range(most) if text[-1 - n] != other[-1 - n]), most)


def _item(benchmark: Benchmark, sample: Sample, document: Document) -> Item:
    first = document.instances[0]
    scored = first.request_type == "loglikelihood"
    choices = scored and len(document.instances) > 1
    context = first.args[0]
    return Item(
        sample=sample,
        recipe=benchmark.recipe,
        prompt=document.prompt(context),
        target=_target(document),
        scorer=_filters(document.task),
        metric=benchmark.scoring.metric,
        options=tuple(instance.args[1] for instance in document.instances) if choices else (),
        gold=_gold(document) if choices else 0 if scored else None,
        reference=_target(document),
    )


def _filters(task: Any) -> str:
    return ", ".join(one.name for one in getattr(task, "_filters", ()))


def _gold(document: Document) -> int | None:
    """The index of the right option, for mock:oracle; None where the task does not say so."""
    task, row = document.task, document.row
    many_contexts = getattr(task, "multiple_input", 0)
    gold = task.doc_to_text(row) if many_contexts else task.doc_to_target(row)
    if isinstance(gold, str) and not many_contexts and task.config.doc_to_choice is not None:
        choices = task.doc_to_choice(row)
        gold = choices.index(gold) if gold in choices else None
    return gold if isinstance(gold, int) and gold < len(document.instances) else None


def _target(document: Document) -> str:
    task, row = document.task, document.row
    target = task.doc_to_target(row)
    if isinstance(target, int) and getattr(task.config, "doc_to_choice", None) is not None:
        choices = task.doc_to_choice(row)
        target = choices[target] if target < len(choices) else target
    return str(target[0] if isinstance(target, list) and target else target)


def _info(
    benchmark: Benchmark,
    items: Sequence[Item],
    documents: Mapping[str, Document],
    data_digest: str,
    available: int,
) -> TaskInfo:
    tasks = list(benchmark.tasks.values())
    asked = hashlib.sha256()
    for key in sorted(documents):
        requests = [(one.request_type, one.args, one.repeats) for one in documents[key].instances]
        asked.update(f"{key} {canonical_json(row_as_json(requests))}\n".encode())
    shots = {task.config.num_fewshot or 0 for task in tasks}
    local = all(task.config.dataset_path in LOCAL for task in tasks)
    version = getattr(tasks[0], "VERSION", None)
    return TaskInfo(
        recipe=benchmark.recipe,
        version=int(version) if isinstance(version, int | float) else 0,
        recipe_version=1,
        spec_digest=text_hash(canonical_json([_file(task) for task in tasks])),
        solver="lm_eval",
        metric=benchmark.scoring.metric,
        scorer=items[0].scorer,
        data_kind="given" if local else "hub",
        data_source=", ".join(dict.fromkeys(map(_source, tasks))),
        data_digest=data_digest,
        prompts_digest=asked.hexdigest()[:16],
        available=available,
        selected=len(items),
        shots=shots.pop() if len(shots) == 1 else None,
        protocol=f"lm-evaluation-harness {metadata.version('lm-eval')}, {benchmark.name}",
    )


def _spec(benchmark: Benchmark, info: TaskInfo) -> TaskSpec:
    recipe = info.recipe.partition("@")[2]
    asked = Recipe(
        version=1, source=info.protocol, item="", scorer=info.scorer, macro=benchmark.macro
    )
    return TaskSpec(
        name=benchmark.task,
        version=1,
        title=info.protocol,
        licence="that of its data",
        # What asks it is info.solver; here it only says how the metric is read.
        solver="perplexity" if benchmark.scoring.metric == "bits_per_byte" else "generate",
        metric=benchmark.scoring.metric,
        also=benchmark.scoring.also,
        splits={"test": Split(given=True)},
        target="",
        group="task" if len(benchmark.tasks) > 1 else None,
        categories=dict(benchmark.categories),
        recipes={DEFAULT_RECIPE: asked} | {recipe: asked},
        folder=TASKS_DIR,
        digest=info.spec_digest,
    )


def _file(task: Any) -> Any:
    """What a task's file says, but for where it lies."""
    said = dict(task.dump_config())
    said["metadata"] = {k: v for k, v in (said.get("metadata") or {}).items() if k == "version"}
    said.pop("dataset_kwargs", None)
    return row_as_json(_in_words(said))


def _in_words(value: Any) -> Any:
    """Code by its text: what a function is called in memory changes from run to run."""
    if isinstance(value, Mapping):
        return {str(key): _in_words(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_in_words(one) for one in value]
    if not callable(value):
        return value
    try:
        return inspect.getsource(value)
    except (TypeError, OSError):
        return getattr(value, "__qualname__", type(value).__name__)


def _source(task: Any) -> str:
    config = task.config
    files = (config.dataset_kwargs or {}).get("data_files")
    if config.dataset_path in LOCAL and files:
        return f"{config.dataset_path} {canonical_json(plain(files))}"
    return " ".join(filter(None, ("hub", config.dataset_path, config.dataset_name)))
