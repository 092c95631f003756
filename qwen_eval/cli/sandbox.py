"""`qwen-eval sandbox doctor`: what this machine offers to contain programs, tried by doing it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from qwen_eval.errors import RefusedError

if TYPE_CHECKING:
    from qwen_eval.sandbox.preflight import Finding

app = typer.Typer(help="What contains the programs that a model writes.", no_args_is_help=True)

_MEANING = {
    "A": "programs and interpreter sessions run; nothing is missing that would matter",
    "B": "programs and interpreter sessions run; what processes use together is not limited",
    "C": "programs run, can write nothing and learn which paths exist; no interpreter sessions",
    "D": "no program is run",
}


@app.callback()
def _group() -> None:
    """What contains the programs that a model writes."""


@app.command("doctor")
def doctor(
    every: Annotated[bool, typer.Option("--all", help="Run the whole attack bank.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object last on stdout.")
    ] = False,
) -> None:
    """Try each layer, say which rung results, and attack it; exit 3 where no program is run."""
    from qwen_eval.sandbox.attacks import bank
    from qwen_eval.sandbox.layers import NONE
    from qwen_eval.sandbox.preflight import findings, open_sandbox

    found = findings()
    layers = [asdict(finding) for finding in found]
    if not as_json:
        _print(found)
    try:
        opened = open_sandbox()
    except RefusedError:
        if as_json:
            print(json.dumps({"rung": "D", "isolation": NONE, "layers": layers}))
        raise
    with opened as sandbox:
        rung = sandbox.rung
        if not as_json:
            print(f"\nrung {rung}: {_MEANING[rung]}\nisolation: {sandbox.isolation}")
        outcomes = list(bank.run_all(sandbox, bank.attacks_for(sandbox, quick=not every)))
    through = [attack.name for attack, outcome in outcomes if outcome.result != "held"]
    if as_json:
        told = {"rung": rung, "isolation": sandbox.isolation, "layers": layers}
        print(json.dumps(told | {"attacks": len(outcomes), "got_through": through}))
    else:
        print(f"attacks: {len(outcomes)} run just now, {len(through)} got through")
    if through:
        raise RefusedError(f"these attacks got through: {', '.join(through)}")


def _print(found: list[Finding]) -> None:
    for finding in found:
        print(f"{finding.layer:12}{'yes' if finding.there else 'no':5}{finding.detail}")
        if finding.remedy:
            print(f"{'':17}{finding.remedy}")
