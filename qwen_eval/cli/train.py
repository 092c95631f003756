"""`qwen-eval train`: the steps from raw text to a trained model."""

from __future__ import annotations

import typer

from qwen_eval.cli import train_data

app = typer.Typer(help="Make corpora and train models.", no_args_is_help=True)
app.command("data")(train_data.command)
app.command("data-review")(train_data.review)
app.command("data-scorer")(train_data.scorer)
