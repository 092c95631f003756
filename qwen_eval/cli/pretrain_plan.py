"""`qwen-eval train pretrain --dry-run`: what a recipe would take of how many GPUs."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from qwen_eval.cli.recipes import find_recipe
from qwen_eval.cli.setup import parse_bytes
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.train.plan import Plan
    from qwen_eval.train.pretrain import Pretraining

GIB = 2**30


@dataclass(frozen=True)
class Machine:
    """GPUs, the bytes of one, what it can do in FLOP/s, and the share of it that is reached."""

    gpus: int
    memory: int
    peak: float
    share: float

    @classmethod
    def asked(cls, gpus: int, memory: str, tflops: float, share: float) -> Machine:
        """From options. Raises UserError for what is no size, speed or share."""
        size = parse_bytes("--gpu-memory", memory)
        if not size:
            raise UserError(f"--gpu-memory {memory}: give more than nothing")
        if not 0 < tflops < float("inf"):
            raise UserError(f"--peak-tflops {tflops}: give a speed above 0, such as 989")
        if not 0 < share <= 1:
            raise UserError(f"--mfu {share}: give a share above 0 and up to 1, such as 0.4")
        return cls(gpus, size, tflops * 1e12, share)


def show(name: str, machine: Machine, as_json: bool) -> None:
    """Print the plan of a recipe; with `as_json`, the table on stderr and an object on stdout."""
    import typer

    from qwen_eval.train.cross_entropy import ROWS
    from qwen_eval.train.plan import USABLE, plan
    from qwen_eval.train.pretrain import read_pretraining

    recipe = read_pretraining(find_recipe(name, "pretrain"))
    planned = plan(recipe, machine.gpus, ROWS["cuda"])
    counted = _count(recipe)
    assert counted == planned.parameters, (counted, planned.parameters)
    fits = planned.peak_bytes <= USABLE * machine.memory
    seconds = planned.seconds(machine.gpus, machine.peak * machine.share)
    for line in _lines(name, recipe, planned, machine, seconds, fits):
        typer.echo(line, err=as_json)
    if as_json:
        figures = {k: v for k, v in asdict(planned).items() if k != "memory"}
        said = figures | {
            "recipe": name,
            "gpus": machine.gpus,
            "flops_per_token": planned.flops / planned.tokens,
            "peak_tflops": machine.peak / 1e12,
            "mfu": machine.share,
            "seconds": seconds,
            "gpu_memory": machine.memory,
            "memory": planned.memory,
            "peak_moment": planned.peak,
            "peak_bytes": planned.peak_bytes,
            "usable": USABLE,
            "fits": fits,
        }
        print(json.dumps(said))


def _count(recipe: Pretraining) -> int:
    """Weights of the model as it is built, without memory for them."""
    import torch

    from qwen_eval.model.transformer import Transformer

    with torch.device("meta"):
        model = Transformer(recipe.model.config(recipe.longest))
    return sum(parameter.numel() for parameter in model.parameters())


def _lines(
    name: str, recipe: Pretraining, planned: Plan, machine: Machine, seconds: float, fits: bool
) -> list[str]:
    from qwen_eval.train.plan import USABLE

    hours = seconds / 3600
    usable = USABLE * machine.memory / GIB
    verdict = "fits" if fits else "DOES NOT FIT"
    kept = planned.states_kept + 1
    return [
        f"{name}, {machine.gpus} GPUs, {recipe.dtype}",
        f"parameters  {planned.parameters:,}, {planned.outside_embeddings:,} without embedding and "
        "head; the model built without memory has as many",
        f"steps       {planned.steps:,} of {recipe.batch_tokens:,} tokens: {planned.tokens:,}",
        f"operations  {planned.flops / planned.tokens:.4g} FLOP per token, {planned.flops:.4g} in "
        "all; what is recomputed is not counted",
        f"time        {hours / 24:,.1f} days, {hours * machine.gpus:,.0f} GPU-hours, if each GPU "
        f"reaches {machine.share:.0%} of {machine.peak / 1e12:,.0f} TFLOP/s",
        "",
        f"memory of a GPU, GiB, {recipe.part_tokens:,} tokens at a time at the most, recompute "
        f"{'on' if recipe.recompute else 'off'}:",
        *_table(planned),
        f"{planned.peak_bytes / GIB:.1f} GiB at the most, in `{planned.peak}`: {verdict} in "
        f"{usable:.1f}, {USABLE:.0%} of {machine.memory / GIB:.0f} GiB; the rest is for CUDA, NCCL "
        "and gaps",
        *(
            ["activations are counted without torch.compile, which keeps fewer"]
            if recipe.compile
            else []
        ),
        f"on disk     a state {planned.state_bytes / GIB:,.1f} GiB, {kept} while one is written "
        f"{kept * planned.state_bytes / GIB:,.1f}; the model {planned.model_bytes / GIB:,.1f}",
    ]


def _table(planned: Plan) -> list[str]:
    """Items down, moments across; the bytes of an item that a moment does not have are blank."""
    moments = planned.memory
    items = list(dict.fromkeys(item for found in moments.values() for item in found))
    lines = [f"{'':24}" + "".join(f"{moment:>13}" for moment in moments)]
    for item in items:
        cells = [moments[moment].get(item, 0) / GIB for moment in moments]
        lines.append(f"  {item:22}" + "".join(f"{c:13.3f}" if c else " " * 13 for c in cells))
    sums = [sum(found.values()) / GIB for found in moments.values()]
    return [*lines, f"  {'total':22}" + "".join(f"{total:13.3f}" for total in sums)]
