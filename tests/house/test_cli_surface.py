"""The command line as users and scripts know it: a change here is a change of contract."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import typer

from qwen_eval.cli.main import app
from tests.cli.command import qwen_eval

SURFACE = {
    "run": {
        "--tasks",
        "--model",
        "--data",
        "--task-path",
        "--out",
        "--limit",
        "--seed",
        "--dtype",
        "--device",
        "--batch",
        "--batch-invariant",
        "--no-batch-invariant",
        "--kv-memory",
        "--max-length",
        "--ntk",
        "--no-ntk",
        "--ntk-chunks",
        "--no-ntk-chunks",
        "--logn",
        "--no-logn",
        "--window",
        "--no-window",
        "--window-sizes",
        "--yarn",
        "--accept-no-sandbox",
        "--plan",
        "--json",
    },
    "context": {
        "--out",
        "--model",
        "--data",
        "--tasks",
        "--lengths",
        "--rows",
        "--limit",
        "--dtype",
        "--device",
        "--batch",
        "--kv-memory",
        "--paper",
        "--language",
        "--json",
    },
    "explain": {
        "--recipes",
        "--data",
        "--task-path",
        "--model",
        "--out",
        "--accept-no-sandbox",
        "--json",
        "run_a",
        "run_b",
    },
    "rescore": {
        "--data",
        "--task-path",
        "--show",
        "--audit",
        "--accept-no-sandbox",
        "--json",
        "run",
    },
    "report": {
        "runs",
        "-o",
        "--out",
        "--gate",
        "--language",
        "--samples",
        "--no-samples",
        "--alpha",
        "--watch",
        "--every",
        "--open",
    },
    "compare": {"baseline", "candidate", "--tasks", "--allow", "--alpha", "--flips", "--json"},
    "gate": {
        "--rules",
        "--baseline",
        "--candidate",
        "--allow",
        "--out",
        "--junit",
        "--github",
        "--json",
    },
    "gate plan": {"--effect", "--power", "--alpha", "--discordance"},
    "gate promote": {"run", "--to", "--aa", "--reason", "--by"},
    "gate explain": {"item", "--baseline", "--candidate", "--rules", "--full", "--json"},
    "history": {
        "folders",
        "--index",
        "--tasks",
        "--model",
        "-o",
        "--out",
        "--language",
        "--json",
    },
    "tasks": {"--task-path", "--json"},
    "tasks new": {"name", "--to", "--solver"},
    "tasks check": {"file", "--data", "--accept-no-sandbox"},
    "tasks show": {"name", "--id", "--row", "--data", "--model", "--task-path", "--json"},
    "models": set(),
    "models pull": {"name"},
    "data check": {"--data", "--task-path"},
    "data pull": {"--tasks", "--to"},
    "data contamination": {"--corpus", "--tasks", "--data", "--n", "--run", "--out", "--json"},
    "data probe": {
        "--tasks",
        "--model",
        "--data",
        "--limit",
        "--shuffles",
        "--seed",
        "--dtype",
        "--device",
        "--batch",
        "--out",
        "--json",
    },
    "train tokenizer": {
        "--text",
        "--vocab-size",
        "--out",
        "--base",
        "--drop-numbers",
        "--limit-mb",
        "--weights",
    },
    "train tokenizer-report": {
        "--vocab",
        "--text",
        "--reference",
        "--by",
        "--limit-mb",
        "--json",
    },
    "train data": {
        "recipe",
        "--out",
        "--data",
        "--tokenizer",
        "--workers",
        "--memory",
        "--json",
    },
    "train data-review": {"what", "--samples", "--seed"},
    "train data-scorer": {
        "--positive",
        "--negative",
        "--out",
        "--key",
        "--negative-key",
        "--penalty",
    },
    "train pretrain": {
        "recipe",
        "--model",
        "--corpus",
        "--out",
        "--evaluate",
        "--limit",
        "--data",
        "--prompt",
        "--look-every",
        "--tensorboard",
        "--wandb",
        "--dry-run",
        "--world-size",
        "--gpu-memory",
        "--peak-tflops",
        "--mfu",
        "--json",
    },
    "train sft": {
        "recipe",
        "--model",
        "--data",
        "--out",
        "--evaluate",
        "--limit",
        "--prompt",
        "--look-every",
        "--tensorboard",
        "--wandb",
    },
    "train reward": {
        "recipe",
        "--model",
        "--data",
        "--out",
        "--half",
        "--tensorboard",
        "--wandb",
    },
    "train reward-report": {"models", "--sets", "--data", "--limit", "--json"},
    "train comparisons": {
        "--prompts",
        "--out",
        "--models",
        "--temperatures",
        "--top-p",
        "--max-tokens",
        "--count",
        "--tagger",
        "--least",
        "--judge",
        "--scores",
        "--pairs",
        "--dtype",
        "--device",
        "--batch",
        "--seed",
        "--json",
    },
    "train self-instruct": {
        "--model",
        "--out",
        "--seeds",
        "--data",
        "--samples",
        "--rounds",
        "--asked",
        "--shots",
        "--temperature",
        "--top-p",
        "--max-tokens",
        "--simulate",
        "--no-simulate",
        "--dtype",
        "--device",
        "--batch",
        "--seed",
        "--json",
    },
    "convert": {"model", "--delta-from", "--out", "--size"},
    "perf": {"--model", "--dtype", "--json"},
    "chat": {
        "--model",
        "--system",
        "--dtype",
        "--max-tokens",
        "--temperature",
        "--top-p",
        "--seed",
    },
    "lm-eval": {"arguments"},
    "sandbox doctor": {"--all", "--json"},
    "annotate": set(),
    "annotate judge": {
        "study",
        "--batch",
        "--database",
        "--device",
        "--dtype",
        "--kv-memory",
        "--model",
        "--name",
        "--recipe",
        "--seed",
    },
    "annotate init": {
        "more",
        "--allow-empty",
        "--answers",
        "--baseline",
        "--control-every",
        "--dwell",
        "--gold",
        "--hide",
        "--lease",
        "--name",
        "--out",
        "--overlap",
        "--quota",
        "--systems",
    },
    "annotate invite": {
        "name",
        "study",
        "--database",
        "--email",
        "--role",
        "--url",
    },
    "annotate revoke": {
        "name",
        "study",
        "--database",
    },
    "annotate serve": {
        "study",
        "--database",
        "--host",
        "--port",
        "--solo",
        "--url",
    },
    "annotate status": {
        "study",
        "--database",
        "--json",
    },
    "annotate pause": {
        "study",
        "--database",
    },
    "annotate resume": {
        "study",
        "--database",
    },
    "annotate close": {
        "study",
        "--database",
    },
    "annotate unblind": {
        "study",
        "--database",
    },
    "annotate report": {
        "study",
        "--database",
        "--json",
        "--language",
        "--out",
        "-o",
    },
    "annotate export": {
        "study",
        "--database",
        "--names",
        "--out",
    },
}


def found() -> dict[str, set[str]]:
    """Every command with its options and arguments."""
    surface: dict[str, set[str]] = {}

    def walk(command, name: str) -> None:
        inner = getattr(command, "commands", None)
        if inner is None or getattr(command, "invoke_without_command", False):
            names = {
                text
                for parameter in command.params
                for text in (*parameter.opts, *parameter.secondary_opts)
            }
            surface[name] = names - {"--help", "-h", "--version"}
        for sub, child in (inner or {}).items():
            walk(child, f"{name} {sub}".strip())

    walk(typer.main.get_command(app), "")
    return surface


def test_commands_and_options_are_these() -> None:
    assert found() == SURFACE


@pytest.mark.parametrize(
    "heavy", ["torch", "transformers", "numpy", "pandas", "lm_eval", "qwen_eval.fileio"]
)
def test_help_loads_nothing_heavy(heavy: str) -> None:
    code = (
        "import sys; sys.argv = ['qwen-eval', '--help']\n"
        "from qwen_eval.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"sys.exit({heavy!r} in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, f"--help imports {heavy}"


def test_help_of_every_command_answers() -> None:
    for name in SURFACE:
        done = qwen_eval(*name.split(), "--help")
        assert done.returncode == 0, done.stderr
        assert "Usage" in done.stdout


def test_help_needs_little_work() -> None:
    # Processor time, not wall time: a busy machine must not fail this.
    began = time.process_time()
    before = _children()
    subprocess.run([sys.executable, "-m", "qwen_eval", "--help"], capture_output=True, check=True)
    assert _children() - before + time.process_time() - began < 1.0


def _children() -> float:
    import resource

    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
