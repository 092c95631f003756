"""What a long context costs, with and without windows, and in transformers.

    python -m bench.long_context [--length 32768] [--rounds 1]

Each row is a process of its own that reads one text of random ids to its end and scores every
token: ours through the engine (dynamic NTK and LogN; full attention, then the windows of our
schedule), transformers in chunks of 512 tokens over its own cache (sdpa, eager kernels as they
come). Prints the time, tokens a second in the first and in the last eighth, and what the process
came to hold beyond the loaded model. Rows take turns over the rounds; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.roofline import DTYPES
from qwen_eval.model import smollm2
from qwen_eval.model.config import load_config
from qwen_eval.model.engine import Engine, ScoreTokens
from qwen_eval.model.fused import fuse
from qwen_eval.model.weights import load_model

CHUNK = 512
ROWS = ("full", "windows", "transformers")


def main() -> None:
    """One table, or one row where a row is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--length", type=int, default=32768)
    parser.add_argument("--rows", nargs="+", default=list(ROWS), choices=ROWS)
    parser.add_argument("--window-sizes", help="as of qwen-eval run, in place of our schedule")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--row", choices=ROWS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.row:
        print(json.dumps(measured(options)))
        return
    found: dict[str, list[dict[str, Any]]] = {row: [] for row in options.rows}
    for _ in range(options.rounds):
        for row in options.rows:
            command = [sys.executable, "-m", "bench.long_context", *sys.argv[1:], "--row", row]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found[row].append(json.loads(done.stdout))
    print(f"{options.model.name}, {options.dtype}, one text of {options.length:,} tokens")
    print(f"{'':14}{'time':>9}{'first 1/8':>13}{'last 1/8':>13}{'cost':>7}{'memory':>12}")
    for row, rounds in found.items():
        seconds = statistics.median(one["seconds"] for one in rounds)
        first, last = (statistics.median(one[k] for one in rounds) for k in ("first", "last"))
        held = max(one["memory"] for one in rounds) / 2**20
        print(
            f"{row:14}{seconds:7.1f} s{first:9.0f} t/s{last:9.0f} t/s{first / last:6.2f}x"
            f"{held:8.0f} MiB  {rounds[0]['windows']}",
            flush=True,
        )


def measured(options: argparse.Namespace) -> dict[str, Any]:
    """One row: seconds, tokens per second at both ends, bytes held beyond the model."""
    draw = random.Random(0)
    config = load_config(options.model)
    ids = draw.choices(range(1000, config.vocab_size), k=options.length)
    windows = ""
    if options.row == "transformers":
        ends = theirs(options, ids)
    else:
        config = config.with_context(
            ntk=True,
            logn=True,
            window=options.row == "windows",
            window_sizes=options.window_sizes if options.row == "windows" else None,
            max_length=max(options.length, config.max_length),
        )
        windows = ",".join(str(w or "full") for w in dict.fromkeys(config.windows))
        model = fuse(load_model(options.model, DTYPES[options.dtype], config=config))
        engine = Engine(model)
        engine.run([ScoreTokens(tuple(ids[:CHUNK]))])
        ends = ours(engine, ids)
    next(ends)
    before, marks = held(), [time.perf_counter(), *ends]
    eighth = len(marks) // 8
    return {
        "seconds": marks[-1] - marks[0],
        "first": eighth * CHUNK / (marks[eighth] - marks[0]),
        "last": eighth * CHUNK / (marks[-1] - marks[-1 - eighth]),
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        "windows": windows,
    }


def ours(engine: Engine, ids: list[int]) -> Iterator[float]:
    """The time after each chunk; the first one says that everything is ready."""
    yield 0.0
    engine.submit(ScoreTokens(tuple(ids)))
    while engine.pending:
        engine.step()
        yield time.perf_counter()


@torch.inference_mode()
def theirs(options: argparse.Namespace, ids: list[int]) -> Iterator[float]:
    """As ours, in transformers, which reads positions beyond its length unstretched."""
    import transformers

    dtype = DTYPES[options.dtype]
    model = transformers.AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype)
    tokens = torch.tensor([ids])
    model(tokens[:, :CHUNK])
    cache = transformers.DynamicCache()
    yield 0.0
    for start in range(0, len(ids), CHUNK):
        logits = model(tokens[:, start : start + CHUNK], past_key_values=cache).logits[0]
        targets = tokens[0, start + 1 : start + CHUNK + 1, None]
        logits[: len(targets)].float().log_softmax(-1).gather(1, targets).tolist()
        yield time.perf_counter()


def held() -> int:
    """Bytes that this process holds now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
