"""What training data must not contain: the test rows of every task."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from qwen_eval.cli.progress import Progress, progress
from qwen_eval.cli.setup import say
from qwen_eval.errors import MissingDataError, UserError

if TYPE_CHECKING:
    from qwen_eval.train.data.decontaminate import KnownTests
    from qwen_eval.train.data.recipe import Decontaminate


def data_folder(given: Path | None) -> Path:
    """Where a recipe's files are: --data, else QWEN_EVAL_DATA, else here. Raises UserError."""
    data = given or Path(os.environ.get("QWEN_EVAL_DATA") or ".")
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder")
    return data


def tests_of(settings: Decontaminate, data: Path) -> KnownTests:
    """The n-grams of every task's test rows, and of the files that the settings name."""
    from qwen_eval.datasets import open_data
    from qwen_eval.fileio import read_jsonl
    from qwen_eval.taskspec import find_task, task_names
    from qwen_eval.train.data.decontaminate import known_tests, texts_of
    from qwen_eval.train.data.recipe import find_files

    sets: dict[str, Iterator[list[str]]] = {}
    for name in task_names():
        spec, _ = find_task(name)
        if spec.solver == "long_perplexity":
            continue  # whole books: to quote one is to know no answer
        file = spec.splits[spec.eval_split].mirror
        there = file is not None and (data / file).is_file()
        try:
            source = open_data(spec, data if there else None)
        except MissingDataError as error:
            say(f"{name}: NOTHING of its test set is known ({error})")
            continue
        sample = source.kind == "sample" and file is not None
        if sample:
            say(f"{name}: only the project's SAMPLE is known, not the benchmark's test set")
        label = f"{name} (sample)" if sample else name
        sets[label] = (texts_of(row) for row in source.rows(spec.eval_split))
    files = settings.against
    for path in find_files(files, data, "decontaminate: against") if files else ():
        sets[str(path.relative_to(data))] = (texts_of(row) for row in read_jsonl(path))
    say(f"reading {len(sets)} test sets")
    with progress(len(sets)) as bar:
        watched = {name: _advancing(rows, bar) for name, rows in sets.items()}
        return known_tests(watched, settings.n)


def _advancing(rows: Iterator[list[str]], bar: Progress) -> Iterator[list[str]]:
    yield from rows
    bar.advance()
