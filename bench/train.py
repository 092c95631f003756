"""A training step of ours against transformers' Trainer and against the machine's own products.

    python -m bench.train --shape 100m --threads 2

One run, one shape, one dtype: first every matrix product of a step alone (forward, to the input,
to the weight, at the model's own shapes), then our step, then Trainer's on the same weights and
batches, each plain and compiled, then the products again. The first losses must agree: both compute
the same thing. On a GPU the products' rate is the card's measured peak, and the share is MFU.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import torch
import transformers

from bench.gpu import name_of, timed, wait
from bench.roofline import DTYPES
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import save_model
from qwen_eval.train.cross_entropy import IGNORED, ROWS
from qwen_eval.train.feed import Part
from qwen_eval.train.language_model import LanguageModel, flops_per_token
from qwen_eval.train.loop import Stage, Trainer
from qwen_eval.train.optim import Optimiser, adamw
from qwen_eval.train.parallel import World, joined, share_out

# hidden, layers, heads, FFN, vocabulary, sequences, length
SHAPES = {
    "tiny": (64, 2, 4, 160, 1024, 4, 64),
    "100m": (768, 12, 12, 2048, 16384, 8, 512),
}
WARMUP = 2  # steps that are not timed: the first compiles and makes AdamW's moments
SETTINGS = Optimiser.model_validate({"learning_rate": 3e-4, "final": 1.0})
CLOSE = 0.01  # nats between both first losses


def main() -> None:
    """A line for the products, and one for every trainer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", default="tiny", choices=SHAPES)
    parser.add_argument("--steps", type=int, default=8, help="that are timed")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--part", type=int, help="sequences at a time in ours; else all of a step")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    config, sequences, length = shaped(options.shape)
    steps, dtype = options.steps + WARMUP, DTYPES[options.dtype]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ids = torch.randint(config.vocab_size, (steps * sequences, length),
                        generator=torch.Generator().manual_seed(0))  # fmt: skip
    part = options.part or sequences
    flops = flops_per_token(config, length)
    before = products(config, part * length, dtype, device)
    print(f"{options.shape}: {config.parameters:,} weights, {sequences} x {length} tokens a step, "
          f"{options.dtype}, {name_of(device)}, {options.threads} threads")  # fmt: skip
    best, first = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        write(config, Path(folder))
        for compiled in (False, True):
            for name, trainer in (("ours", ours), ("Trainer", theirs)):
                try:
                    seconds, losses = trainer(config, Path(folder), ids, sequences, part, dtype,
                                              compiled)  # fmt: skip
                except Exception as error:  # a compiler may be missing: then there is one row less
                    if not compiled:
                        raise
                    print(f"  {name}, compiled: failed ({str(error).strip().splitlines()[0]})")
                    continue
                gc.collect()
                rate = sequences * length / seconds
                best[name] = max(rate, best.get(name, 0.0))
                first.setdefault(name, losses[0])
                label = f"{name}{', compiled' if compiled else ''}"
                print(f"  {label:18} {rate:9.0f} tokens/s, {rate * flops / 1e9:8.1f} GFLOP/s, "
                      f"{rate * flops / before:5.1%} of the products; loss {losses[0]:.4f} first, "
                      f"{losses[-1]:.4f} last", flush=True)  # fmt: skip
    after = products(config, part * length, dtype, device)
    print(f"  products           {before / 1e9:.1f} GFLOP/s before, {after / 1e9:.1f} after")
    print(f"  ours / Trainer     {best['ours'] / best['Trainer']:.2f}, the best of each")
    apart = abs(first["ours"] - first["Trainer"])
    print(f"  first losses       {apart:.1e} nats apart")
    if apart > CLOSE:
        raise SystemExit("the two do not compute the same thing")


def shaped(name: str) -> tuple[ModelConfig, int, int]:
    """A model as Qwen2, whose classes transformers has, with sequences and length."""
    hidden, layers, heads, ffn, vocabulary, sequences, length = SHAPES[name]
    config = ModelConfig(
        family="qwen2",
        vocab_size=vocabulary,
        hidden_size=hidden,
        num_layers=layers,
        num_heads=heads,
        num_kv_heads=heads,
        head_dim=hidden // heads,
        ffn_size=ffn,
        max_length=length,
        trained_length=length,
        qkv_bias=True,
    )
    return config, sequences, length


