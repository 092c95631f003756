"""`qwen-eval train pretrain`: a model from a packed corpus and a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.training import Extras, TrainOptions, make_folder
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
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.pretrain import DTYPES, open_corpus, prepare, read_pretraining

    recipe = read_pretraining(find_recipe(options.recipe, "pretrain"))
    folder = options.corpus / "packed" if (options.corpus / "packed").is_dir() else options.corpus
    corpus = open_corpus(folder, recipe)
    tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else None
    if (options.evaluate or options.prompt) and tokenizer is None:
        raise UserError(f"--corpus {folder}: has no tokenizer, so the model can read no text")
    make_folder(options.out)
    with joined() as world:
        extras = Extras(options, DTYPES[recipe.dtype], world, tokenizer)
        extras.train(prepare(recipe, corpus, options.out, world, extras.callbacks))
