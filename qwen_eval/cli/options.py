"""Command-line options as a dataclass: one place for names, help and defaults of a command."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

Options = TypeVar("Options")
DataFolder = Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")]
TaskPath = Annotated[
    list[Path] | None,
    typer.Option(envvar="QWEN_EVAL_TASK_PATH", help="A folder of your own tasks: NAME/task.yaml."),
]


def command_from(options: type[Options]) -> Callable[[Callable[[Options], None]], Any]:
    """Make a Typer command of a function over a dataclass of Annotated fields.

    Every field becomes an option of the same name; `tasks: Annotated[str, typer.Option(...)]`.
    """
    hints = get_type_hints(options, include_extras=True)

    def decorate(function: Callable[[Options], None]) -> Callable[..., None]:
        def command(**values: Any) -> None:
            function(options(**values))

        command.__doc__ = function.__doc__
        command.__name__ = function.__name__
        command.__annotations__ = hints
        command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.KEYWORD_ONLY,
                    annotation=hints[field.name],
                    default=inspect.Parameter.empty if field.default is MISSING else field.default,
                )
                for field in fields(options)  # type: ignore[arg-type]
            ]
        )
        return command

    return decorate
