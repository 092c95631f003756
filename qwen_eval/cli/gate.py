"""`qwen-eval gate`: stop a regression, by rules and with one verdict."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from qwen_eval.errors import UserError

app = typer.Typer(help="Hold a candidate run to rules; exit 0 to 5 says how it ended.")


@app.callback(invoke_without_command=True)
def command(
    context: typer.Context,
    rules: Annotated[Path | None, typer.Option(help="A gate.yaml.")] = None,
    baseline: Annotated[Path | None, typer.Option(help="The run to hold against.")] = None,
    candidate: Annotated[Path | None, typer.Option(help="The run to judge.")] = None,
    allow: Annotated[list[str] | None, typer.Option(help="A field that may differ.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON verdict to a file.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML to a file.")] = None,
    github: Annotated[
        bool, typer.Option("--github", help="Print annotations, write the step summary.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object last on stdout.")
    ] = False,
) -> None:
    """Judge a candidate against a baseline: PASS, FAIL, INCONCLUSIVE or ERROR."""
    if context.invoked_subcommand:
        return
    if rules is None or baseline is None or candidate is None:
        missing = {"--rules": rules, "--baseline": baseline, "--candidate": candidate}
        raise UserError(f"{', '.join(k for k, v in missing.items() if v is None)} missing")
    from qwen_eval.fileio import write_atomic
    from qwen_eval.gate import judge
    from qwen_eval.promote import read_noise
    from qwen_eval.reports import ci
    from qwen_eval.results import read_run
    from qwen_eval.rules import read_rules

    read = read_rules(rules)
    today = datetime.now(UTC).date()
    found = judge(
        read,
        read_run(baseline),
        read_run(candidate),
        today=today,
        allow=allow or (),
        noise=read_noise(baseline),
    )
    # All forms are made of what a reader of the file would have.
    verdict: dict[str, Any] = json.loads(json.dumps(found.to_json()))
    typer.echo(ci.text(verdict), nl=False, err=as_json)
    if out is not None:
        write_atomic(out, json.dumps(verdict, indent=1, ensure_ascii=False) + "\n")
    if junit is not None:
        write_atomic(junit, ci.junit(verdict))
    if github:
        for line in ci.github_commands(verdict):
            print(line)
        if summary := os.environ.get("GITHUB_STEP_SUMMARY"):
            with Path(summary).open("a", encoding="utf-8") as file:
                file.write(ci.summary(verdict))
    if as_json:
        print(json.dumps(verdict))
    if found.exit_code:
        raise typer.Exit(found.exit_code)


@app.command()
def plan(
    effect: Annotated[float, typer.Option(help="The drop to be found, in points.")],
    power: Annotated[float, typer.Option(help="How surely.")] = 0.8,
    alpha: Annotated[float, typer.Option(help="Chance of a false alarm.")] = 0.05,
    discordance: Annotated[float, typer.Option(help="Share of items that change sides.")] = 0.1,
) -> None:
    """Say how many items a drop needs to be found."""
    from qwen_eval.stats import items_needed

    if not 0 < effect / 100 < discordance <= 1:
        raise UserError(
            f"--effect {effect:g}: a drop of that many points needs more than that share of items "
            f"to change sides, --discordance is {discordance:g}"
        )
    for name, value in (("--power", power), ("--alpha", alpha)):
        if not 0 < value < 1:
            raise UserError(f"{name} {value:g}: give a chance between 0 and 1")
    items = items_needed(effect / 100, discordance, alpha=alpha, power=power)
    print(
        f"{items:,} items: a drop of {effect:g} points is then found {power:.0%} of the time "
        f"(one-sided, alpha {alpha:g}, {discordance:.0%} of the items changing sides)"
    )


@app.command()
def promote(
    run: Annotated[Path, typer.Argument(help="The run that becomes the baseline.")],
    to: Annotated[
        Path, typer.Option(help="Folder of the baseline; one that is there is replaced.")
    ],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the baseline.")],
    aa: Annotated[
        list[Path] | None, typer.Option(help="The same model run again; two at least.")
    ] = None,
    by: Annotated[str | None, typer.Option(help="Who; the login name if not given.")] = None,
) -> None:
    """Make a run the baseline, with the run-to-run noise that its repetitions show."""
    import getpass

    from qwen_eval.measures import measure_of
    from qwen_eval.promote import promote as promote_run
    from qwen_eval.reports.plain import one_line
    from qwen_eval.results import read_run

    if not reason.strip():
        raise UserError("--reason: say why, it is kept with the baseline")
    try:
        who = by or getpass.getuser()
    except (KeyError, OSError):
        raise UserError("--by: the system knows no login name, say who promotes") from None
    promoted = read_run(run)
    noise = promote_run(
        promoted,
        [read_run(folder) for folder in aa or ()],
        to,
        reason=reason,
        who=who,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    for name, task in noise.tasks.items():
        measure = measure_of(promoted.info.tasks[name].metric)
        spread = replace(measure, digits=measure.digits + 1).shown
        print(
            f"{one_line(name)}: {noise.runs} runs over {task.n} items, scores "
            f"{measure.shown(min(task.scores))} to {measure.shown(max(task.scores))}; "
            f"standard deviation {spread(task.between_sd)} {measure.unit}, "
            f"{spread(task.flips_sd)} by single items and {spread(task.extra_variance**0.5)} "
            f"beyond; {len(task.unsteady)} items unsteady"
        )
    print(f"baseline: {one_line(str(to))}")


@app.command()
def explain(
    item: Annotated[str, typer.Argument(help="An item's id, or its beginning.")],
    baseline: Annotated[Path, typer.Option(help="The run to hold against.")],
    candidate: Annotated[Path, typer.Option(help="The run to judge.")],
    rules: Annotated[Path | None, typer.Option(help="A gate.yaml, for its quarantine.")] = None,
    full: Annotated[
        bool, typer.Option("--full", help="With the beginning that prompts share.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object last on stdout.")
    ] = False,
) -> None:
    """Show one item: the question, both answers, and what the gate makes of them."""
    from qwen_eval.explain import explain as explain_item
    from qwen_eval.promote import read_noise
    from qwen_eval.reports.item import text
    from qwen_eval.results import read_run
    from qwen_eval.rules import read_rules

    found = explain_item(
        item,
        read_run(baseline),
        read_run(candidate),
        today=datetime.now(UTC).date(),
        rules=read_rules(rules) if rules else None,
        noise=read_noise(baseline),
    )
    typer.echo(text(found, full=full), nl=False, err=as_json)
    if as_json:
        print(json.dumps(found))
