"""`qwen-eval gate`: stop a regression, by rules and with one verdict."""

from __future__ import annotations

import json
import os
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
    from qwen_eval.reports import ci
    from qwen_eval.results import read_run
    from qwen_eval.rules import read_rules

    read = read_rules(rules)
    today = datetime.now(UTC).date()
    found = judge(read, read_run(baseline), read_run(candidate), today=today, allow=allow or ())
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
