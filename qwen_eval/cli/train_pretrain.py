"""`qwen-eval train pretrain`: a model from a packed corpus and a recipe."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.training import Extras, TrainOptions
from qwen_eval.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TrainOptions):
    """The options of `train pretrain`."""

    recipe: Annotated[str, typer.Argument(help="A YAML file, or a recipe of ours: tiny.")]
    corpus: Annotated[
        Path, typer.Option(help="What `train data` packed: its folder, or `packed` in it.")
    ]


@command_from(PretrainOptions)
def command(options: PretrainOptions) -> None:
    """Train a model on a packed corpus; the same command resumes, also under torchrun."""
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.pretrain import DTYPES, open_corpus, prepare, read_pretraining

    packed = options.corpus / "packed"
    folder = packed if packed.is_dir() else options.corpus
    tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else None
    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_pretraining(find_recipe(options.recipe, "pretrain"))
            corpus = open_corpus(folder, recipe)
            if (options.evaluate or options.prompt) and tokenizer is None:
                raise UserError(
                    f"--corpus {folder}: has no tokenizer, so the model can read no text"
                )
            if world.rank == 0:
                held.enter_context(locked(options.out))
        extras = Extras(options, DTYPES[recipe.dtype], world, tokenizer, recipe.longest)
        with world.agreed():
            trainer = prepare(recipe, corpus, options.out, world, extras.callbacks)
        extras.train(trainer)
