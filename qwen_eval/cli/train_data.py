"""`qwen-eval train data`: a corpus from a recipe, cleaned, deduplicated, filtered and packed."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.known_tests import data_folder, tests_of
from qwen_eval.cli.options import command_from
from qwen_eval.cli.progress import LINE_SECONDS, eta
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import parse_bytes, say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.data.pipeline import Pipeline


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
    from qwen_eval.train.data.decontaminate import known_tests
    from qwen_eval.train.data.pipeline import Pipeline
    from qwen_eval.train.data.recipe import read_recipe

    data = data_folder(options.data)
    memory = parse_bytes("--memory", options.memory)
    if not memory:
        raise UserError(f"--memory {options.memory}: give more than nothing")
    recipe = read_recipe(find_recipe(options.recipe, "data"))
    if options.tokenizer is not None:
        pack = recipe.pack.model_copy(update={"tokenizer": str(options.tokenizer)})
        recipe = recipe.model_copy(update={"pack": pack})
    tests = tests_of(recipe.decontaminate, data) if recipe.instructions else known_tests({})
    pipeline = Pipeline(
        recipe,
        data,
        options.out,
        tests,
        memory,
        options.workers or os.cpu_count() or 1,
        _Ticker().tick,
    )
    pipeline.run()
    _show(pipeline, options.as_json)


@dataclass
class _Ticker:
    """Lines on stderr: how far a phase is, how fast it goes and when it ends."""

    phase: str = ""
    first: int = 0
    began: float = 0.0
    said: float = 0.0

    def tick(self, phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        if phase != self.phase:
            self.phase, self.first, self.began, self.said = phase, done, now, now
        live, ended = sys.stderr.isatty(), done >= total
        if not live and not ended and now - self.said < LINE_SECONDS:
            return
        self.said = now
        rate = (done - self.first) / max(now - self.began, 1e-9)
        left = "done" if ended else f"ETA {eta(total - done, rate)}"
        line = f"{phase}: {done / 1e6:.1f}/{total / 1e6:.1f} MB  {rate / 1e6:.1f} MB/s  {left}"
        end = "\r" if live and not ended else "\n"
        print(f"{line:<72}", file=sys.stderr, end=end, flush=True)


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
    from qwen_eval.train.data.pipeline import HELD_OUT
    from qwen_eval.train.data.review import judge, write_sheets
    from qwen_eval.train.data.stage import Folder
    from qwen_eval.train.data.summary import summarise

    if not what.is_dir():
        for judged in judge(what):
            print(one_line(judged.line()))
        return
    # Nobody judges a draw.
    folders = [Folder(what / name) for name in summarise(what).stages if name != HELD_OUT]
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
