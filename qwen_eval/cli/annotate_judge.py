"""`qwen-eval annotate judge`: a study's pairs as a task that asks any model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.cli.annotating import DEFAULT, Database, StudyFolder, open_study
from qwen_eval.cli.asking import ask
from qwen_eval.cli.options import command_from
from qwen_eval.cli.run import RunOptions, open_backend, run_info
from qwen_eval.cli.setup import DEVICES, DTYPES, LoadedTask, check_choice, load_task
from qwen_eval.errors import InfrastructureError, UserError

if TYPE_CHECKING:
    from qwen_eval.human_eval_ui.judging import JudgeRow


def judge_task(rows: Sequence[JudgeRow], recipe: str = "strict") -> LoadedTask:
    """The rows in Chinese (`strict`) or English (`en`), for cli.asking.ask.

    Raises UserError for another recipe, and where there are no rows.
    """
    from qwen_eval.datasets import given_data
    from qwen_eval.taskspec import TASKS_DIR, load_spec

    spec = load_spec(TASKS_DIR / "judging" / "pairwise" / "task.yaml")
    if recipe not in spec.recipes:
        raise UserError(f"--recipe {recipe}: unknown; known: {', '.join(spec.recipes)}")
    return load_task(given_data(spec, [row.asked for row in rows]), recipe)


@dataclass(frozen=True)
class JudgeOptions:
    """The options of `annotate judge`."""

    model: Annotated[str, typer.Option(help="Who judges; see `qwen-eval models`.")]
    study: StudyFolder = DEFAULT
    name: Annotated[str | None, typer.Option(help="What findings call it; else the model.")] = None
    recipe: Annotated[str, typer.Option(help="Asked in Chinese (strict) or English (en).")] = (
        "strict"
    )
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto"
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto"
    batch: Annotated[int | None, typer.Option(min=1, help="Sequences computed at a time.")] = None
    kv_memory: Annotated[
        str | None, typer.Option(help="Memory for keys and values, such as 2GiB.")
    ] = None
    database: Database = None


@command_from(JudgeOptions)
def command(options: JudgeOptions) -> None:
    """Let a model vote on every pair, in both orders; findings hold it against the annotators.

    The run lies in the study's folder, under judges/; the same command goes on with it."""
    from qwen_eval.human_eval_ui.exporting import JUDGES
    from qwen_eval.human_eval_ui.findings.runs import safe
    from qwen_eval.human_eval_ui.judging import judge_rows, votes_of
    from qwen_eval.results import read_samples

    check_choice("--dtype", options.dtype, DTYPES)
    check_choice("--device", options.device, DEVICES)
    with closing(open_study(options.study, options.database)) as store:
        rows = judge_rows(store.study.items, store.pairs.regular.values())
    task = judge_task(rows, options.recipe)
    name = safe(options.name or options.model)
    out = options.study / JUDGES / name
    given = RunOptions(
        tasks=task.info.recipe,
        model=options.model,
        out=out,
        seed=options.seed,
        dtype=options.dtype,
        device=options.device,
        batch=options.batch,
        kv_memory=options.kv_memory,
    )
    backend = open_backend(given, ())
    try:
        info = run_info([task], asdict(backend.info()), None, given)
        asked = ask([task], backend, None, info, out)
    finally:
        backend.close()
    if asked is None:
        return
    votes = votes_of(read_samples(out), rows, name)
    print(f"{name}: a verdict in both orders on {len(votes) // 2} of {len(rows) // 2} pairs")
    if asked.failure:
        raise InfrastructureError(asked.failure)
