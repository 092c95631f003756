"""What the commands of `annotate` share: their options, and opening a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from qwen_eval.human_eval_ui.store.store import Store

DEFAULT = Path("study")

StudyFolder = Annotated[Path, typer.Argument(help="The study's folder.")]
Database = Annotated[
    str | None,
    typer.Option(envvar="QWEN_EVAL_DATABASE", help="PostgreSQL address; else study.db there."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")]


def open_study(folder: Path, database: str | None) -> Store:
    """A study with its votes. Raises UserError where either cannot be read."""
    from qwen_eval.human_eval_ui.store.store import open_store
    from qwen_eval.human_eval_ui.study.spec import read_study

    return open_store(read_study(folder), database)
