"""`qwen-eval data contamination`: how much of the tasks' test sets occurs in a corpus."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import LoadedTask, load_tasks, name_samples, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.cli.table import ResultsTable
    from qwen_eval.contamination import Contamination, Overlap
    from qwen_eval.fileio import Watch
    from qwen_eval.metrics import Estimate
    from qwen_eval.results import Run
    from qwen_eval.types import Item

MIB = 1 << 20
SHOWN = 3  # items of a task with the longest runs
SPLIT_COLUMNS = ("items", "score", "95% interval")


@dataclass(frozen=True)
class ContaminationOptions:
    """The options of `data contamination`."""

    corpus: Annotated[
        list[Path],
        typer.Option(help="JSON lines, text, a folder of them or of `train data`; repeatable."),
    ]
    tasks: Annotated[str, typer.Option(help="Tasks or suites, comma-separated: mmlu,gsm8k.")]
    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    n: Annotated[int, typer.Option("--n", min=1, max=100, help="Words of an n-gram.")] = 13
    run: Annotated[
        Path | None, typer.Option(help="A run directory: its score without contaminated items.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Write a JSON line for every item there.")] = None
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@dataclass(frozen=True)
class Found:
    """What a task's items have in a corpus, in the items' order."""

    task: LoadedTask
    overlaps: Sequence[Overlap]
    summary: Contamination

    def longest(self) -> list[tuple[str, Overlap]]:
        """Ids and overlaps of the items with the longest runs, longest first."""
        ids = [item.sample.id for item in self.task.items]
        found = [pair for pair in zip(ids, self.overlaps, strict=True) if pair[1].longest]
        return sorted(found, key=lambda pair: -pair[1].longest)[:SHOWN]


@command_from(ContaminationOptions)
def command(options: ContaminationOptions) -> None:
    """Measure how much of the tasks' test sets occurs word for word in a corpus."""
    from rich.console import Console

    from qwen_eval.contamination import Search, summarise
    from qwen_eval.train.data.passages import corpus_files

    files = corpus_files(options.corpus, "--corpus")
    check_file(options.out)
    tasks = load_tasks(options.tasks, options.data, None)
    name_samples(tasks)
    run = read_run_of(options.run, tasks) if options.run else None
    search = Search([wordings(t, item) for t in tasks for item in t.items], options.n)
    corpus = _read(search, files)
    overlaps, found = iter(search.overlaps()), list[Found]()
    for task in tasks:
        own = [next(overlaps) for _ in task.items]
        found.append(Found(task, own, summarise(own)))
    console = Console(stderr=options.as_json, emoji=False, highlight=False)
    texts, size = corpus["texts"], corpus["bytes"] / MIB
    console.print(f"corpus: {len(files)} files, {texts} texts, {size:.1f} MiB", soft_wrap=True)
    console.print()
    console.print(contamination_table(found, options.n))
    for line in notes(found, options.n):
        console.print(line, style="yellow", markup=False, soft_wrap=True)
    splits = _split(run, found) if run else {}
    for name, parts in splits.items():
        console.print(f"\n{options.run}: {name}", markup=False, soft_wrap=True)
        console.print(split_table(parts, run.info.tasks[name].metric if run else ""))
        console.print(
            "Items that are copied often may be easier or harder than others: a difference between "
            "the two is no proof of what the copies did.",
            style="yellow",
            soft_wrap=True,
        )
    if options.out is not None:
        _write(options.out, found)
    if options.as_json:
        print(json.dumps(_report(options, corpus, found, splits)))


def wordings(task: LoadedTask, item: Item) -> list[tuple[str, str]]:
    """A test item as it is asked, and as its file holds it where that is another: each a question
    and its answer. A copy of the file has its columns in their order, without the letters of
    options; there the question goes as far as the last column that is asked."""
    from qwen_eval.templates import columns
    from qwen_eval.train.data.decontaminate import texts_of
    from qwen_eval.wording import wording

    asked = wording(task.spec, item)
    recipe, row = task.recipe, item.sample.row
    named = columns(recipe.item) | {recipe.options_from}
    end = max((at for at, name in enumerate(row, 1) if name in named), default=0)
    values = list(row.values())
    first, second = ("\n".join(texts_of(part)).strip() for part in (values[:end], values[end:]))
    return [asked] if (first, second) == tuple(map(str.strip, asked)) else [asked, (first, second)]


def read_run_of(folder: Path, tasks: Sequence[LoadedTask]) -> Run:
    """A run over the rows of these tasks, under whichever recipes. Raises UserError for one that
    lacks a task, or was over other rows."""
    from qwen_eval.results import read_run

    run = read_run(folder)
    for task in tasks:
        infos = [info for name, info in run.info.tasks.items() if _is_of(name, task)]
        if not infos:
            raise UserError(
                f"--run {folder}: {task.spec.name} was not asked there; it has "
                f"{', '.join(run.info.tasks)}"
            )
        if any(info.data_digest != task.info.data_digest for info in infos):
            raise UserError(
                f"--run {folder}: {task.spec.name} was run on other rows than "
                f"{task.info.data_source}; name its mirror with --data"
            )
    if not run.finished:
        say(f"{folder}: UNFINISHED run, {len(run.samples)} samples so far")
    return run


def check_file(path: Path | None) -> None:
    """Raises UserError, before hours of work, for a file that could not be written after them."""
    if path is not None and (path.is_dir() or not path.parent.is_dir()):
        raise UserError(f"--out {path}: name a file in a folder that is there")


