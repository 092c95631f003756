"""`qwen-eval train pretrain`: a model from a packed corpus and a recipe."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.training import Extras, TrainOptions, own_model
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.model.transformer import Transformer
    from qwen_eval.train.data.pack import PackedCorpus


@dataclass(frozen=True, kw_only=True)
class PretrainOptions(TrainOptions):
    """The options of `train pretrain`."""

    recipe: Annotated[
        str, typer.Argument(help="A YAML file, or one of ours: tiny, qwen-1.8b, qwen-7b, qwen-14b.")
    ]
    model: Annotated[
        str | None, typer.Option(help="The model to go on from: a folder, or a name as in `run`.")
    ] = None
    corpus: Annotated[
        Path | None, typer.Option(help="What `train data` packed: its folder, or `packed` in it.")
    ] = None
    out: Annotated[Path | None, typer.Option(help="Folder of the run; the same one resumes.")] = (
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


def _train(options: PretrainOptions, given: Path, out: Path) -> None:
    from qwen_eval.train.data.stage import locked
    from qwen_eval.train.parallel import joined
    from qwen_eval.train.pretrain import check_base, open_corpus, prepare, read_pretraining
    from qwen_eval.train.recipe import DTYPES

    folder = given / "packed" if (given / "packed").is_dir() else given
    tokenizer = folder / "tokenizer" if (folder / "tokenizer").is_dir() else None
    with joined() as world, ExitStack() as held:
        with world.agreed():
            recipe = read_pretraining(find_recipe(options.recipe, "pretrain"))
            corpus = open_corpus(folder, recipe)
            base = _base(options.model, corpus) if options.model else None
            check_base(recipe, base[0].config if base else None)
            if (options.evaluate or options.prompt) and tokenizer is None:
                raise UserError(
                    f"--corpus {folder}: has no tokenizer, so the model can read no text"
                )
            if world.rank == 0:
                held.enter_context(locked(out))
        extras = Extras(options, out, DTYPES[recipe.dtype], world, tokenizer, recipe.longest)
        with world.agreed():
            trainer = prepare(recipe, corpus, out, world, extras.callbacks, base)
        extras.train(trainer)


def _base(name: str, corpus: PackedCorpus) -> tuple[Transformer, str]:
    """A model and a hash of its files. Raises UserError where it reads other tokens than those of
    the corpus."""
    from qwen_eval.backends.base import folder_fingerprint
    from qwen_eval.model.tokenizer import load_tokenizer
    from qwen_eval.model.weights import load_model

    folder = own_model(name)
    if load_tokenizer(folder).fingerprint != corpus.manifest["tokenizer"]:
        raise UserError(
            f"--corpus {corpus.folder}: packed with another tokenizer than that of --model; "
            f"pack it with `train data --tokenizer {folder}`"
        )
    return load_model(folder), folder_fingerprint(folder)
