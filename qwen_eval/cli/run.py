"""`qwen-eval run`: ask a model the tasks, keep every sample, print the table."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.asking import AcceptNoSandbox, Measured, ask, open_sandbox
from qwen_eval.cli.options import TaskPath, command_from
from qwen_eval.cli.setup import (
    DEVICES,
    DTYPES,
    LoadedTask,
    check_choice,
    fitting,
    load_tasks,
    name_samples,
    open_model,
    parse_bytes,
)
from qwen_eval.errors import InfrastructureError

if TYPE_CHECKING:
    from qwen_eval.backends.base import Backend
    from qwen_eval.results import RunInfo
    from qwen_eval.sandbox.sandbox import Sandbox

_Switch = bool | None
_CONTEXT = ("ntk", "ntk_chunks", "logn", "window", "window_sizes", "yarn")


@dataclass(frozen=True)
class RunOptions:
    """The options of `run`."""

    tasks: Annotated[str, typer.Option(help="Tasks or suites: tiny,mmlu@qwen,lm_eval:piqa.")]
    model: Annotated[str, typer.Option(help="What to judge; see `qwen-eval models`.")] = "tiny"
    data: Annotated[Path | None, typer.Option(help="A data mirror (or set QWEN_EVAL_DATA).")] = None
    task_path: TaskPath = None
    out: Annotated[
        Path | None, typer.Option(help="Run directory; naming the same one resumes it.")
    ] = None
    limit: Annotated[
        str | None, typer.Option(help="Samples per task, a fixed draw: 40, or mmlu=60,gsm8k=4.")
    ] = None
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences computed at a time.")] = None
    kv_memory: Annotated[
        str | None, typer.Option(help="Memory for keys and values, such as 2GiB.")
    ] = None
    batch_invariant: Annotated[
        bool, typer.Option(help="The same bits whatever the batch, the order and the cache.")
    ] = True
    max_length: Annotated[int | None, typer.Option(min=1, help="Tokens of context.")] = None
    ntk: Annotated[_Switch, typer.Option(help="Dynamic NTK beyond the trained length.")] = None
    ntk_chunks: Annotated[
        _Switch, typer.Option(help="NTK follows the text as it grows, not the prompt alone.")
    ] = None
    logn: Annotated[_Switch, typer.Option(help="LogN attention scaling.")] = None
    window: Annotated[
        _Switch, typer.Option(help="Attention windows: the model's own, else our schedule.")
    ] = None
    window_sizes: Annotated[
        str | None, typer.Option(help="Windows of your own, low layers first: 512,1024,full.")
    ] = None
    yarn: Annotated[
        float | None, typer.Option(help="Stretch the context by this factor (YaRN).")
    ] = None
    accept_no_sandbox: AcceptNoSandbox = False
    plan: Annotated[bool, typer.Option("--plan", help="Say what would be run, and stop.")] = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(RunOptions)
def command(options: RunOptions) -> None:
    """Ask a model the tasks and print scores with intervals; the same command resumes."""
    check_choice("--dtype", options.dtype, DTYPES)
    check_choice("--device", options.device, DEVICES)
    paths = options.task_path or ()
    tasks = load_tasks(options.tasks, options.data, options.limit, options.seed, paths)
    name_samples(tasks)
    if options.plan:
        print_plan(tasks, options)
        return
    sandbox = open_sandbox(tasks, options.accept_no_sandbox)
    try:
        backend = open_backend(options, sorted({task.length for task in tasks} - {0}))
        try:
            _run(fitting(tasks, backend.info().max_length), backend, sandbox, options)
        finally:
            backend.close()
    finally:
        if sandbox is not None:
            sandbox.close()


def print_plan(tasks: list[LoadedTask], options: RunOptions) -> None:
    """What would be asked, and the smallest difference that many samples can show."""
    from qwen_eval.measures import SHARE, measure_of
    from qwen_eval.stats import detectable_difference

    plan = [
        {
            "task": task.info.recipe,
            "samples": task.info.selected,
            "available": task.info.available,
            "data": task.info.data_kind,
            "replies": task.recipe.repeats,
            "prompt_characters": sum(len(item.prompt.full_text) for item in task.items),
            "shared_prefixes": len({item.prompt.prefix for item in task.items}),
            "detectable_difference": round(detectable_difference(task.info.selected), 4)
            if measure_of(task.info.metric) is SHARE
            else None,  # how far two texts differ is known once they were read
        }
        for task in tasks
    ]
    for row in plan:
        print(
            f"{row['task']}: {row['samples']} of {row['available']} samples ({row['data']}), "
            f"{_drawn(row['replies'])}"
            f"{row['prompt_characters']:,} prompt characters over {row['shared_prefixes']} shared "
            f"prefixes{_told_apart(row['detectable_difference'])}"
        )
    if options.as_json:
        print(json.dumps({"plan": plan}))


def _drawn(replies: Any) -> str:
    return f"{replies} replies to each, " if replies > 1 else ""


def _told_apart(share: Any) -> str:
    if share is None:
        return ""
    if share > 1:
        return "; too few to tell two models apart"
    apart = f"; two models are told apart from {100 * share:.1f} points on"
    return f"{apart} (10% of answers differing, power 0.8)"


def open_backend(options: RunOptions, lengths: Sequence[int]) -> Backend:
    """The model with the switches that were given. Raises UserError for any mistake in them, and
    where a sequence of one of the lengths could not be held."""
    from qwen_eval.backends.base import BackendOptions

    return open_model(
        options.model,
        BackendOptions(
            batch=options.batch,
            dtype=options.dtype,
            device=options.device,
            max_length=options.max_length,
            seed=options.seed,
            kv_memory=parse_bytes("--kv-memory", options.kv_memory),
            batch_invariant=options.batch_invariant,
            context=context_switches(options),
            lengths=tuple(lengths),
        ),
    )


def context_switches(options: RunOptions) -> dict[str, Any]:
    """The switches of the context that were given, by name."""
    given = {name: getattr(options, name) for name in _CONTEXT}
    return {name: value for name, value in given.items() if value is not None}


def _run(
    tasks: list[LoadedTask], backend: Backend, sandbox: Sandbox | None, options: RunOptions
) -> None:
    from qwen_eval.results import identity_digest

    info = run_info(tasks, asdict(backend.info()), sandbox, options)
    # As they were named: a suite has one name and many tasks.
    names = "-".join(filter(None, re.split(r"[,\s/:]+", options.tasks))).replace("@strict", "")
    model = str(info.model["name"]).replace("/", "-").replace(":", "-")
    out = options.out or Path("runs") / f"{model}-{names}-{identity_digest(info)}"
    asked = ask(tasks, backend, sandbox, info, out)
    if asked is None:
        return
    _print(info, asked.measured, out, options.as_json)
    if asked.failure:
        raise InfrastructureError(asked.failure)


def run_info(
    tasks: list[LoadedTask], model: dict[str, Any], sandbox: Sandbox | None, options: RunOptions
) -> RunInfo:
    """What run.json says of a run, before it has begun. `model`: a BackendInfo's fields."""
    from qwen_eval.provenance import environment
    from qwen_eval.results import RunInfo

    switches = context_switches(options)
    if switches.get("window") or switches.get("window_sizes"):
        # In figures: a schedule of ours may change.
        switches["windows"] = model.get("detail", {}).get("windows")
    return RunInfo(
        model=model | {"asked_for": options.model},
        tasks={task.info.recipe: task.info for task in tasks},
        # Some settings stand here, and in older runs, even where nobody gave them.
        settings={"seed": options.seed, "max_length": options.max_length}
        | dict.fromkeys(("ntk", "logn", "window"))
        | {"batch_invariant": options.batch_invariant}
        | switches,
        isolation=sandbox.isolation if sandbox else "no programs were run",
        environment=environment(),
    )


