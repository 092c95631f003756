"""What a question costs as the set grows, as its shared beginning grows, and for equal bits.

    python -m bench.costs

Random ids, MMLU's shape: one group of questions of about 100 tokens behind one beginning, four
one-token continuations each. Every engine is made before the clock starts; the settings that are
compared take turns, and medians are printed.
"""

from __future__ import annotations

import argparse
import random
import statistics
from functools import partial
from pathlib import Path

import torch

from bench.roofline import DTYPES, line, timed
from qwen_eval.model import smollm2
from qwen_eval.model.engine import Engine, EngineRequest, Generate, Sampling, ScoreContinuations
from qwen_eval.model.fused import fuse
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model

OPTIONS = tuple((token,) for token in range(1000, 1004))


def main() -> None:
    """Three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=smollm2.folder(), help="a model folder")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument("--questions", type=int, default=24, help="of the smaller set")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    model = fuse(load_model(options.model, DTYPES[options.dtype]))
    rounds, few = options.rounds, options.questions
    sets = {f"{n} questions": questions(400, n) for n in (few, 10 * few)}
    print("a question behind a beginning of 400 tokens")
    report(model, sets, rounds)
    print("a question but the first, behind a beginning that is stored")
    stems = {f"{n} tokens": questions(n, few) for n in (400, 1600)}
    report(model, stems, rounds, warm=True)
    print("with the same bits whatever the batch, and without")
    for name, work in (("scored", questions(400, 2 * few)), ("written", texts(400, few))):
        for exact, seconds in seconds_of(
            {True: work, False: work}, lambda exact: Engine(model, batch_invariant=exact), rounds
        ).items():
            print(f"  {name}, {'same bits' if exact else 'any bits':10} {seconds:8.3f} s")


def questions(stem: int, count: int) -> list[EngineRequest]:
    """Scored, behind one beginning of `stem` tokens."""
    shared, lengths = line(stem), random.Random(0)
    return [
        ScoreContinuations(shared + line(lengths.randrange(60, 140)), OPTIONS, stem)
        for _ in range(count)
    ]


def texts(stem: int, count: int) -> list[EngineRequest]:
    """Written, behind one beginning."""
    shared = line(stem)
    return [Generate(shared + line(80), Sampling(max_tokens=24), shared=stem) for _ in range(count)]


def report(
    model: Transformer, sets: dict[str, list[EngineRequest]], rounds: int, *, warm: bool = False
) -> None:
    """Milliseconds a question of each set."""
    for name, seconds in seconds_of(sets, lambda _: Engine(model), rounds, warm=warm).items():
        count = len(sets[name]) - warm
        print(f"  {name:16} {1e3 * seconds / count:8.1f} ms")


def seconds_of(sets, make, rounds: int, *, warm: bool = False):
    """Median seconds of each set on an engine of its own; `warm`: its first request is not
    counted."""
    found = {name: [] for name in sets}
    for _ in range(rounds):
        for name, work in sets.items():
            engine = make(name)
            if warm:
                engine.run(work[:1])
            found[name].append(timed(partial(engine.run, work[warm:])))
    return {name: statistics.median(seconds) for name, seconds in found.items()}


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
