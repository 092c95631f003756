"""`qwen-eval convert`: a tuned model as a small delta over its base."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import parse_bytes
from qwen_eval.errors import UserError


@dataclass(frozen=True)
class ConvertOptions:
    """The options of `convert`."""

    model: Annotated[Path, typer.Argument(help="The folder of the tuned model.")]
    delta_from: Annotated[Path, typer.Option(help="The folder of the model it was made from.")]
    out: Annotated[Path, typer.Option(help="Folder of the delta; the base is named from here.")]
    size: Annotated[str, typer.Option(help="At most so much for its file.")] = "3MiB"


@command_from(ConvertOptions)
def command(options: ConvertOptions) -> None:
    """Keep of a tuned model what it adds to its base, cut to a size; says how much that holds."""
    from qwen_eval.model.delta import DELTA, low_rank, share_held, write_delta
    from qwen_eval.model.tokenizer import tokenizer_files
    from qwen_eval.model.weights import load_model

    budget = parse_bytes("--size", options.size)
    assert budget is not None
    base, tuned = load_model(options.delta_from), load_model(options.model)
    tensors = low_rank(base, tuned, budget)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for path in [options.model / "config.json", *tokenizer_files(options.model)]:
            shutil.copyfile(path, options.out / path.name)
        write_delta(tensors, options.out, os.path.relpath(options.delta_from, options.out))
    except OSError as error:
        raise UserError(f"--out {options.out}: {error.strerror}") from error
    size = (options.out / DELTA).stat().st_size / 2**20
    held = share_held(base, tuned, load_model(options.out))
    print(f"{options.out}: {size:.2f} MiB hold {held:.1%} of the difference (squared)")
