"""What this machine could do at most with a model's own shapes, and how near our engine comes.

    python -m bench.roofline

Prefill is held against the model's matrix products alone, in passes of the engine's size; decoding
against reading the weights once per step at the memory's speed. Ceilings are measured in the same
rounds as what is held against them, and medians are printed: a shared machine's speed drifts.
"""

from __future__ import annotations

import argparse
import random
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from qwen_eval.model import smollm2
from qwen_eval.model.engine import Engine, Generate, Sampling, ScoreContinuations
from qwen_eval.model.engine.passes import prompt_rows
from qwen_eval.model.fused import fuse
from qwen_eval.model.transformer import Block
from qwen_eval.model.weights import load_model

PROMPT_ROWS = prompt_rows(torch.device("cpu"))
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
PASSES = 3  # of prompts in a round
STEPS = 24  # of decoding in a round
BATCHES = (1, 8, 32)


def main() -> None:
    """Print ceilings, rates and shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    model = fuse(load_model(options.model, DTYPES[options.dtype]))
    config, dtype = model.config, model.embedding.weight.dtype
    engine = Engine(model, prefixes=False, drafts=False)
    weights = config.num_layers * (
        config.hidden_size * (2 * config.num_heads + 2 * config.num_kv_heads) * config.head_dim
        + 3 * config.hidden_size * config.ffn_size
    )
    large = torch.randn(2**27)
    work: dict[str, Callable[[], float]] = {
        "products": products(model.blocks[0], dtype),
        "read": lambda: timed(large.sum),
        "prefill": lambda: prefill(engine),
    }
    work |= {f"decode x{batch}": lambda batch=batch: decode(engine, batch) for batch in BATCHES}
    seconds: dict[str, list[float]] = {name: [] for name in work}
    with torch.inference_mode():
        for task in work.values():
            task()
        for _ in range(options.rounds):
            for name, task in work.items():
                seconds[name].append(task())
    median = {name: statistics.median(values) for name, values in seconds.items()}
    limit = PROMPT_ROWS / (config.num_layers * median["products"])
    rate = PASSES * PROMPT_ROWS / median["prefill"]
    speed = large.nbytes / median["read"]
    held = (weights + config.vocab_size * config.hidden_size) * dtype.itemsize
    print(f"{options.model.name}, {options.dtype}, {torch.get_num_threads()} threads, median of "
          f"{options.rounds} rounds")  # fmt: skip
    print(f"products    {2 * weights * limit / 1e9:8.1f} GFLOP/s at {PROMPT_ROWS} rows")
    print(f"memory      {speed / 1e9:8.1f} GB/s read")
    print(f"prefill     {rate:8.1f} tokens/s, {rate / limit:.0%} of what the products allow")
    for batch in BATCHES:
        step = median[f"decode x{batch}"] / STEPS
        print(f"decode x{batch:<3} {batch / step:8.1f} tokens/s, a step takes {step * 1e3:.1f} ms; "
              f"reading all weights is {held / speed / step:.0%} of it")  # fmt: skip
    print(f"peak        {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8.0f} MiB")


def timed(task: Callable[[], object]) -> float:
    """Seconds of wall time."""
    began = time.perf_counter()
    task()
    return time.perf_counter() - began


def products(block: Block, dtype: torch.dtype) -> Callable[[], float]:
    """One layer's matrix products over one full pass, and nothing between them."""
    layers = (
        block.attention.qkv_proj,
        block.attention.o_proj,
        block.ffn.gate_proj,
        block.ffn.up_proj,
        block.ffn.down_proj,
    )
    widths = (layer.inputs for layer in layers)
    rows = [torch.randn(PROMPT_ROWS, width).to(dtype) for width in widths]

    def run() -> None:
        for _ in range(8):
            for layer, x in zip(layers, rows, strict=True):
                layer(x)

    return lambda: timed(run) / 8


def line(length: int) -> tuple[int, ...]:
    """Random ids, so that no prefix is shared and nothing repeats."""
    return tuple(random.randrange(1000, 20000) for _ in range(length))


def prefill(engine: Engine) -> float:
    """Seconds for prompts of one pass each, of which one row meets the vocabulary."""
    work = [ScoreContinuations(line(PROMPT_ROWS), ((5,),)) for _ in range(PASSES)]
    return timed(lambda: engine.run(work))


def decode(engine: Engine, batch: int) -> float:
    """Seconds of STEPS steps in which `batch` short texts grow by one token each."""
    for _ in range(batch):
        engine.submit(Generate(line(12), Sampling(max_tokens=STEPS + 1)))
    engine.step()  # reads all prompts
    seconds = timed(lambda: [engine.step() for _ in range(STEPS)])
    assert not engine.pending
    return seconds


if __name__ == "__main__":
    main()
