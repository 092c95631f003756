"""`qwen-eval rescore`: read a run's stored replies again with every scorer of its tasks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qwen_eval.cli.asking import AcceptNoSandbox, open_sandbox
from qwen_eval.cli.options import TaskPath, command_from
from qwen_eval.cli.setup import LoadedTask, load_tasks
from qwen_eval.cli.solvers import solver_of
from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from qwen_eval.results import SampleRecord, TaskInfo
    from qwen_eval.sandbox.sandbox import Sandbox
    from qwen_eval.types import Score

# Solvers of ours that read what a model wrote, or weigh what it gave for options.
READING = (
    *("generate", "code", "needle", "choice", "contexts", "react"),
    *("code_interpreter", "hf_agent"),
)
JUDGED = "code"  # the solver whose programs are run anew; what cells put out is stored
WORKERS = 2  # programs judged at a time


@dataclass(frozen=True)
class RescoreOptions:
    """The options of `rescore`."""

    run: Annotated[Path, typer.Argument(help="A run directory.")]
    data: Annotated[Path | None, typer.Option(help="The mirror that the run used.")] = None
    task_path: TaskPath = None
    show: Annotated[int, typer.Option(min=0, help="Disagreements to list per task.")] = 5
    audit: Annotated[
        Path | None, typer.Option(help="Write the disagreements to this file, JSON lines.")
    ] = None
    accept_no_sandbox: AcceptNoSandbox = False
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object last on stdout.")] = False


@command_from(RescoreOptions)
def command(options: RescoreOptions) -> None:
    """Apply every scorer to the stored replies, offline, and show where they disagree."""
    from qwen_eval.results import read_info, read_samples
    from qwen_eval.tasks.own import own_file

    info = read_info(options.run)
    solvers = {name: task.solver for name, task in info.tasks.items()}
    names = [name for name, solver in solvers.items() if solver in READING or own_file(solver)]
    if not names:
        if any(task.solver == "lm_eval" for task in info.tasks.values()):
            raise UserError(
                f"{options.run}: tasks of lm-evaluation-harness have filters of their own, which "
                "were all applied as they ran; rescore has no other scorers for them"
            )
        raise UserError(f"{options.run}: texts were scored there, no reply was read")
    records = read_samples(options.run)
    if not any(r.task in names and r.status != "error" for r in records):
        failed = sum(r.task in names for r in records)
        raise UserError(
            f"{options.run}: no stored replies to read"
            + (f", all {failed} samples ended in an error" if failed else "")
        )
    tasks = load_tasks(",".join(names), options.data, None, paths=options.task_path or ())
    report: dict[str, Any] = {}
    audit: list[dict[str, Any]] = []
    for task in tasks:
        stored = info.tasks[task.info.recipe]
        if task.info.data_digest != stored.data_digest:
            raise UserError(
                f"{options.run}: {task.info.recipe} was run on other rows than "
                f"{task.info.data_source}; name its mirror with --data"
            )
        own = [record for record in records if record.task == task.info.recipe]
        unfinished = not (options.run / "DONE").exists()
        _print_stored(stored, own, unfinished, task.recipe.repeats)
        asked = {item.sample.id for item in task.items}
        replies = [r for r in own if r.status != "error" and r.id in asked]
        judged = [task] if task.solver == JUDGED else []
        sandbox = open_sandbox(judged, options.accept_no_sandbox)
        try:
            scores = _score_again(task, replies, sandbox)
        finally:
            if sandbox is not None:
                sandbox.close()
        differing = _differing(task, replies, scores)
        audit += differing
        report[task.info.recipe] = _compare(
            task, replies, scores, len(differing), differing[: options.show]
        )
        report[task.info.recipe] |= {"disagree": [one["id"] for one in differing]}
        report[task.info.recipe] |= {"failed": len(own) - len(replies), "unfinished": unfinished}
        if sandbox is not None:
            print(f"  isolation: {sandbox.isolation}")
            report[task.info.recipe]["isolation"] = sandbox.isolation
    if options.audit is not None:
        _write_audit(options.audit, audit)
    if options.as_json:
        print(json.dumps({"run": str(options.run), "tasks": report}))


def _print_stored(
    info: TaskInfo, records: list[SampleRecord], unfinished: bool, repeats: int
) -> None:
    failed = sum(record.status == "error" for record in records)
    line = f"{info.recipe}: {len(records) - failed} stored replies"
    line = line.replace("replies", f"samples of {repeats} replies") if repeats > 1 else line
    if failed:
        line += f"; {failed} samples left out, they ended in an error"
    if unfinished:
        line += f"; UNFINISHED run, {len(records)} of {info.selected} samples"
    print(line, flush=True)


def _score_again(
    task: LoadedTask, records: list[SampleRecord], sandbox: Sandbox | None
) -> dict[str, list[Score]]:
    """Scores by scorer, in the order of the records."""
    from qwen_eval.cli.progress import progress
    from qwen_eval.results import response_from
    from qwen_eval.runner import replay

    items = {item.sample.id: item for item in task.items}
    solve = solver_of(task)
    scorers = task.spec.scorers(task.info.recipe.partition("@")[2])
    scores: dict[str, list[Score]] = {scorer: [] for scorer in scorers}

    def score(record: SampleRecord, scorer: str) -> Score:
        solver = solve(replace(items[record.id], scorer=scorer))
        stored = [response_from(response) for response in record.responses]
        return replay(solver, stored, sandbox, task.info.metric)

    with (
        ThreadPoolExecutor(WORKERS) as pool,
        progress(len(scorers) * len(records)) as bar,
    ):
        for scorer, found in scores.items():
            for one in pool.map(partial(score, scorer=scorer), records):
                found.append(one)
                bar.advance()
    return scores


def _differing(
    task: LoadedTask, records: list[SampleRecord], scores: dict[str, list[Score]]
) -> list[dict[str, Any]]:
    """The samples that scorers value differently, with all that a person needs to tell who is
    right: what was asked and replied, and what each scorer read."""
    metric, found = task.info.metric, []
    for record, row in zip(records, zip(*scores.values(), strict=True), strict=True):
        if len({score.values.get(metric, 0.0) for score in row if score.status != "error"}) < 2:
            continue
        readings = {
            scorer: {"answer": score.answer, "value": score.values.get(metric, 0.0)}
            for scorer, score in zip(scores, row, strict=True)
        }
        found.append(
            {
                "id": record.id,
                "task": record.task,
                "prompt": record.text,
                "target": record.target,
                "replies": [r["text"] for r in record.responses if r.get("text")],
                "scorers": readings,
            }
        )
    return found


def _write_audit(path: Path, differing: list[dict[str, Any]]) -> None:
    from qwen_eval.fileio import encodable, write_atomic

    lines = (json.dumps(one, ensure_ascii=False) + "\n" for one in differing)
    write_atomic(path, encodable("".join(lines)))
    print(f"{len(differing)} disagreements written to {path}")


def _compare(
    task: LoadedTask,
    records: list[SampleRecord],
    scores: dict[str, list[Score]],
    disagreeing: int,
    shown: list[dict[str, Any]],
) -> dict[str, Any]:
    """Print each scorer's result, how often they disagree, and some such samples; the results for
    --json."""
    from qwen_eval.metrics import estimate

    metric = task.info.metric
    rows = {}
    for scorer, found in scores.items():
        scored = [score for score in found if score.status != "error"]
        unread = sum(score.status == "no_answer" for score in scored)
        faults = [score.detail.get("error") for score in found if score.status == "error"]
        failed = len(faults)
        notes = f", {failed} left out: they could not be judged ({faults[0]})" if faults else ""
        notes += " (the recipe's own)" if scorer == task.info.scorer else ""
        mean = estimate([score.values.get(metric, 0.0) for score in scored])
        percent = f"{100 * mean.estimate:5.1f} %" if mean else "    – %"
        print(f"  {scorer:26}{percent}, {unread} without an answer{notes}")
        rows[scorer] = {
            "estimate": mean.estimate if mean else None,
            "n": len(scored),
            "no_answer": unread,
            "errors": failed,
        }
    share = f", {100 * disagreeing / len(records):.1f} %" if records else ""
    print(f"  scorers disagree on {disagreeing} of {len(records)}{share}")
    for one in shown:
        answers = ", ".join(f"{s}: {r['answer']!r:.40}" for s, r in one["scorers"].items())
        print(f"    {one['id']} target {one['target']!r:.40}; {answers}")
    return {"scorers": rows}
