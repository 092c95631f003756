"""`qwen-eval train ppo`: a model whose answers a reward model prefers, from one that answers."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.known_tests import data_folder, tests_of
from qwen_eval.cli.options import command_from
from qwen_eval.cli.progress import LINE_SECONDS, eta
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import say
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.callbacks import Journal
    from qwen_eval.train.experience import Figures
    from qwen_eval.train.parallel import World
    from qwen_eval.train.ppo import PPO, Begun
    from qwen_eval.train.ppo_loop import PPOTrainer
    from qwen_eval.train.queries import Queries

PLOT = "ppo.svg"
TITLES = {
    "reward": "reward",
    "score": "reward, normalised",
    "kl": "KL to the reference, nats per reply",
    "entropy": "entropy, nats per token",
    "length": "tokens of a reply",
    "missing_end": "share without an end",
    "policy_loss": "policy loss",
    "clip_fraction": "share of steps clipped",
    "value_loss": "value loss",
    "explained_variance": "variance of returns explained",
    "ptx_loss": "loss of texts, nats per token",
    "rollout_seconds": "seconds of drawing",
}


@dataclass(frozen=True, kw_only=True)
class PPOOptions:
    """The options of `train ppo`."""

    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or one of ours: tiny-ppo, smollm2, qwen.")
    ]
    model: Annotated[str, typer.Option(help="What learns: a folder, or a name as in `run`.")]
    reward: Annotated[Path, typer.Option(help="What `train reward` wrote: its folder `model`.")]
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one resumes.")]
    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    corpus: Annotated[
        Path | None, typer.Option(help="What `train data` packed, for the pretraining gradient.")
    ] = None
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Event files too.")] = False
    wandb: Annotated[str | None, typer.Option(help="A project of Weights & Biases to log to.")] = (
        None
    )


@command_from(PPOOptions)
def command(options: PPOOptions) -> None:
    """Train a model on a reward model's judgement; the same command resumes, under torchrun too."""
    from qwen_eval.train.callbacks import LOG
    from qwen_eval.train.data.pack import PackedCorpus
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.export import Exporter
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.ppo import prepare, read_ppo
    from qwen_eval.train.ppo_log import PPOLog
    from qwen_eval.train.recipe import DTYPES

    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_ppo(find_recipe(options.recipe, "ppo"))
            base = own_model(options.model)
            corpus = None
            if options.corpus is not None:
                packed = options.corpus / "packed"
                folder = packed if packed.is_dir() else options.corpus
                corpus = PackedCorpus(folder, verify=True)
            begun = begin_with(base, options.reward)
            queries = queries_of(recipe, begun, options.data, tell=world.rank == 0)
            if world.rank == 0:
                held.enter_context(locked(options.out))
            journals = _journals(options, world)
        log = PPOLog(options.out / LOG, _Ticker(options.out).tell, journals)
        held.callback(log.close)
        with world.agreed():
            trainer = prepare(recipe, begun, queries, corpus, options.out, world, [log])
        _run(trainer, options.out)
        policy = trainer.models.policy.transformer
        Exporter(policy, world, DTYPES[recipe.dtype], base)(options.out / "model")
        if world.rank == 0:
            print(f"{options.out / 'model'}: judge it with `qwen-eval run --model`")


def own_model(name: str) -> Path:
    """The folder of a model that our engine runs. Raises UserError for any other."""
    from qwen_eval.cli.names import resolve

    resolved = resolve(name)
    if resolved.backend != "native":
        raise UserError(f"--model {name}: only a model of our own engine can be tuned")
    return Path(resolved.target)


def begin_with(base: Path, reward: Path) -> Begun:
    """A model and its reward model, which must read the same tokens. Raises UserError."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.model.weights import load_model
    from qwen_eval.train.ppo import Begun
    from qwen_eval.train.scalar_model import load_scalar_model

    tokenizer = load_tokenizer(base)
    judge = load_scalar_model(reward)
    if load_tokenizer(reward).fingerprint != tokenizer.fingerprint:
        raise UserError(f"--reward {reward}: has another tokenizer than {base}")
    fingerprints = folder_fingerprint(base), folder_fingerprint(reward)
    return Begun(load_model(base), judge, tokenizer, fingerprints)


def queries_of(recipe: PPO, begun: Begun, data: Path | None, *, tell: bool) -> Queries:
    """What a recipe asks, and a word on what was left out."""
    from qwen_eval.train.ppo import longest_prompt
    from qwen_eval.train.queries import gather_queries

    longest = longest_prompt(recipe, begun.base, begun.reward)
    folder = data_folder(data)
    tests = tests_of(recipe.decontaminate, folder)
    found = gather_queries(recipe.prompts, recipe.held_out, folder, tests, begun.tokenizer, longest)
    if tell:
        kept = ", ".join(f"{name} {count}" for name, count in found.kept.items())
        say(f"prompts: {kept}; {len(found.held_out)} of them are held out")
        if found.repeated:
            say(f"left out, asked before: {found.repeated}")
        if found.too_long:
            say(f"left out, longer than {longest} tokens: {found.too_long}")
        for name, count in found.contaminated.items():
            say(f"left out, with words of the test set {name}: {count}")
    return found


def _run(trainer: PPOTrainer, out: Path) -> None:
    first = trainer.world.rank == 0
    if trainer.done and first:
        whole = trainer.done == trainer.steps
        here = f"going on from step {trainer.done} of {trainer.steps}"
        say(f"all {trainer.steps} steps are done, the model is written" if whole else here)
    try:
        trainer.run()
    finally:
        if first:
            draw(out)
    if trainer.interrupted:
        if first:
            say(f"stopped after step {trainer.done}; the same command goes on")
        raise KeyboardInterrupt


def draw(out: Path) -> None:
    """The curves of a run's log, beside it. Raises UserError if the disk refuses."""
    from qwen_eval.fileio import read_jsonl, write_atomic
    from qwen_eval.reports.learning_curves import curves
    from qwen_eval.train.callbacks import LOG

    if (out / LOG).exists():
        rows = list(read_jsonl(out / LOG, torn_end=True))
        write_atomic(out / PLOT, curves(rows, TITLES))


def _journals(options: PPOOptions, world: World) -> tuple[Journal, ...]:
    from qwen_eval.train.callbacks import TensorBoard, WandB

    found: list[Journal] = []
    if world.rank == 0 and options.tensorboard:
        found.append(TensorBoard(options.out / "tensorboard"))
    if world.rank == 0 and options.wandb:
        found.append(WandB(options.wandb, options.out))
    return tuple(found)


@dataclass
class _Ticker:
    """A line on stderr every so often, and the curves."""

    out: Path
    said: float = 0.0
    began: float = field(default_factory=time.monotonic)
    before: int | None = None

    def tell(self, step: int, steps: int, figures: Figures) -> None:
        if self.before is None:
            self.before, self.began = step, time.monotonic()
        now, last = time.monotonic(), step == steps
        live = sys.stderr.isatty()
        if not live and not last and now - self.said < LINE_SECONDS:
            return
        if now - self.said >= LINE_SECONDS:
            draw(self.out)
        self.said = now
        rate = (step - self.before) / max(now - self.began, 1e-9)
        reward = figures["reward"]
        told = "none" if reward is None else f"{reward:.3f}"
        line = (
            f"step {step}/{steps}  reward {told}  KL {figures['kl']:.3f}  {rate:.2f} steps/s  "
            f"ETA {eta(steps - step, rate)}"
        )
        print(f"{line:<78}", file=sys.stderr, end="\r" if live and not last else "\n", flush=True)
