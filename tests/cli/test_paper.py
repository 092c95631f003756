"""The paper's figures beneath the table of a run, and what was not alike."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qwen_eval.cli.paper import beside_paper, differing, print_beside
from qwen_eval.metrics import TaskMetrics, summarise
from qwen_eval.results import RunInfo
from tests.cli.command import qwen_eval
from tests.harness.toys import record, run_info, task_info


def shown(info: RunInfo, measured: list[TaskMetrics], width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    print_beside(console, beside_paper(info, measured))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def a_run(model: str = "mock:random", **tasks: dict[str, Any]) -> tuple[RunInfo, list[TaskMetrics]]:
    """A run of tasks of one sample each, which is right."""
    infos = {f"{name}@strict": task_info(recipe=f"{name}@strict", **of) for name, of in
             tasks.items()}  # fmt: skip
    measured = [
        summarise(name, i.metric, [record(0, task=name, values={i.metric: 1.0})])
        for name, i in infos.items()
    ]
    return run_info(model={"name": model, "dtype": "float32"}, tasks=infos), measured


@pytest.mark.parametrize("model", ["mock:oracle", "mock:random"])
def test_a_run_says_what_the_paper_has_and_what_differs(
    model: str, mirror: Path, tmp_path: Path
) -> None:
    done = qwen_eval(
        "run", "--tasks", "mmlu,humaneval@qwen,tiny_pairs", "--model", model, "--data", mirror,
        "--limit", "humaneval@qwen=3,mmlu=20,tiny_pairs=2", "--out", tmp_path / "run",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    below = done.stdout.partition("Beside the paper")[2].partition("isolation:")[0]
    assert all(len(line.rstrip()) <= 80 for line in below.splitlines())
    lines = [" ".join(line.split()) for line in below.splitlines()]
    right = "100.0" if model == "mock:oracle" else ""
    of_mmlu = next(line for line in lines if line.startswith("mmlu@strict"))
    assert of_mmlu.startswith(f"mmlu@strict {right}")
    assert of_mmlu.endswith("44.6 58.2 66.3 table 2, base, 5-shot")
    of_code = next(line for line in lines if line.startswith("humaneval@qwen"))
    assert of_code.endswith("17.1 29.9 32.3 table 2, base, 0-shot")
    assert any(line.endswith("50.0 68.6 76.2 table 13, base, 5-shot") for line in lines)
    assert [line for line in lines if line.startswith("·")] == [
        "· a draw of the samples here, all of them there (all)",
        "· recipe of lm-eval here, of the task's released script there (mmlu)",
        "· long prompts whole here, cut to 2,048 tokens there (mmlu)",
    ]
    assert "tiny_pairs" not in below, "nobody else could publish anything of it"


def test_json_carries_the_same(tmp_path: Path) -> None:
    done = qwen_eval(
        "run", "--tasks", "mmlu@lm-eval,tiny_pairs", "--model", "mock:oracle", "--limit", "9",
        "--out", tmp_path / "run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    tasks = json.loads(done.stdout.splitlines()[-1])["tasks"]
    assert tasks["tiny_pairs@strict"]["paper"] == []
    whole, *parts = tasks["mmlu@lm-eval"]["paper"]
    assert (whole["table"], whole["kind"], whole["shots"], whole["ours"]) == (
        "table2", "base", 5, 1.0,
    )  # fmt: skip
    assert whole["figures"] == {"Qwen 1.8B": 44.6, "Qwen 7B": 58.2, "Qwen 14B": 66.3}
    assert {part["table"] for part in parts} == {"table13"}
    unlike = {one["aspect"]: (one["ours"], one["paper"]) for one in whole["differences"]}
    assert unlike == {
        "data": ("sample", "benchmark"),
        "shots": ("0", "5"),
        "script": ("lm-eval", "eval/evaluate_mmlu.py"),
        "whole": ("", "2,048"),
    }
    assert "0-shot here, 5-shot there" in done.stderr, "the table is on stderr"


def test_tasks_that_nobody_published_leave_the_terminal_as_it_was() -> None:
    assert shown(*a_run(tiny={"data_kind": "own"}, ifeval={})) == ""
    text = shown(*a_run(mmlu={"shots": 5}, tiny={"data_kind": "own"}, ifeval={}))
    assert "not published: any figure (ifeval)" in text
    assert "tiny@strict" not in text


def test_one_model_of_the_paper_has_one_column() -> None:
    text = shown(*a_run("Qwen-7B", mmlu={"shots": 5}, hellaswag={"shots": 0}))
    assert "58.2" in text
    assert "75.1" in text
    assert "14B" not in text
    assert "66.3" not in text
    # Where there is none of its own, those of the paper's other model are told from it.
    both = shown(*a_run("Qwen-1_8B", mmlu={"shots": 5}, hellaswag={"shots": 0}))
    assert "(released)" in both
    assert "45.3" in both
    assert "another model than the released one (hellaswag)" in " ".join(both.split())


def test_other_metrics_of_a_task_have_lines_of_their_own() -> None:
    info, _ = a_run(react_tools={
        "metric": "tool_selection", "shots": 0, "chat": True,
        "protocol": "QwenLM/Qwen eval/evaluate_plugin.py",
    })  # fmt: skip
    recipe = "react_tools@strict"
    records = [
        record(0, task=recipe, values={"tool_selection": 1.0, "tool_input_rouge_l": 0.5}),
        record(1, task=recipe, values={"tool_selection": 0.0, "tool_input_rouge_l": 0.2}),
    ]
    also = ("tool_input_rouge_l", "false_positive")
    measured = [summarise(recipe, "tool_selection", records, also=also)]
    (found,) = beside_paper(info, measured)
    # What holds beside one of two tables is said of it.
    assert {text: names for text, names in differing([found]).items() if "version" in text} == {
        "there: data of version 20231206": ["react_tools in README"]
    }
    of_input = [row.figures for row in found.rows if row.metric == "tool_input_rouge_l"]
    assert [figures["Qwen-Chat 7B"] for figures in of_input] == [91.0, 90.0]
    text = shown(info, measured)
    line = next(line for line in text.splitlines() if line.startswith("  tool_input_rouge_l"))
    assert line.split()[1:5] == ["35.0", "89.0", "91.0", "93.0"]
    assert "false_positive" not in text, "no sample holds it"


def test_a_score_of_ours_does_not_hide_figures_of_further_metrics() -> None:
    info, _ = a_run(react_tools={"metric": "right_decision", "shots": 0, "chat": True})
    recipe, also = "react_tools@strict", ("tool_selection", "false_positive")
    wanted = record(0, task=recipe, values={"right_decision": 1.0, "tool_selection": 1.0})
    unwanted = record(1, task=recipe, values={"right_decision": 1.0, "false_positive": 0.0})
    measured = [summarise(recipe, "right_decision", [wanted, unwanted], also=also)]
    (found,) = beside_paper(info, measured)
    assert found.unmatched is None
    assert {row.metric for row in found.rows} == set(also)
    assert not any(text.startswith("metric ") for text in differing([found]))
    assert "react_tools@strict: tool_selection" in shown(info, measured)


def test_the_mean_that_a_recipe_quotes_is_the_one_beside_the_paper() -> None:
    recipe = "ceval@qwen"
    info = run_info(tasks={recipe: task_info(recipe=recipe, shots=5, macro=True)})
    right = [record(i, task=recipe, group="a") for i in range(3)]
    wrong = [record(3, 0.0, task=recipe, group="b")]
    measured = [summarise(recipe, "accuracy", right + wrong, macro=True)]
    assert beside_paper(info, measured)[0].ours == {("accuracy", None): 0.5}


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_no_figure_is_cut_at_any_width(width: int) -> None:
    text = shown(*a_run(mmlu={"shots": 5}, gsm8k={"shots": 8}), width=width)
    assert "…" not in text
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    for figure in ("100.0", "44.6", "58.2", "66.3", "21.2", "51.7", "61.3"):
        assert figure in text
