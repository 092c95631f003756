"""`qwen-eval train sft`: a model that answers, from one that goes on with texts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.known_tests import data_folder, tests_of
from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import say
from qwen_eval.cli.training import Extras, TrainOptions, own_model

if TYPE_CHECKING:
    from qwen_eval.train.conversations import Packed
    from qwen_eval.train.sft import Gathered


@dataclass(frozen=True, kw_only=True)
class SftOptions(TrainOptions):
    """The options of `train sft`."""

    recipe: Annotated[str, typer.Argument(help="A YAML file, or a recipe of ours, as tiny-chat.")]
    out: Annotated[Path, typer.Option(help="Folder of the run; the same one resumes.")]
    model: Annotated[str, typer.Option(help="What to tune: a folder, or a name as in `run`.")]


@command_from(SftOptions)
def command(options: SftOptions) -> None:
    """Fine-tune a model on conversations; the same command resumes, also under torchrun."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.cli.tool_prompts import tool_prompts
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.model.weights import load_model
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.lora import merged
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.recipe import DTYPES
    from qwen_eval.train.sft import gather, lay_out, prepare, read_fine_tuning

    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_fine_tuning(find_recipe(options.recipe, "sft"))
            base = own_model(options.model)
            data = data_folder(options.data)
            known = tests_of(recipe.decontaminate, data)
            gathered = gather(recipe, data, known, tool_prompts())
            packed = lay_out(recipe, gathered, load_tokenizer(base))
            weights = load_model(base)
            if world.rank == 0:
                held.enter_context(locked(options.out))
                _tell(gathered, packed, recipe.length)
        extras = Extras(
            options,
            options.out,
            DTYPES[recipe.dtype],
            world,
            base,
            recipe.length,
            merge=partial(merged, scale=recipe.lora.scale) if recipe.lora else dict,
        )
        with world.agreed():
            origin = f"{gathered.digest()} {folder_fingerprint(base)}"
            trainer = prepare(recipe, packed, weights, origin, options.out, world, extras.callbacks)
        extras.train(trainer)


def _tell(gathered: Gathered, packed: Packed, length: int) -> None:
    kept = ", ".join(f"{name} {count}" for name, count in gathered.seen.items())
    say(f"conversations: {kept}; {len(packed.ids_NL)} sequences of {length} tokens")
    for name, count in gathered.dropped.items():
        say(f"left out, with words of the test set {name}: {count}")
    if packed.left_out:
        say(f"left out, no answer within {length} tokens: {packed.left_out}")
    if packed.cut:
        say(f"cut at their end, longer than {length} tokens: {packed.cut}")
