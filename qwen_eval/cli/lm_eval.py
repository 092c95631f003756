"""`qwen-eval lm-eval`: lm-evaluation-harness's own command, with our engine among its models."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from qwen_eval.errors import UserError

# Its options are not ours: all but --help goes through as it stands.
THEIRS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


def command(
    arguments: Annotated[
        list[str], typer.Argument(help="What `lm-eval` takes; behind -- its own --help too.")
    ],
) -> None:
    """Run lm-evaluation-harness with our engine as one of its models:
    --model qwen_eval --model_args pretrained=FOLDER,dtype=float32 --tasks hellaswag
    """
    from qwen_eval.lm_eval import model

    model.register(_folder)
    from lm_eval.__main__ import cli_evaluate

    sys.argv = ["lm-eval", *arguments]
    cli_evaluate()


def _folder(name: str) -> str:
    """What `pretrained=` names, as --model of our commands would."""
    from qwen_eval.cli.names import resolve

    found = resolve(name)
    if found.backend != "native":
        raise UserError(
            f"--model_args pretrained={name}: served by {found.backend}, which is not our engine; "
            "give --model hf to lm-eval"
        )
    return found.target
