"""`qwen-eval rescore`: read a run's stored replies again with every scorer of its tasks."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from qwen_eval.cli.options import command_from
from qwen_eval.cli.setup import LoadedTask, load_tasks
from qwen_eval.errors import UserError


@dataclass(frozen=True)
class RescoreOptions:
    """The options of `rescore`."""

    run: Annotated[Path, typer.Argument(help="A run directory.")]
    data: Annotated[Path | None, typer.Option(help="The mirror that the run used.")] = None
    show: Annotated[int, typer.Option(min=0, help="Disagreements to list per task.")] = 5
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(RescoreOptions)
def command(options: RescoreOptions) -> None:
    """Apply every scorer to the stored replies, offline, and show where they disagree."""
    from qwen_eval.results import read_info

    info = read_info(options.run)
    names = [name for name, task in info.tasks.items() if task.solver != "choice"]
    if not names:
        raise UserError(f"{options.run}: options were scored there, no reply was read")
    tasks = load_tasks(",".join(names), options.data, None)
    report = {}
    for task in tasks:
        stored = info.tasks[task.info.recipe]
        if task.info.data_digest != stored.data_digest:
            raise UserError(
                f"{options.run}: {task.info.recipe} was run on other rows than "
                f"{task.info.data_source}; name its mirror with --data"
            )
        report[task.info.recipe] = _rescore(task, options)
    if options.as_json:
        print(json.dumps({"run": str(options.run), "tasks": report}))


def _rescore(task: LoadedTask, options: RescoreOptions) -> dict[str, Any]:
    from qwen_eval.metrics import estimate
    from qwen_eval.results import read_samples, response_from
    from qwen_eval.runner import replay
    from qwen_eval.sandbox.sandbox import Sandbox
    from qwen_eval.tasks.solvers import SOLVERS

    items = {item.sample.id: item for item in task.items}
    records = [r for r in read_samples(options.run) if r.task == task.info.recipe]
    records = [r for r in records if r.status != "error" and r.id in items]
    solve = SOLVERS[task.spec.solver]
    sandbox = Sandbox.open() if task.spec.solver == "code" else None
    scores: dict[str, dict[str, Any]] = {}
    try:
        for scorer in task.spec.scorers():
            scores[scorer] = {
                record.id: replay(
                    solve(replace(items[record.id], scorer=scorer)),
                    [response_from(r) for r in record.responses],
                    sandbox,
                )
                for record in records
            }
    finally:
        if sandbox is not None:
            sandbox.close()
    metric = task.info.metric
    rows = {}
    print(f"{task.info.recipe}: {len(records)} stored replies")
    for scorer, by_id in scores.items():
        mean = estimate([score.values.get(metric, 0.0) for score in by_id.values()])
        unread = sum(score.status == "no_answer" for score in by_id.values())
        own = " (the recipe's own)" if scorer == task.info.scorer else ""
        if mean is not None:
            print(f"  {scorer:26}{100 * mean.estimate:5.1f} %, {unread} without an answer{own}")
            rows[scorer] = {"estimate": mean.estimate, "n": mean.n, "no_answer": unread}
    differing = [
        record.id
        for record in records
        if len({by_id[record.id].values.get(metric, 0.0) for by_id in scores.values()}) > 1
    ]
    print(f"  scorers disagree on {len(differing)} of {len(records)}")
    for sample_id in differing[: options.show]:
        answers = ", ".join(f"{s}: {b[sample_id].answer!r:.40}" for s, b in scores.items())
        print(f"    {sample_id} target {items[sample_id].target!r:.40}; {answers}")
    return {"scorers": rows, "disagree": differing}
