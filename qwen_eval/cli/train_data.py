"""`qwen-eval train data`: a corpus from a recipe, cleaned, deduplicated, filtered and packed."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import parse_bytes, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.data.decontaminate import KnownTests
    from qwen_eval.train.data.pipeline import Pipeline
    from qwen_eval.train.data.recipe import Recipe


@dataclass(frozen=True)
class DataOptions:
    """The options of `train data`."""

    recipe: Annotated[str, typer.Argument(help="A YAML file, or a recipe of ours: tiny.")]
    out: Annotated[Path, typer.Option(help="Folder of the corpus; the same one resumes.")]
    data: Annotated[
        Path | None, typer.Option(help="Where the recipe's files are (or QWEN_EVAL_DATA).")
    ] = None
    tokenizer: Annotated[
        Path | None, typer.Option(help="A folder with a tokenizer, for that of the recipe.")
    ] = None
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; else one a core.")] = None
    memory: Annotated[str, typer.Option(help="Memory for sorting, such as 512MiB.")] = "512MiB"
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(DataOptions)
def command(options: DataOptions) -> None:
    """Make a corpus; the same command resumes. Says what every filter dropped, and why."""
    from qwen_eval.train.data.pipeline import Pipeline
    from qwen_eval.train.data.recipe import read_recipe

    data = options.data or Path(os.environ.get("QWEN_EVAL_DATA") or ".")
    if not data.is_dir():
        raise UserError(f"--data {data}: no such folder")
    memory = parse_bytes("--memory", options.memory)
    if not memory:
        raise UserError(f"--memory {options.memory}: give more than nothing")
    recipe = read_recipe(find_recipe(options.recipe, "data"))
    if options.tokenizer is not None:
        pack = recipe.pack.model_copy(update={"tokenizer": str(options.tokenizer)})
        recipe = recipe.model_copy(update={"pack": pack})
    pipeline = Pipeline(
        recipe,
        data,
        options.out,
        _tests(recipe, data),
        memory,
        options.workers or os.cpu_count() or 1,
        _Ticker().tick,
    )
    pipeline.run()
    _show(pipeline, options.as_json)


def _tests(recipe: Recipe, data: Path) -> KnownTests:
    """What instructions must not contain: every task's test rows, and the recipe's own files."""
    from qwen_eval.datasets import open_data
    from qwen_eval.fileio import read_jsonl
    from qwen_eval.taskspec import find_task, task_names
    from qwen_eval.train.data.decontaminate import known_tests, texts_of
    from qwen_eval.train.data.recipe import find_files

    sets: dict[str, Iterator[list[str]]] = {}
    if recipe.instructions:
        for name in task_names():
            spec, _ = find_task(name)
            file = spec.splits[spec.eval_split].mirror
            there = file is not None and (data / file).is_file()
            source = open_data(spec, data if there else None)
            if source.kind == "sample":
                say(f"{name}: only the project's SAMPLE is known, not the benchmark's test set")
            label = f"{name} (sample)" if source.kind == "sample" else name
            sets[label] = (texts_of(row) for row in source.rows(spec.eval_split))
        files = recipe.decontaminate.against
        for path in find_files(files, data, "decontaminate: against") if files else ():
            sets[str(path.relative_to(data))] = (texts_of(row) for row in read_jsonl(path))
    return known_tests(sets, recipe.decontaminate.n)


@dataclass
class _Ticker:
    """Lines on stderr: how far a stage is, how fast it goes and when it ends."""

    stage: str = ""
    first: int = 0
    began: float = field(default_factory=time.monotonic)
    said: float = 0.0

    def tick(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.first, self.began, self.said = stage, done, now, now
        live = sys.stderr.isatty()
        if not live and done < total and now - self.said < 15:
            return
        self.said = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = f"{(total - done) / rate:.0f} s left" if rate else "?"
        line = f"{stage}: {done}/{total} parts  {rate:.2g}/s  {left if done < total else 'done'}"
        end = "\r" if live and done < total else "\n"
        print(f"{line:<60}", file=sys.stderr, end=end, flush=True)


def _show(pipeline: Pipeline, as_json: bool) -> None:
    from qwen_eval.reports.plain import visible
    from qwen_eval.train.data.pack import PackedCorpus
    from qwen_eval.train.data.summary import summarise, table, write_page

    summary = summarise(pipeline.out)
    write_page(pipeline.out / "page.html", summary, seed=pipeline.recipe.seed)
    corpus = PackedCorpus(pipeline.out / "packed")
    typer.echo(visible(table(summary)), nl=False, err=as_json)
    say(f"{len(corpus):,} sequences of {corpus.length} tokens in {corpus.folder}")
    say(f"what was dropped, with samples: {pipeline.out / 'page.html'}")
    if as_json:
        manifest = {k: v for k, v in corpus.manifest.items() if k != "shards"}
        print(json.dumps({"stages": summary.record(), "packed": manifest}, ensure_ascii=False))


def review(
    what: Annotated[
        Path, typer.Argument(help="A corpus folder, to write sheets; a filled sheet, to read it.")
    ],
    samples: Annotated[int, typer.Option(min=1, help="Texts of each decision on a sheet.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of the draw.")] = 0,
) -> None:
    """Write sheets on which a person judges each filter, or say what a filled one tells."""
    from qwen_eval.reports.plain import one_line
    from qwen_eval.train.data.review import judge, write_sheets
    from qwen_eval.train.data.stage import Folder
    from qwen_eval.train.data.summary import summarise

    if not what.is_dir():
        for judged in judge(what):
            print(one_line(judged.line()))
        return
    folders = [Folder(what / name) for name in summarise(what).stages]
    for path in write_sheets(what / "review", folders, samples, seed):
        say(f"wrote {path}: fill the last column with right or wrong")


def scorer(
    positive: Annotated[list[Path], typer.Option(help="JSON lines of good examples; repeatable.")],
    negative: Annotated[list[Path], typer.Option(help="JSON lines of bad ones; repeatable.")],
    out: Annotated[Path, typer.Option(help="File of the scorer, .npy.")],
    key: Annotated[str, typer.Option(help="The text in a row.")] = "text",
    negative_key: Annotated[str | None, typer.Option(help="That of bad ones, if another.")] = None,
    penalty: Annotated[float, typer.Option(min=0, help="On squared weights.")] = 1.0,
) -> None:
    """Train a scorer of texts; a tenth of the examples is held out to judge it."""
    from qwen_eval.stats import wilson_interval
    from qwen_eval.train.data.scorers import examples, held_out, save_scorer, train

    good, good_test = held_out(examples(positive, key))
    bad, bad_test = held_out(examples(negative, negative_key or key))
    trained = train(good, bad, penalty)
    save_scorer(out, trained)
    say(f"wrote {out}: {len(good):,} good and {len(bad):,} bad examples")
    for name, texts, is_good in (("good", good_test, True), ("bad", bad_test, False)):
        if not texts:
            continue
        right = sum((trained.score(text) >= 0.5) == is_good for text in texts)
        low, high = wilson_interval(right, len(texts))
        print(
            f"held out, {name}: {right} of {len(texts)} on the right side, "
            f"{right / len(texts):.1%} [{100 * low:.1f}, {100 * high:.1f}]"
        )
