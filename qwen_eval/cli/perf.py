"""`qwen-eval perf`: how fast a model runs on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from qwen_eval.cli.setup import DTYPES, check_choice, open_model
from qwen_eval.errors import UserError


def command(
    model: Annotated[str, typer.Option(help="See `qwen-eval models`.")] = "tiny",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure prompt and decoding speed, and how near that is to the machine's matrix products."""
    check_choice("--dtype", dtype, DTYPES)
    from qwen_eval.backends.base import BackendOptions
    from qwen_eval.perf import BATCHES, matmul_rate, measure

    if model.startswith("mock:"):
        raise UserError(f"--model {model}: computes nothing, so there is nothing to measure")
    backend = open_model(model, BackendOptions(dtype=dtype))
    info = backend.info()
    figures: dict[str, float] = {}
    try:
        for speed in measure(backend):
            figures[speed.name] = round(speed.rate, 1)
            print(
                f"{speed.name:12} {speed.rate:10.1f} tokens/s   "
                f"{speed.tokens} in {speed.seconds:.2f} s",
                flush=True,
            )
    finally:
        backend.close()
    if len(figures) <= len(BATCHES):
        print("larger batches are left out: they would take too long here")
    if info.device == "cpu" and info.dtype in ("float32", "bfloat16"):
        ceiling = matmul_rate(info.dtype)
        figures["matmul_gflops"] = round(ceiling / 1e9, 1)
        line = f"{'matmul':12} {ceiling / 1e9:10.1f} GFLOP/s {info.dtype}"
        if parameters := info.detail.get("parameters"):
            # Two FLOP per weight and token; attention and the vocabulary come on top.
            used = 2 * int(parameters) * figures["prefill"] / ceiling
            figures["prefill_share"] = round(used, 3)
            line += f"; prefill uses {used:.0%}"
        print(line)
    if as_json:
        print(json.dumps({"model": info.name, "dtype": info.dtype, "figures": figures}))
