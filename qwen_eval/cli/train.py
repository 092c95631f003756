"""`qwen-eval train`: from raw text to a model; every step is a command of its own file."""

from __future__ import annotations

import typer

from qwen_eval.cli import (
    train_comparisons,
    train_data,
    train_ppo,
    train_ppo_report,
    train_pretrain,
    train_reward,
    train_reward_report,
    train_self_instruct,
    train_sft,
    train_tokenizer,
)

app = typer.Typer(
    help="Make what a model is made of: a corpus, a vocabulary, weights.", no_args_is_help=True
)
app.command("data")(train_data.command)
app.command("data-review")(train_data.review)
app.command("data-scorer")(train_data.scorer)
app.command("tokenizer")(train_tokenizer.command)
app.command("tokenizer-report")(train_tokenizer.report)
app.command("pretrain")(train_pretrain.command)
app.command("sft")(train_sft.command)
app.command("reward")(train_reward.command)
app.command("reward-report")(train_reward_report.command)
app.command("comparisons")(train_comparisons.command)
app.command("self-instruct")(train_self_instruct.command)
app.command("ppo")(train_ppo.command)
app.command("ppo-report")(train_ppo_report.command)