def _print(info: RunInfo, rows: Measured, out: Path, as_json: bool) -> None:
    from rich.console import Console
    from rich.markup import escape

    from qwen_eval.cli.paper import beside_paper, print_beside
    from qwen_eval.cli.table import footnotes, results_table

    published = beside_paper(info, [row for _, row in rows])
    console = Console(stderr=as_json)
    console.print(f"[bold]{escape(info.model['name'])}[/] {info.model['dtype']}")
    if note := info.model.get("detail", {}).get("note"):
        console.print(note, style="dim", markup=False)
    console.print()
    console.print(results_table(rows))
    console.print()
    for line in footnotes(rows):
        console.print(line, style="yellow", markup=False)
    print_beside(console, published)
    if info.isolation != "no programs were run":
        console.print(f"isolation: {info.isolation}", style="dim", markup=False)
    console.print(f"run directory: {out}", style="dim", soft_wrap=True, markup=False)
    if as_json:
        tasks = {
            row.recipe: row.to_json()
            | {"data": task.info.data_kind, "data_digest": task.info.data_digest}
            | {"prompts_digest": task.info.prompts_digest}
            | {"paper": beside.to_json()}
            for (task, row), beside in zip(rows, published, strict=True)
        }
        print(json.dumps({"run": str(out), "model": info.model, "tasks": tasks}))
