"""`qwen-eval train reward`: a model that says how good an answer is, from pairs of answers."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from qwen_eval.cli.known_tests import data_folder, tests_of
from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import say
from qwen_eval.cli.training import LogOptions, Run, own_model

if TYPE_CHECKING:
    from qwen_eval.train.loop import Callback
    from qwen_eval.train.reward import Gathered
    from qwen_eval.train.scalar_model import ScalarModel


@dataclass(frozen=True, kw_only=True)
class RewardOptions(LogOptions):
    """The options of `train reward`."""

    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or one of ours: tiny-pmp, tiny-rm, qwen-pmp, …")
    ]
    model: Annotated[
        str, typer.Option(help="What to begin with: a chat model, or a reward model's folder.")
    ]
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one resumes.")]
    half: Annotated[
        Literal["a", "b"] | None,
        typer.Option(help="Learn from half of the prompts only; the two share none."),
    ] = None


class RewardRun(Run):
    """A run whose model scores answers."""

    next_step = "measure it with `qwen-eval train reward-report`"

    def callbacks(self, model: ScalarModel) -> tuple[Callback, ...]:
        """Of a model whose weights are shared out."""
        from qwen_eval.train.scalar_model import flops_per_token

        config = model.transformer.config
        # The tokens of a pair are those of two conversations.
        return self.logged(model, lambda length: flops_per_token(config, length // 2))


@command_from(RewardOptions)
def command(options: RewardOptions) -> None:
    """Train a reward model on pairs of answers; the same command resumes, also under torchrun."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.train.data.recipe import digest
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.recipe import DTYPES
    from qwen_eval.train.reward import gather, load_base, prepare, read_reward_training

    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_reward_training(find_recipe(options.recipe, "reward"))
            if options.half:
                recipe = recipe.half(options.half)
            folder = own_model(options.model)
            data = data_folder(options.data)
            base, tokenizer = load_base(folder), load_tokenizer(folder)
            tests = tests_of(recipe.decontaminate, data)
            gathered = gather(recipe.pairs, data, tokenizer, recipe.length, recipe.faulty, tests)
            if world.rank == 0:
                held.enter_context(locked(options.out))
                _tell(gathered)
        run = RewardRun(options, options.out, DTYPES[recipe.dtype], world, folder)
        with world.agreed():
            key = digest(gathered.digest(), folder_fingerprint(folder))
            trainer = prepare(recipe, gathered.all, key, base, options.out, world, run.callbacks)
        run.train(trainer)


def _tell(gathered: Gathered) -> None:
    kept = ", ".join(f"{name} {len(pairs)}" for name, pairs in gathered.pairs.items())
    say(f"pairs: {kept}")
    for cause, count in gathered.left_out.items():
        say(f"left out, {cause}: {count}")
