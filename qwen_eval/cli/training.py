"""What the commands of training share: common options, log, progress, looks at the model."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.progress import LINE_SECONDS, eta
from qwen_eval.cli.setup import say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    import torch

    from qwen_eval.model.transformer import Transformer
    from qwen_eval.train.callbacks import Journal
    from qwen_eval.train.language_model import LanguageModel
    from qwen_eval.train.loop import Callback, Step, Trainer
    from qwen_eval.train.parallel import World
    from qwen_eval.train.ppo_loop import PPOTrainer
    from qwen_eval.train.scalar_model import ScalarModel

SAMPLE_TOKENS = 64


def own_model(name: str) -> Path:
    """The folder of a model that can be trained on. Raises UserError for one of another engine."""
    from qwen_eval.cli.names import resolve

    resolved = resolve(name)
    if resolved.backend != "native":
        raise UserError(f"--model {name}: only a model of our own engine can be tuned")
    return Path(resolved.target)


@dataclass(frozen=True, kw_only=True)
class LogOptions:
    """Options of every command that trains: where data is, and how to log."""

    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Event files too.")] = False
    wandb: Annotated[str | None, typer.Option(help="A project of Weights & Biases to log to.")] = (
        None
    )


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LogOptions):
    """Options of commands that train a language model: also when to look at it."""

    evaluate: Annotated[
        str | None, typer.Option(help="Tasks to judge the model by while it learns.")
    ] = None
    limit: Annotated[str | None, typer.Option(help="Samples per task, as in `run`.")] = None
    prompt: Annotated[
        list[str] | None, typer.Option(help="A text to go on with, as samples; may be repeated.")
    ] = None
    look_every: Annotated[
        int, typer.Option(min=1, help="Steps between two evaluations or samples.")
    ] = 1000


@dataclass
class Run:
    """A training run: its log, its progress, its steps, and the model that is written at the end.

    dtype: of the weights that are written. tokenizer: the folder whose tokenizer goes beside them.
    merge: see Exporter.
    """

    options: LogOptions
    out: Path
    dtype: torch.dtype
    world: World
    tokenizer: Path | None
    merge: Callable[[dict[str, Any]], dict[str, Any]] = field(default=dict, kw_only=True)
    exporter: Any = field(default=None, init=False)
    journals: tuple[Journal, ...] = field(default=(), init=False)
    next_step = "judge it with `qwen-eval run --model`"

    def logged(
        self, model: Transformer | ScalarModel, flops: Callable[[int], float]
    ) -> tuple[Callback, ...]:
        """Log and progress of a model whose weights are shared out. flops: see callbacks.Log."""
        from qwen_eval.train.callbacks import LOG, Log, Tell
        from qwen_eval.train.export import Exporter

        self.exporter = Exporter(model, self.world, self.dtype, self.tokenizer, self.merge)
        self.open_journals()
        return Log(self.out / LOG, flops, self.journals), Tell(_Ticker().tell)

    def open_journals(self) -> None:
        """Those that the options name. Raises UserError for one that is not installed."""
        with self.world.agreed():
            self.journals = self._journals() if self.world.rank == 0 else ()

    def train(self, trainer: Trainer | PPOTrainer) -> None:
        """Run all steps and write the model. Raises KeyboardInterrupt after a state is saved."""
        first = self.world.rank == 0
        if trainer.done and first:
            whole = trainer.done == trainer.steps
            here = f"going on from step {trainer.done} of {trainer.steps}"
            say(f"all {trainer.steps} steps are done, the model is written" if whole else here)
        trainer.run()
        if trainer.interrupted:
            if first:
                say(f"stopped after step {trainer.done}; the same command goes on")
            raise KeyboardInterrupt
        self.exporter(self.out / "model")
        if first:
            print(f"{self.out / 'model'}: {self.next_step}")

    def _journals(self) -> tuple[Journal, ...]:
        from qwen_eval.train.callbacks import TensorBoard, WandB

        found: list[Journal] = []
        if self.options.tensorboard:
            found.append(TensorBoard(self.out / "tensorboard"))
        if self.options.wandb:
            found.append(WandB(self.options.wandb, self.out))
        return tuple(found)


@dataclass
class Extras(Run):
    """A run that also looks at its language model now and then. context: tokens of the longest
    sequences."""

    options: TrainOptions
    context: int

    def callbacks(self, model: LanguageModel) -> tuple[Callback, ...]:
        """Of a model whose weights are shared out."""
        from qwen_eval.train.callbacks import Judge
        from qwen_eval.train.language_model import flops_per_token

        config = model.transformer.config
        said = self.logged(model.transformer, lambda length: flops_per_token(config, length))
        if not (self.options.evaluate or self.options.prompt):
            return said
        looked = self.out / "looked"
        path = self.out / "evaluation.jsonl"
        every = self.options.look_every
        judge = Judge(every, self.exporter, looked, path, self._look, self.journals)
        return (*said, judge)

    def _look(self, model: Path, step: int) -> Mapping[str, float]:
        if self.options.prompt:
            self._write_samples(model, step)
        return self._evaluate(model, step) if self.options.evaluate else {}

    def _evaluate(self, model: Path, step: int) -> Mapping[str, float]:
        """In a process of its own: the run directory stays, its memory does not."""
        from qwen_eval.train.parallel import environment_alone

        options = self.options
        out = self.out / "evaluations" / f"step-{step:08}"
        # What a broken run left there judges weights that are no more.
        shutil.rmtree(out, ignore_errors=True)
        words = ["run", "--tasks", str(options.evaluate), "--model", str(model), "--out", str(out)]
        words += ["--limit", options.limit] if options.limit else []
        words += ["--data", str(options.data)] if options.data else []
        done = subprocess.run(
            [sys.executable, "-m", "qwen_eval", *words, "--json"],
            env=environment_alone(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            say(f"step {step}: evaluation failed, training goes on: {why}")
            return {}
        told = json.loads(done.stdout.splitlines()[-1])["tasks"]
        return {name: row["overall"]["estimate"] for name, row in told.items() if row["overall"]}

    def _write_samples(self, model: Path, step: int) -> None:
        from qwen_eval.backends.base import BackendOptions, open_backend
        from qwen_eval.train.callbacks import cut_after, write_line
        from qwen_eval.types import Decoding, GenerateRequest, Prompt

        backend = open_backend("native", str(model), BackendOptions())
        decoding = Decoding(max_tokens=min(SAMPLE_TOKENS, self.context // 2))
        asked = {
            backend.submit(GenerateRequest(Prompt(prompt), decoding)): prompt
            for prompt in self.options.prompt or []
        }
        path = self.out / "samples.jsonl"
        cut_after(path, step - 1)
        while asked:
            for number, reply in backend.step():
                row = {"step": step, "prompt": asked.pop(number), "text": reply.text}
                write_line(path, row | ({"error": reply.error} if reply.error else {}))
        backend.close()


@dataclass
class _Ticker:
    """A line on stderr every so often: step, loss, rate and time left."""

    said: float = 0.0
    seconds: list[float] = field(default_factory=list)

    def tell(self, trainer: Trainer, step: Step) -> None:
        self.seconds = [*self.seconds[-19:], step.seconds]
        now, last = time.monotonic(), step.number == trainer.steps
        live = sys.stderr.isatty()
        if not live and not last and now - self.said < LINE_SECONDS:
            return
        self.said = now
        typical = sorted(self.seconds)[len(self.seconds) // 2]
        stage = trainer.stage_of(step.number)
        rate = stage.batch * stage.feed.length / typical
        line = (
            f"step {step.number}/{trainer.steps}  loss {step.loss:.4f}  {rate:,.0f} tokens/s  "
            f"ETA {eta(trainer.steps - step.number, 1 / typical)}"
        )
        print(f"{line:<78}", file=sys.stderr, end="\r" if live and not last else "\n", flush=True)