def products(config: ModelConfig, rows: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of all products of a step, each by itself and nothing between them."""
    E, F = config.hidden_size, config.ffn_size
    layer = [(E, E)] * 4 + [(F, E), (F, E), (E, F)]
    block = min(rows, ROWS.get(device.type, rows))
    work = [(rows, out, width, config.num_layers) for out, width in layer]
    work.append((block, config.vocab_size, E, rows / block))
    flops = seconds = 0.0
    for count, out, width, times in work:
        x = torch.randn(count, width).to(device, dtype)
        weight = torch.randn(out, width).to(device, dtype)
        y = torch.randn(count, out).to(device, dtype)

        def three(x=x, weight=weight, y=y) -> None:
            torch.nn.functional.linear(x, weight)
            torch.mm(y, weight)
            torch.mm(y.T, x)

        three()
        flops += 6 * count * out * width * times
        seconds += times * timed(three, device)
    return flops / seconds


def write(config: ModelConfig, folder: Path) -> None:
    """One set of weights, for both."""
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(0))
    save_model(model, folder)


class Rows:
    """Stands where a Feed does: rows of ids in their order."""

    def __init__(self, ids_NS: torch.Tensor) -> None:
        self.ids_NS, self.length = ids_NS, ids_NS.shape[1]

    def places(self, start: int, count: int) -> list[int]:
        """One after another."""
        return list(range(start, start + count))

    def parts(self, places: list[int], size: int) -> Iterator[Part]:
        """See Feed.parts."""
        for at in range(0, len(places), size):
            ids = self.ids_NS[places[at : at + size]]
            targets = torch.full_like(ids, IGNORED)
            targets[:, :-1] = ids[:, 1:]
            yield Part(ids, targets, None)

    def tokens_asked(self, places: list[int]) -> int:
        """See Feed.tokens_asked."""
        return len(places) * (self.length - 1)


def ours(config, folder: Path, ids, sequences: int, part: int, dtype, compiled: bool):
    """Median seconds of a step, and losses."""
    steps = len(ids) // sequences
    found = []
    unsaved = SimpleNamespace(save=lambda *_: None, steps=list)
    with joined() as world, here(world):
        model = LanguageModel(config, compiled)
        model.transformer.init_weights(torch.Generator().manual_seed(0))
        model.to(world.device)
        share_out(model, model.transformer.blocks, world, dtype=dtype, compiled=compiled,
                  recompute=False)  # fmt: skip
        note = SimpleNamespace(after_step=lambda _, step: found.append(step),
                               at_end=lambda _: None)  # fmt: skip
        stage = Stage(Rows(ids), steps, sequences, part)
        Trainer(model, model, adamw(model, SETTINGS), SETTINGS, [stage], world, unsaved, steps + 1,
                [note]).run()  # fmt: skip
    seconds = [step.seconds for step in found[WARMUP:]]
    return statistics.median(seconds), [step.loss for step in found]


@contextmanager
def here(world: World) -> Iterator[None]:
    """Nothing compiled for another trainer is met again."""
    torch._dynamo.reset()
    yield
    wait(world.device)


class Clock(transformers.TrainerCallback):
    """When every step ended, and its loss."""

    def __init__(self) -> None:
        self.ends, self.losses = [], []

    def on_step_end(self, args, state, control, **_) -> None:
        """Look at the clock."""
        self.ends.append(time.perf_counter())

    def on_log(self, args, state, control, logs=None, **_) -> None:
        """Note the loss."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))


class InOrder(transformers.Trainer):
    """Rows as they come."""

    def _get_train_sampler(self, train_dataset=None):
        return torch.utils.data.SequentialSampler(train_dataset or self.train_dataset)


def theirs(config, folder: Path, ids, sequences: int, part: int, dtype, compiled: bool):
    """Median seconds of a step, and losses; weights in fp32, computed in bf16 under autocast."""
    torch._dynamo.reset()
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.use_cache = False
    clock = Clock()
    with tempfile.TemporaryDirectory() as out:
        settings = transformers.TrainingArguments(
            output_dir=out,
            use_cpu=not torch.cuda.is_available(),
            bf16=dtype == torch.bfloat16,
            torch_compile=compiled,
            per_device_train_batch_size=part,
            gradient_accumulation_steps=sequences // part,
            max_steps=len(ids) // sequences,
            learning_rate=SETTINGS.learning_rate,
            adam_beta1=SETTINGS.beta1,
            adam_beta2=SETTINGS.beta2,
            adam_epsilon=SETTINGS.eps,
            weight_decay=SETTINGS.weight_decay,
            max_grad_norm=SETTINGS.clip,
            lr_scheduler_type="constant",
            optim="adamw_torch_fused",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        rows = [{"input_ids": row, "labels": row} for row in ids]
        trainer = InOrder(model=model, args=settings, train_dataset=rows, callbacks=[clock])
        trainer.remove_callback(transformers.trainer_callback.PrinterCallback)
        trainer.train()
    ends = clock.ends[WARMUP - 1 :]
    seconds = [after - before for before, after in pairwise(ends)]
    return statistics.median(seconds), clock.losses


if __name__ == "__main__":
    main()
