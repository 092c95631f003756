"""`qwen-eval train pretrain`: a model from a packed corpus and a recipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.callbacks import Journal
    from qwen_eval.train.language_model import LanguageModel
    from qwen_eval.train.loop import Callback, Step, Trainer
    from qwen_eval.train.parallel import World
    from qwen_eval.train.pretrain import Pretraining

LINE_SECONDS = 15.0


@dataclass(frozen=True)
class PretrainOptions:
    """The options of `train pretrain`."""

    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or one of ours: tiny, qwen-1.8b, qwen-7b, qwen-14b.")
    ]
    corpus: Annotated[
        Path | None, typer.Option(help="What `train data` packed: its folder, or `packed` in it.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same one resumes.")] = (
        None
    )
    evaluate: Annotated[
        str | None, typer.Option(help="Tasks to judge the model by while it learns.")
    ] = None
    limit: Annotated[str | None, typer.Option(help="Samples per task, as in `run`.")] = None
    data: Annotated[Path | None, typer.Option(help="A data mirror for those tasks.")] = None
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text to go on with, as samples; may be repeated.")
    ] = None
    look_every: Annotated[
        int, typer.Option(min=1, help="Steps between two evaluations or samples.")
    ] = 1000
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Event files too.")] = False
    wandb: Annotated[str | None, typer.Option(help="A project of Weights & Biases to log to.")] = (
        None
    )
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take, and train nothing.")
    ] = False
    world_size: Annotated[int, typer.Option(min=1, help="GPUs of a dry run.")] = 1
    gpu_memory: Annotated[str, typer.Option(help="Memory of each of them.")] = "80GiB"
    peak_tflops: Annotated[
        float, typer.Option(help="What each can do at most; 989 is an H100's bf16.")
    ] = 989.0
    mfu: Annotated[float, typer.Option(help="The share of it that training reaches.")] = 0.4
    as_json: Annotated[
        bool, typer.Option("--json", help="Of a dry run, one JSON object last on stdout.")
    ] = False


@command_from(PretrainOptions)
def command(options: PretrainOptions) -> None:
    """Train a model on a packed corpus; the same command resumes, also under torchrun."""
    if options.dry_run:
        from qwen_eval.cli.pretrain_plan import Machine, show

        machine = Machine.asked(
            options.world_size, options.gpu_memory, options.peak_tflops, options.mfu
        )
        return show(options.recipe, machine, options.as_json)
    if options.as_json:
        raise UserError("--json: is for --dry-run; a run's figures are in log.jsonl in --out")
    if options.corpus is None or options.out is None:
        missing = "--corpus" if options.corpus is None else "--out"
        raise UserError(f"{missing}: is missing; only --dry-run does without --corpus and --out")
    return _train(options, options.corpus, options.out)


def _train(options: PretrainOptions, corpus_folder: Path, out: Path) -> None:
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.pretrain import open_corpus, prepare, read_pretraining

    recipe = read_pretraining(find_recipe(options.recipe, "pretrain"))
    packed = corpus_folder / "packed"
    folder = packed if packed.is_dir() else corpus_folder
    corpus = open_corpus(folder, recipe)
    tokenizer = folder / "tokenizer"
    if (options.evaluate or options.prompt) and not tokenizer.is_dir():
        raise UserError(f"--corpus {folder}: has no tokenizer, so the model can read no text")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror}") from error
    with joined() as world:
        extras = _Extras(options, out, recipe, world, tokenizer if tokenizer.is_dir() else None)
        trainer = prepare(recipe, corpus, out, world, extras.callbacks)
        if trainer.done and world.rank == 0:
            say(f"going on from step {trainer.done} of {trainer.steps}")
        trainer.run()
        if trainer.interrupted:
            if world.rank == 0:
                say(f"stopped after step {trainer.done}; the same command goes on")
            raise KeyboardInterrupt
        assert extras.exporter is not None
        extras.exporter(out / "model")
        if world.rank == 0:
            print(f"{out / 'model'}: judge it with `qwen-eval run --model`")


@dataclass
class _Extras:
    """The callbacks that the options ask for."""

    options: PretrainOptions
    out: Path
    recipe: Pretraining
    world: World
    tokenizer: Path | None
    exporter: Any = field(default=None, init=False)

    def callbacks(self, model: LanguageModel) -> tuple[Callback, ...]:
        from qwen_eval.train.callbacks import LOG, Judge, Log, Tell
        from qwen_eval.train.export import Exporter
        from qwen_eval.train.language_model import flops_per_token
        from qwen_eval.train.pretrain import DTYPES

        options, config = self.options, model.transformer.config
        self.exporter = Exporter(
            model.transformer, self.world, DTYPES[self.recipe.dtype], self.tokenizer
        )
        journals = self._journals() if self.world.rank == 0 else ()
        log = Log(self.out / LOG, lambda length: flops_per_token(config, length), journals)
        said: tuple[Callback, ...] = (log, Tell(_Ticker().tell))
        if not (options.evaluate or options.prompt):
            return said
        looked = self.out / "looked"
        path = self.out / "evaluation.jsonl"
        judge = Judge(options.look_every, self.exporter, looked, path, self._look, journals)
        return (*said, judge)

    def _journals(self) -> tuple[Journal, ...]:
        from qwen_eval.train.callbacks import TensorBoard, WandB

        found: list[Journal] = []
        if self.options.tensorboard:
            found.append(TensorBoard(self.out / "tensorboard"))
        if self.options.wandb:
            found.append(WandB(self.options.wandb, self.out))
        return tuple(found)

    def _look(self, model: Path, step: int) -> Mapping[str, float]:
        if self.options.prompt:
            self._write_samples(model, step)
        return self._evaluate(model, step) if self.options.evaluate else {}

    def _evaluate(self, model: Path, step: int) -> Mapping[str, float]:
        """In a process of its own: the run directory stays, its memory does not."""
        options = self.options
        out = self.out / "evaluations" / f"step-{step:08}"
        words = ["run", "--tasks", str(options.evaluate), "--model", str(model), "--out", str(out)]
        words += ["--limit", options.limit] if options.limit else []
        words += ["--data", str(options.data)] if options.data else []
        alone = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
        done = subprocess.run(
            [sys.executable, "-m", "qwen_eval", *words, "--json"],
            env=alone,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            say(f"step {step}: evaluation failed: {done.stderr.strip().splitlines()[-1:]}")
            return {}
        told = json.loads(done.stdout.splitlines()[-1])["tasks"]
        return {name: row["estimate"] for name, row in told.items() if row["estimate"] is not None}

    def _write_samples(self, model: Path, step: int) -> None:
        from qwen_eval.backends.base import BackendOptions, open_backend
        from qwen_eval.fileio import canonical_json
        from qwen_eval.types import Decoding, GenerateRequest, Prompt

        backend = open_backend("native", str(model), BackendOptions())
        prompts = self.options.prompt or []
        asked = {
            backend.submit(GenerateRequest(Prompt(prompt), Decoding(max_tokens=64))): prompt
            for prompt in prompts
        }
        with (self.out / "samples.jsonl").open("a", encoding="utf-8") as file:
            while asked:
                for number, reply in backend.step():
                    row = {"step": step, "prompt": asked.pop(number), "text": reply.text}
                    file.write(canonical_json(row) + "\n")
        backend.close()


@dataclass
class _Ticker:
    """A line on stderr every so often: step, loss, rate and time left."""

    said: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def tell(self, trainer: Trainer, step: Step) -> None:
        import time

        self.seconds = [*self.seconds[-19:], step.seconds]
        now, last = time.monotonic(), step.number == trainer.steps
        live = sys.stderr.isatty()
        if not live and not last and now - self.said < LINE_SECONDS:
            return
        self.said = now
        typical = sorted(self.seconds)[len(self.seconds) // 2]
        stage, _ = trainer.stage_of(step.number)
        rate = stage.batch * stage.feed.length / typical
        left = int(typical * (trainer.steps - step.number))
        line = (
            f"step {step.number}/{trainer.steps}  loss {step.loss:.4f}  {rate:,.0f} tokens/s  "
            f"ETA {left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        )
        print(f"{line:<78}", file=sys.stderr, end="\r" if live and not last else "\n", flush=True)
