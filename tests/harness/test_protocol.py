"""Which published figures a score stands beside, and what is said not to be alike."""

from __future__ import annotations

from typing import Any

import pytest

from qwen_eval.cli.setup import load_tasks
from qwen_eval.paper import tables
from qwen_eval.protocol import beside, differences, metric_difference, paper_name, rows
from qwen_eval.results import TaskInfo
from qwen_eval.taskspec import find_task
from tests.harness.toys import task_info

TABLES = {table.table: table.rows for table in tables()}
OTHER: dict[str, Any] = {"name": "mock:random", "max_length": 4096}


def info(task: str, **fields: Any) -> TaskInfo:
    """A whole benchmark, asked as nobody else does."""
    return task_info(**{"recipe": f"{task}@strict", "shots": 0, "protocol": "ours"} | fields)


def told(given: TaskInfo, model: dict[str, Any] = OTHER, truncated: int = 0) -> set[str]:
    """The sentences beside the first figure."""
    figure = beside(given, model, given.metric)[0]
    return {one.text for one in differences(given, figure, model, truncated)}


@pytest.mark.parametrize(
    ("name", "asked_for", "expected"),
    [
        ("Qwen-7B", "Qwen/Qwen-7B", "Qwen 7B"),
        ("Qwen-14B-Chat", "models/Qwen-14B-Chat", "Qwen-Chat 14B"),
        # A snapshot's folder is named after its commit.
        ("0c4f1ed6", "hf:Qwen/Qwen-7B-Chat", "Qwen-Chat 7B"),
        ("Qwen-1_8B", "Qwen/Qwen-1_8B", "Qwen 1.8B (released)"),
        ("Qwen1.5-7B", "Qwen/Qwen1.5-7B", None),
        ("Qwen-7B-Chat-Int4", "Qwen/Qwen-7B-Chat-Int4", None),
        ("my-Qwen-7B", "my-Qwen-7B", None),
    ],
)
def test_the_papers_models_are_known_by_name(
    name: str, asked_for: str, expected: str | None
) -> None:
    assert paper_name({"name": name, "asked_for": asked_for}) == expected
    assert expected is None or any(expected in rows_ for rows_ in TABLES.values())


@pytest.mark.parametrize(
    ("chat", "shots", "expected"),
    [
        (False, 5, {"Qwen 1.8B": 44.6, "Qwen 7B": 58.2, "Qwen 14B": 66.3}),
        (False, 0, {"Qwen 1.8B": 44.6, "Qwen 7B": 58.2, "Qwen 14B": 66.3}),
        (True, 0, {"Qwen-Chat 1.8B": 42.4, "Qwen-Chat 7B": 55.8, "Qwen-Chat 14B": 64.6}),
        (True, 5, {"Qwen-Chat 1.8B": 43.9, "Qwen-Chat 7B": 57.0, "Qwen-Chat 14B": 66.5}),
    ],
)
def test_figures_of_the_same_kind_and_shots(
    chat: bool, shots: int, expected: dict[str, float]
) -> None:
    found = beside(info("mmlu", chat=chat, shots=shots), OTHER, "accuracy")
    assert {f.model: f.value for f in found} == expected, "Qwen Technical Report, tables 2 and 5"


def test_a_model_of_the_paper_stands_beside_itself_alone() -> None:
    found = beside(info("mmlu", shots=5), {"name": "Qwen-7B-Chat"}, "accuracy")
    assert [(f.table, f.model, f.value) for f in found] == [("table5", "Qwen-Chat 7B", 57.0)]
    small = {"name": "Qwen-1_8B"}
    assert [(f.table, f.value) for f in beside(info("mmlu", shots=5), small, "accuracy")] == [
        ("readme", 45.3)
    ]
    # What was published of the paper's 1.8B alone is of another model, and said to be.
    another = "the paper's 1.8B is another model than the released one"
    assert another in told(info("hellaswag"), small)
    assert another not in told(info("mmlu", shots=5), small)


def test_only_figures_of_the_metric_are_figures_of_the_score() -> None:
    (row, newer) = rows(
        info("react_tools", metric="tool_selection"), OTHER, [("tool_selection", None)]
    )
    assert (row.table, newer.table) == ("table6", "readme_tools")
    assert row.figures["Qwen-Chat 14B"] == 98.0
    assert beside(info("react_tools", metric="accuracy"), OTHER, "accuracy") == []
    other = metric_difference(info("react_tools", metric="accuracy"))
    assert other
    assert other.text == (
        "metric accuracy here, tool_selection, tool_input_rouge_l, false_positive there"
    )
    assert metric_difference(info("mmlu")) is None
    assert metric_difference(info("no_such_task")) is None


