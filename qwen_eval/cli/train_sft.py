"""`qwen-eval train sft`: a model that answers, from one that goes on with texts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.known_tests import data_folder, tests_of
from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import say
from qwen_eval.cli.training import Extras, TrainOptions
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.sft import Gathered


@dataclass(frozen=True, kw_only=True)
class SftOptions(TrainOptions):
    """The options of `train sft`."""

    recipe: Annotated[str, typer.Argument(help="A YAML file, or a recipe of ours: tiny-chat.")]
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one resumes.")]
    model: Annotated[str, typer.Option(help="What to tune: a folder, or a name as in `run`.")]


@command_from(SftOptions)
def command(options: SftOptions) -> None:
    """Fine-tune a model on conversations; the same command resumes, also under torchrun."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.model.weights import load_model
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.recipe import DTYPES
    from qwen_eval.train.sft import gather, prepare, read_fine_tuning

    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_fine_tuning(find_recipe(options.recipe, "sft"))
            base = own_model(options.model)
            data = data_folder(options.data)
            gathered = gather(recipe, data, tests_of(recipe.decontaminate, data))
            weights, tokenizer = load_model(base), load_tokenizer(base)
            if world.rank == 0:
                held.enter_context(locked(options.out))
                _tell(gathered)
        extras = Extras(options, options.out, DTYPES[recipe.dtype], world, base, recipe.length)
        with world.agreed():
            trainer = prepare(
                recipe,
                gathered,
                weights,
                folder_fingerprint(base),
                tokenizer,
                options.out,
                world,
                extras.callbacks,
            )
        extras.train(trainer)


def own_model(name: str) -> Path:
    """The folder of a model that can be trained. Raises UserError for other backends."""
    from qwen_eval.cli.names import resolve

    resolved = resolve(name)
    if resolved.backend != "native":
        raise UserError(f"--model {name}: only a model of our own engine can be tuned")
    return Path(resolved.target)


def _tell(gathered: Gathered) -> None:
    kept = ", ".join(f"{name} {count}" for name, count in gathered.seen.items())
    say(f"conversations: {kept}")
    for name, count in gathered.dropped.items():
        say(f"left out, with words of the test set {name}: {count}")
