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
from qwen_eval.cli.training import LogOptions, Run, own_model
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.model.tokenizer import Tokenizer
    from qwen_eval.model.transformer import Transformer
    from qwen_eval.train.data.decontaminate import KnownTests
    from qwen_eval.train.data.pack import PackedCorpus
    from qwen_eval.train.experience import Figures
    from qwen_eval.train.ppo import PPO, Begun
    from qwen_eval.train.ppo_log import PPOLog
    from qwen_eval.train.queries import Queries
    from qwen_eval.train.scalar_model import ScalarModel

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
class PPOOptions(LogOptions):
    """The options of `train ppo`."""

    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or one of ours: tiny-ppo, smollm2, qwen.")
    ]
    model: Annotated[str, typer.Option(help="What learns: a folder, or a name as in `run`.")]
    reward: Annotated[Path, typer.Option(help="What `train reward` wrote: its folder `model`.")]
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one resumes.")]
    corpus: Annotated[
        Path | None, typer.Option(help="What `train data` packed, for the pretraining gradient.")
    ] = None


class PPORun(Run):
    """A run whose model learns from rewards."""

    def watchers(self, policy: Transformer) -> list[PPOLog]:
        """Of a policy whose weights are shared out."""
        from qwen_eval.train.callbacks import LOG
        from qwen_eval.train.export import Exporter
        from qwen_eval.train.ppo_log import PPOLog

        self.exporter = Exporter(policy, self.world, self.dtype, self.tokenizer)
        self.open_journals()
        return [PPOLog(self.out / LOG, _Ticker(self.out).tell, self.journals)]


@command_from(PPOOptions)
def command(options: PPOOptions) -> None:
    """Train a model on a reward model's judgement; the same command resumes, under torchrun too."""
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.ppo import prepare, read_ppo
    from qwen_eval.train.recipe import DTYPES

    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_ppo(find_recipe(options.recipe, "ppo"))
            folder = own_model(options.model)
            corpus = None if options.corpus is None else _packed(options.corpus)
            begun = begin_with(folder, options.reward)
            data = data_folder(options.data)
            tests = tests_of(recipe.decontaminate, data)
            queries = queries_of(recipe, begun, data, tests, tell=world.rank == 0)
            if world.rank == 0:
                held.enter_context(locked(options.out))
        run = PPORun(options, options.out, DTYPES[recipe.dtype], world, folder)
        with world.agreed():
            trainer = prepare(recipe, begun, queries, corpus, options.out, world, run.watchers)
        if world.rank == 0:
            held.callback(draw, options.out)
        run.train(trainer)


def _packed(corpus: Path) -> PackedCorpus:
    from qwen_eval.train.data.pack import PackedCorpus

    return PackedCorpus(corpus / "packed" if (corpus / "packed").is_dir() else corpus, verify=True)


def begin_with(base: Path, reward: Path) -> Begun:
    """A model and its reward model. Raises UserError for what is none."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.model.weights import load_model
    from qwen_eval.train.ppo import Begun

    tokenizer = load_tokenizer(base)
    judge = judge_of(reward, tokenizer)
    fingerprints = folder_fingerprint(base), folder_fingerprint(reward)
    return Begun(load_model(base), judge, tokenizer, fingerprints)


def judge_of(folder: Path, tokenizer: Tokenizer) -> ScalarModel:
    """A reward model that reads the same tokens as a policy. Raises UserError for any other."""
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.train.scalar_model import load_scalar_model

    judge = load_scalar_model(folder)
    if load_tokenizer(folder).fingerprint != tokenizer.fingerprint:
        raise UserError(f"{folder}: has another tokenizer than --model; both must have the same")
    return judge


def queries_of(recipe: PPO, begun: Begun, data: Path, tests: KnownTests, *, tell: bool) -> Queries:
    """What a recipe asks, and a word on what was left out."""
    from qwen_eval.train.ppo import longest_prompt
    from qwen_eval.train.queries import gather_queries

    longest = longest_prompt(recipe, begun.base, begun.reward)
    found = gather_queries(recipe.prompts, recipe.held_out, data, tests, begun.tokenizer, longest)
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


def draw(out: Path) -> None:
    """The curves of a run's log, beside it. Raises UserError if the disk refuses."""
    from qwen_eval.fileio import read_jsonl, write_atomic
    from qwen_eval.reports.learning_curves import curves
    from qwen_eval.train.callbacks import LOG

    if (out / LOG).exists():
        rows = list(read_jsonl(out / LOG, torn_end=True))
        write_atomic(out / PLOT, curves(rows, TITLES))


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