def contamination_table(found: Sequence[Found], n: int) -> ResultsTable:
    """Two rows per task: the question alone, and with its answer."""
    from qwen_eval.cli.table import ResultsTable, Row

    rows = []
    for one in found:
        parts = ((one.task.label, one.summary.question), ("  with answer", one.summary.with_answer))
        for name, share in parts:
            mean = share.estimate
            counts = map(str, (share.items, share.short, share.hit, share.over))
            interval = f"{100 * mean.low:.1f} – {100 * mean.high:.1f}" if mean else "–"
            percent = f"[bold]{100 * mean.estimate:.1f}[/]" if mean else "–"
            rows.append(Row(name, (*counts, percent, interval)))
    last = ("70%\nof them", "\nshare", "\n95% interval")
    return ResultsTable(tuple(rows), ("\nitems", "too\nshort", f"any\n{n}-gram", *last), words=())


def notes(found: Sequence[Found], n: int) -> list[str]:
    """What a reader must know beside the numbers, one line each."""
    lines = [
        f"share: items of which 70% of the {n}-grams occur in the corpus, the threshold of PaLM "
        "(arXiv 2204.02311); for GPT-3 (arXiv 2005.14165) a single one made an item dirty",
        "words are compared, so copies in other words or languages are not seen",
    ]
    for one in found:
        if short := one.summary.question.short:
            lines.append(
                f"{one.task.label}: questions of fewer than {n} words: {short}. Nothing is known "
                "of them, they are not clean (a smaller --n sees more of them)"
            )
        lines += [
            f"{one.task.label}: {overlap.longest} words in a row of {identity} in {overlap.where}"
            for identity, overlap in one.longest()
        ]
    return lines


def split_table(parts: dict[str, Estimate | None], metric: str) -> ResultsTable:
    """A run's score on all items, and on those of each verdict."""
    from qwen_eval.cli.table import ResultsTable, Row, written

    rows = [
        Row(name, (str(value.n), *written(value, metric)) if value else ("0", "–", "–"))
        for name, value in parts.items()
    ]
    return ResultsTable(tuple(rows), SPLIT_COLUMNS, "of the run", words=())


def _is_of(name: str, task: LoadedTask) -> bool:
    return name.partition("@")[0] == task.spec.name


def _split(run: Run, found: Sequence[Found]) -> dict[str, dict[str, Estimate | None]]:
    from qwen_eval.contamination import split_score
    from qwen_eval.metrics import stored

    invalid = {name: row.invalid for name, row in stored(run).items()} if run.finished else {}
    splits = {}
    for one in found:
        ids = (item.sample.id for item in one.task.items)
        verdicts = {i: over.verdict for i, over in zip(ids, one.overlaps, strict=True)}
        for name, info in run.info.tasks.items():
            if not _is_of(name, one.task):
                continue
            if invalid.get(name):
                say(f"{run.folder}: {name} is invalid: {'; '.join(invalid[name])}")
            else:
                splits[name] = split_score(info.metric, run.of(name), verdicts)
    return splits


def _read(search: Any, files: Sequence[Path]) -> dict[str, Any]:
    from qwen_eval.train.data.passages import passages

    texts = 0
    sizes = [path.stat().st_size for path in files]
    with _mebibytes(sum(sizes)) as watch:
        for path in files:
            for where, text in passages(path, search.n - 1, watch):
                search.read(text, where)
                texts += 1
    return {"files": [str(path) for path in files], "texts": texts, "bytes": sum(sizes)}


@contextmanager
def _mebibytes(size: int) -> Iterator[Watch]:
    """Shows how far the reading of so many bytes is; told of each block."""
    from qwen_eval.cli.progress import progress

    done = 0
    with progress(-(-size // MIB), unit="MiB") as bar:

        def watch(count: int) -> None:
            nonlocal done
            before, done = done // MIB, done + count
            bar.advance(done // MIB - before)

        yield watch


def _write(path: Path, found: Sequence[Found]) -> None:
    from qwen_eval.fileio import write_atomic

    lines = []
    for one in found:
        for item, overlap in zip(one.task.items, one.overlaps, strict=True):
            head = {"task": one.task.info.recipe, "id": item.sample.id, "verdict": overlap.verdict}
            lines.append(json.dumps(head | asdict(overlap), ensure_ascii=False) + "\n")
    write_atomic(path, "".join(lines))
    say(f"wrote {path}")


def _report(
    options: ContaminationOptions,
    corpus: dict[str, Any],
    found: Sequence[Found],
    splits: dict[str, dict[str, Estimate | None]],
) -> dict[str, Any]:
    from qwen_eval.contamination import THRESHOLD

    tasks = {}
    for one in found:
        own = {"data_kind": one.task.info.data_kind, "data_digest": one.task.info.data_digest}
        runs = [{"id": identity} | asdict(overlap) for identity, overlap in one.longest()]
        tasks[one.task.info.recipe] = own | one.summary.to_json() | {"longest": runs}
    scores = {
        name: {part: asdict(value) if value else None for part, value in parts.items()}
        for name, parts in splits.items()
    }
    return {
        "schema": 1,
        "n": options.n,
        "threshold": THRESHOLD,
        "corpus": corpus,
        "tasks": tasks,
        "run": str(options.run) if options.run else None,
        "scores": scores,
    }
