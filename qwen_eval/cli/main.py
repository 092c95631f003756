"""The command `qwen-eval`: its sub-commands, and how errors reach the user.

Nothing heavy is imported here: every command imports what it needs when it runs.
"""

from __future__ import annotations

import sys

import typer
from typer.exceptions import TyperException

from qwen_eval import __version__
from qwen_eval.cli import (
    annotate,
    chat,
    compare,
    context,
    convert,
    data,
    explain,
    gate,
    history,
    lm_eval,
    models,
    perf,
    report,
    rescore,
    run,
    sandbox,
    tasks,
    train,
)
from qwen_eval.errors import QwenEvalError
from qwen_eval.reports.plain import visible

app = typer.Typer(
    name="qwen-eval",
    help="Judge Qwen-style models: run benchmarks, keep every sample, print scores with intervals.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"qwen-eval {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and leave."
    ),
) -> None:
    """Judge Qwen-style models: run benchmarks, keep every sample, print scores with intervals."""


app.command("run")(run.command)
app.command("rescore")(rescore.command)
app.command("report")(report.command)
app.command("compare")(compare.command)
app.command("explain")(explain.command)
app.command("context")(context.command)
app.add_typer(tasks.app, name="tasks")
app.add_typer(gate.app, name="gate")
app.command("history")(history.command)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.command("convert")(convert.command)
app.command("perf")(perf.command)
app.command("chat")(chat.command)
app.command("lm-eval", context_settings=lm_eval.THEIRS)(lm_eval.command)
app.add_typer(sandbox.app, name="sandbox")
app.add_typer(annotate.app, name="annotate")


def main() -> None:
    """Entry point: one line on stderr and the right exit code for whatever goes wrong."""
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no dashes loses no table
    try:
        code = app(standalone_mode=False)
    except QwenEvalError as error:
        _say(str(error))
        code = error.exit_code
    except TyperException as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if message:  # without one, help has been shown
            _say(message)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except SystemExit as leaving:
        # Typer makes exit 1 of a reader of our output that has left (`| head`): that is no error.
        code = 0 if isinstance(leaving.__context__, BrokenPipeError) else leaving.code
    if code == 130:
        _say("interrupted")
    sys.exit(code if isinstance(code, int) else 0)


def _say(message: str) -> None:
    print("qwen-eval: " + visible(" ".join(message.split())), file=sys.stderr)
