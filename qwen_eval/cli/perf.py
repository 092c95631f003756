"""`qwen-eval perf`: how fast a model runs on this machine."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from qwen_eval.cli.setup import DTYPES, check_choice, open_model


def command(
    model: Annotated[str, typer.Option(help="See `qwen-eval models`.")] = "smollm2",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Measure prompt and decoding speed, and how near that is to the machine's matrix products."""
    check_choice("--dtype", dtype, DTYPES)
    from qwen_eval.backends.base import BackendOptions
    from qwen_eval.perf import matmul_rate, measure

    backend = open_model(model, BackendOptions(dtype=dtype))
    info = backend.info()
    speeds = measure(backend)
    backend.close()
    figures: dict[str, float] = {speed.name: round(speed.rate, 1) for speed in speeds}
    for speed in speeds:
        print(
            f"{speed.name:12} {speed.rate:10.1f} tokens/s   {speed.tokens} in {speed.seconds:.2f} s"
        )
    if info.device == "cpu" and info.dtype in ("float32", "bfloat16"):
        ceiling = matmul_rate(info.dtype)
        # Two FLOP per weight and token; attention and the vocabulary come on top.
        used = 2 * int(info.detail.get("parameters", 0)) * speeds[0].rate
        figures |= {
            "matmul_gflops": round(ceiling / 1e9, 1),
            "prefill_share": round(used / ceiling, 3),
        }
        print(
            f"{'matmul':12} {ceiling / 1e9:10.1f} GFLOP/s {info.dtype}; "
            f"prefill uses {used / ceiling:.0%}"
        )
    if as_json:
        print(json.dumps({"model": info.name, "dtype": info.dtype, "figures": figures}))