ALIKE = {
    "shots": 5,
    "solver": "choice",
    "scorer": "argmax",
    "protocol": "QwenLM/Qwen eval/evaluate_mmlu.py, cut past 2,048 tokens",
    "max_prompt_tokens": 2048,
    "macro": False,
}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, set()),
        ({"shots": 3}, {"3-shot here, 5-shot there"}),
        ({"macro": True}, {"mean over subjects here, over questions there"}),
        ({"selected": 2}, {"a draw of the samples here, all of them there"}),
        (
            {"data_kind": "sample"},
            {"SAMPLE questions of this project here, the benchmark there"},
        ),
        (
            {"data_kind": "own", "selected": 2},
            {
                "questions of this project here, others there",
                "a draw of the samples here, all of them there",
            },
        ),
        (
            {"protocol": "lm-evaluation-harness 0.4.13, tasks/mmlu"},
            {"recipe of lm-eval here, of the task's released script there"},
        ),
        (
            {"protocol": "ours", "scorer": "number"},
            {
                "recipe of qwen-eval here, of the task's released script there",
                "scorer here: number; there: argmax",
            },
        ),
        (
            {"max_prompt_tokens": None},
            {"long prompts whole here, cut to 2,048 tokens there"},
        ),
        (
            {"max_prompt_tokens": 1024},
            {"long prompts cut to 1,024 tokens here, to 2,048 there"},
        ),
    ],
)
def test_every_difference_has_its_sentence(changed: dict[str, Any], expected: set[str]) -> None:
    assert told(info("mmlu", **ALIKE | changed)) == expected


def test_a_conversation_is_no_text() -> None:
    chat = info("mmlu", **ALIKE | {"chat": True})
    of_base = told(chat, {"name": "Qwen-7B"})
    assert of_base == {"a conversation here, plain text there"}
    of_chat = told(info("mmlu", **ALIKE | {"shots": 0}), {"name": "Qwen-7B-Chat"})
    assert "plain text here, a conversation there" in of_chat


@pytest.mark.parametrize(
    ("limit", "room", "named"), [(None, 512, True), (2048, 512, True), (2048, 4096, False)]
)
def test_prompts_that_the_model_has_no_room_for(limit: int | None, room: int, named: bool) -> None:
    given = info("mmlu", **ALIKE | {"max_prompt_tokens": limit})
    model = {"name": "small", "max_length": room}
    said = "some prompts cut to this model's context here"
    # The recipe's own cut is the script's too.
    assert (said in told(given, model, truncated=3)) is named
    assert said not in told(given, model, truncated=0)


def test_what_the_paper_does_not_say_is_not_published() -> None:
    given = info("math401", chat=True, protocol="ours")
    found = {d.aspect: d for d in differences(given, beside(given, OTHER, "accuracy")[0], OTHER)}
    unknown = {aspect for aspect, one in found.items() if one.paper is None}
    assert unknown == {"shots", "text", "recipe", "scorer"}, "greedy is said: table 12"
    assert found["scorer"].text == "not published: scorer"
    code = info("humanevalpack_rust", chat=True, metric="pass@1", protocol="ours")
    assert "not published: decoding" in told(code)
    drawn = info("math401", chat=True, decoding="temperature 0.7")
    assert "decoding here: temperature 0.7; there: greedy" in told(drawn)


@pytest.mark.parametrize(
    ("task", "unlike"),
    [
        ("mmlu@qwen", set()),
        ("gsm8k@qwen", set()),
        ("humaneval@qwen", set()),
        ("ceval@qwen", set()),
        ("cmmlu@qwen", set()),
        ("mmlu@qwen-chat", set()),
        ("ceval@qwen-chat", set()),
        ("mmlu@chat", {"script", "scorer"}),
        ("mmlu@chat-5shot", {"text", "recipe", "scorer", "decoding"}),
        ("ceval@strict", {"script", "questions"}),
        ("hellaswag@strict", {"recipe", "scorer"}),
        ("mmlu@strict", {"script", "whole"}),
        ("mmlu@lm-eval", {"script", "whole", "shots"}),
        ("gsm8k@strict", {"script", "scorer"}),
        ("humaneval@strict", {"script", "scorer"}),
    ],
)
def test_our_own_recipes(task: str, unlike: set[str]) -> None:
    """Those made after the released scripts are the paper's protocol as far as it is known."""
    whole = asked_by(task)
    figure = beside(whole, OTHER, whole.metric)[0]
    assert {one.aspect for one in differences(whole, figure, OTHER)} == unlike


def asked_by(task: str) -> TaskInfo:
    """All of a benchmark, which need not be there, under one of our recipes."""
    spec, name = find_task(task)
    recipe = spec.recipes[name]
    return task_info(
        recipe=task,
        solver=recipe.solver or spec.solver,
        metric=spec.metric,
        scorer=recipe.scorer,
        shots=recipe.shots.count if recipe.shots else 0,
        protocol=recipe.source,
        chat=recipe.chat,
        max_prompt_tokens=recipe.max_prompt_tokens,
        macro=recipe.macro,
    )


@pytest.mark.parametrize("task", ["mmlu@qwen", "mmlu@chat"])
def test_a_run_tells_what_its_recipe_is(task: str) -> None:
    (loaded,) = load_tasks(task, None, "1")
    for key in ("solver", "scorer", "shots", "protocol", "chat", "max_prompt_tokens", "macro"):
        assert getattr(loaded.info, key) == getattr(asked_by(task), key)
    assert loaded.info.decoding == "greedy"
