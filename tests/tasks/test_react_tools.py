"""The tool-use tasks: their data, the bytes of the prompt, and what a reply is worth."""

from __future__ import annotations

import difflib
import importlib.metadata
import json
import random
import shutil
from collections import Counter
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from qwen_eval.backends.base import BackendOptions
from qwen_eval.backends.mock import MockBackend
from qwen_eval.cli import solvers
from qwen_eval.cli.setup import LoadedTask, load_task, load_tasks
from qwen_eval.datasets import open_data
from qwen_eval.fileio import read_jsonl
from qwen_eval.metrics import estimate_of
from qwen_eval.model import qwen_tokenizer
from qwen_eval.results import read_samples
from qwen_eval.runner import Runner, replay
from qwen_eval.suites import SUITES_DIR, load_suite
from qwen_eval.tasks.scorers.tool_gold import gold_call
from qwen_eval.tasks.solvers.react import react
from qwen_eval.taskspec import TASKS_DIR, find_task
from qwen_eval.types import Item, Response, Score
from tests.cli.command import qwen_eval
from tests.harness.toys import item

ROWS = list(read_jsonl(TASKS_DIR / "react_tools" / "data.jsonl"))
POSITIVE = [row for row in ROWS if row["call"]]

# QwenLM/Qwen, examples/react_prompt.md.
TOOL_DESC = (
    "{name_for_model}: Call this tool to interact with the {name_for_human} API. "
    "What is the {name_for_human} API useful for? {description_for_model} "
    "Parameters: {parameters} Format the arguments as a JSON object."
)
REACT_PROMPT = """Answer the following questions as best you can. \
You have access to the following tools:

{tool_descs}

Use the following format:

Question: the input question you must answer
Thought: you should always think about what to do
Action: the action to take, should be one of [{tool_names}]
Action Input: the input to the action
Observation: the result of the action
... (this Thought/Action/Action Input/Observation can be repeated zero or more times)
Thought: I now know the final answer
Final Answer: the final answer to the original input question

Begin!

Question: {query}"""


def wanted_prompt(query: str, tools: list[dict[str, Any]]) -> str:
    described = [
        TOOL_DESC.format(
            **tool | {"parameters": json.dumps(tool["parameters"], ensure_ascii=False)}
        )
        for tool in tools
    ]
    return REACT_PROMPT.format(
        tool_descs="\n\n".join(described),
        tool_names=",".join(tool["name_for_model"] for tool in tools),
        query=query,
    )


def test_the_rows_are_whole_and_balanced() -> None:
    assert len({row["id"] for row in ROWS}) == len(ROWS) == 80
    kinds = Counter(row["kind"] for row in ROWS)
    assert kinds == {"positive_en": 25, "positive_zh": 25, "negative_en": 15, "negative_zh": 15}
    for row in ROWS:
        assert set(row) == {"id", "kind", "query", "tools", "call"}
        assert row["kind"].startswith("positive") is (row["call"] is not None)
        assert row["id"].startswith(row["kind"][-2:])
        chinese = any("\u4e00" <= letter <= "\u9fff" for letter in row["query"])
        assert chinese is row["kind"].endswith("zh")
        assert 2 <= len(row["tools"]) <= 5
        for tool in row["tools"]:
            human = {"name_for_human", "name_for_model", "description_for_model", "parameters"}
            assert set(tool) == human
        names = [tool["name_for_model"] for tool in row["tools"]]
        assert len(set(names)) == len(names)


def test_gold_calls_fit_what_the_tools_say_of_themselves() -> None:
    for row in POSITIVE:
        (tool,) = (t for t in row["tools"] if t["name_for_model"] == row["call"]["name"])
        schema = {
            "type": "object",
            "properties": {p["name"]: p["schema"] for p in tool["parameters"]},
            "required": [p["name"] for p in tool["parameters"] if p["required"]],
            "additionalProperties": False,
        }
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(row["call"]["arguments"], schema)


def test_the_right_tool_is_told_by_no_habit() -> None:
    """Not by its place, and not by being the same again and again."""
    places = Counter(
        [tool["name_for_model"] for tool in row["tools"]].index(row["call"]["name"])
        for row in POSITIVE
    )
    assert max(places.values()) <= len(POSITIVE) / 2
    assert max(Counter(row["call"]["name"] for row in POSITIVE).values()) <= 2
    assert len({row["call"]["name"] for row in POSITIVE}) >= 40


def test_arguments_are_of_every_kind() -> None:
    kinds = Counter(type(v).__name__ for r in POSITIVE for v in r["call"]["arguments"].values())
    assert min(kinds[kind] for kind in ("str", "int", "float", "list", "dict")) >= 5


def test_no_two_questions_are_nearly_the_same() -> None:
    for one, other in combinations([row["query"] for row in ROWS], 2):
        assert difflib.SequenceMatcher(None, one, other).ratio() < 0.6, (one, other)


@cache
def loaded(name: str, data: Path | None = None, limit: int | None = None) -> LoadedTask:
    spec, recipe = find_task(name)
    return load_task(open_data(spec, data, hub=False), recipe, limit)


@pytest.mark.parametrize(("recipe", "stop"), [("strict", ("\nObservation",)), ("qwen", ())])
def test_the_prompt_is_the_released_one(recipe: str, stop: tuple[str, ...]) -> None:
    for asked in loaded(f"react_tools@{recipe}").items:
        system, user = asked.prompt.messages
        assert (system.role, system.content) == ("system", "You are a helpful assistant.")
        row = asked.sample.row
        assert user.content == wanted_prompt(row["query"], row["tools"])
        assert (asked.decoding.stop, asked.decoding.temperature) == (stop, 0.0)


def test_the_leaderboard_is_asked_alike(mirror: Path) -> None:
    items = loaded("bfcl_tools", mirror).items
    counts = Counter(one.sample.group for one in items)
    assert counts == {
        "simple_python": 400, "multiple": 200, "live_simple": 247, "live_multiple": 866,
        "irrelevance": 240,
    }  # fmt: skip
    for asked in items[::40]:
        row = asked.sample.row
        text = json.dumps(row["function"], ensure_ascii=False)
        for theirs, schema in (("dict", "object"), ("float", "number"), ("tuple", "array")):
            text = text.replace(f'"type": "{theirs}"', f'"type": "{schema}"')
        tools = [
            {
                "name_for_model": function["name"],
                "name_for_human": function["name"],
                "description_for_model": function["description"],
                "parameters": function["parameters"],
            }
            for function in json.loads(text)
        ]
        assert asked.prompt.messages[-1].content == wanted_prompt(
            row["question"][0][0]["content"], tools
        )


def scores(task: LoadedTask, model: str) -> list[Score]:
    """What a mock model gets."""
    backend = MockBackend.open(model, BackendOptions())
    found = list(Runner(backend, lambda one: react(one, str.split)).run(task.items))
    assert [f.error for f in found if f.error] == []
    return [f.score for f in found]


RECIPES = ["react_tools", "react_tools@qwen", "bfcl_tools", "bfcl_tools@qwen"]


@pytest.mark.parametrize("name", RECIPES)
def test_who_knows_all_gets_all(name: str, mirror: Path) -> None:
    task = loaded(name, mirror, 200)
    found = scores(task, "oracle")
    wanted = dict.fromkeys(("right_decision", *task.spec.also), 1.0)
    wanted |= {"false_positive": 0.0, "lenient_arguments": 0.0}
    seen = set[str]()
    for score in found:
        assert score.values == {metric: wanted[metric] for metric in score.values}
        seen |= score.values.keys()
    untold = {"lenient_arguments"} if name.endswith("@qwen") else set[str]()
    assert seen == wanted.keys() - {"tool_input_rouge_l_words"} - untold


@pytest.mark.parametrize("name", RECIPES)
def test_who_babbles_calls_nothing(name: str, mirror: Path) -> None:
    found = scores(loaded(name, mirror, 200), "random")
    for score in found:
        negative = "false_positive" in score.values
        assert score.values == {m: float(negative and m == "right_decision") for m in score.values}
    assert any("tool_selection" in score.values for score in found)


GOLD = {"name": "w", "arguments": {"city": "Oslo", "days": 5, "dry": True}}


def asked(call: dict[str, Any] | None, scorer: str = "react", **fields: Any) -> Item:
    given = {"target": json.dumps(call), "scorer": scorer, "metric": "right_decision"}
    return item(1, **given | fields)


def judged(one: Item, text: str, reason: Any = "stop") -> Score:
    return replay(react(one, str.split), [Response(text=text, finish_reason=reason)])


@pytest.mark.parametrize(
    ("name", "arguments", "right", "exact", "rouge"),
    [
        ("w", '{"dry": true, "city": "Oslo", "days": 5.0}', 1, 1, 5 / 6),
        ("w", '{"city": "Oslo", "days": 5, "dry": true}', 1, 1, 1),
        ("w", '{"city": "Oslo", "days": 5, "dry": 1}', 1, 0, 5 / 6),
        ("w", '{"city": "Oslo", "days": "5", "dry": true}', 1, 0, 5 / 6),
        ("w", '{"city": "Oslo", "dry": true}', 1, 0, 8 / 10),
        ("v", '{"city": "Oslo", "days": 5, "dry": true}', 0, 0, 1),
        ("w", "Oslo, 5 days", 1, 0, 0),
    ],
)
def test_a_call_is_judged_by_its_tool_and_by_its_arguments(
    name: str, arguments: str, right: float, exact: float, rouge: float
) -> None:
    score = judged(asked(GOLD), f"Thought: t\nAction: {name}\nAction Input: {arguments}")
    assert score.values == {
        "right_decision": right,
        "tool_selection": right,
        "exact_arguments": exact,
        "tool_input_rouge_l": pytest.approx(rouge),
        "lenient_arguments": 0.0,
    }
    assert score.status == "scored"


def test_who_decides_nothing_is_wrong_where_no_tool_is_wanted() -> None:
    called = judged(asked(None), "Thought: t\nAction: w\nAction Input: {}")
    assert called.values == {"right_decision": 0.0, "false_positive": 1.0}
    answered = judged(asked(None), "It does not matter.")
    assert answered.values == {"right_decision": 1.0, "false_positive": 0.0}
    for text, reason in (("", "stop"), ("Well, well, well, w", "length")):
        score = judged(asked(None), text, reason)
        assert score.values == {"right_decision": 0.0, "false_positive": 0.0}
        assert (score.status, score.answer) == ("no_answer", None)


def test_figures_of_one_kind_are_means_over_that_kind() -> None:
    """The primary one has a value for every sample, so nothing is a zero by being absent."""
    found = scores(loaded("react_tools"), "oracle")
    primary, positives = (
        estimate_of(name, [s for s in found if name in s.values])
        for name in ("right_decision", "tool_selection")
    )
    assert primary is not None
    assert positives is not None
    assert (primary.n, positives.n) == (80, 50)


@pytest.mark.parametrize(
    ("accepted", "given", "right"),
    [
        ({"a": [1, 2], "u": ["m", ""]}, {"a": 2.0}, True),
        ({"a": [1, 2], "u": ["m", ""]}, {"a": 1, "u": "m"}, True),
        ({"a": [1, 2], "u": ["m", ""]}, {"a": 3}, False),
        ({"a": [1, 2], "u": ["m", ""]}, {"u": "m"}, False),
        ({"a": [1]}, {"a": 1, "b": 1}, False),
        ({"a": [1]}, {"a": True}, False),
        ({"a": [None, "x"]}, {"a": None}, True),
        ({"a": []}, {}, True),
        ({"a": []}, {"a": []}, False),
        ({"a": [[1, 2], [2, 1]]}, {"a": [2, 1]}, True),
        ({"a": [[1, 2]]}, {"a": [1]}, False),
        ({"a": [{"x": [1, 2], "y": ["", "k"]}]}, {"a": {"x": 2}}, True),
        ({"a": [{"x": [1, 2], "y": ["", "k"]}]}, {"a": {"x": 2, "z": 1}}, False),
        ({"a": [[{"f": ["age"], "v": ["25", 25]}]]}, {"a": [{"f": "age", "v": 25}]}, True),
        ({"a": [[{"f": ["age"], "v": ["25", 25]}]]}, {"a": [{"f": "age"}]}, False),
        ({"a": [{"p": [{"x": 1.5}]}]}, {"a": {"p": {"x": 1.5}}}, True),
    ],
)
def test_any_accepted_value_is_right(
    accepted: dict[str, Any], given: dict[str, Any], right: bool
) -> None:
    gold = gold_call(json.dumps({"name": "f", "accepted": accepted}))
    assert gold is not None
    assert gold.wants(json.dumps(given)) is right
    assert gold.wants(gold.text)
    assert not gold.wants("")


def test_the_leaderboards_accepted_values_are_right_and_others_are_not(mirror: Path) -> None:
    rng = random.Random(0)
    changed = 0
    for one in loaded("bfcl_tools", mirror).items:
        gold = gold_call(one.target)
        if gold is None or gold.accepted is None:
            continue
        assert gold.wants(gold.text)
        drawn = {name: rng.choice(values) for name, values in gold.accepted.items() if values}
        flat = {n: v for n, v in drawn.items() if v != ""}
        if any(isinstance(value, dict | list) for value in flat.values()):
            continue
        assert gold.wants(json.dumps(flat))
        assert not gold.wants(json.dumps(flat | {"one_too_many": 1}))
        for name in flat:
            assert not gold.wants(json.dumps(flat | {name: "never accepted"}))
            without = {n: v for n, v in flat.items() if n != name}
            assert gold.wants(json.dumps(without)) is ("" in gold.accepted[name])
            changed += 1
    assert changed > 2000


def test_rouge_l_is_over_qwens_own_tokens_where_they_are_at_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed = importlib.metadata.distribution("dashscope").locate_file(qwen_tokenizer.MEMBER)
    monkeypatch.setenv("QWEN_EVAL_CACHE", str(tmp_path))
    (task,) = load_tasks("react_tools", None, "1")
    call = {"name": "w", "arguments": {"鱤": "鱤鱼"}}
    reply = Response(text='\nAction: w\nAction Input: {"鱤": "鱤肉"}', finish_reason="stop")

    def measured() -> Score:
        solvers._qwen_tokens.cache_clear()
        try:
            return replay(solvers.solver_of(task)(asked(call)), [reply])
        finally:
            solvers._qwen_tokens.cache_clear()

    # Words: { " 鱤 " : " 鱤 鱼 " }, all but one of ten.
    over_words = measured()
    assert over_words.values["tool_input_rouge_l_words"] == pytest.approx(9 / 10)
    assert over_words.detail["tokens_are"] == "words"
    assert "tool_input_rouge_l" not in over_words.values
    assert "models pull qwen-tokenizer" in capsys.readouterr().err

    qwen_tokenizer.path().parent.mkdir(parents=True)
    shutil.copy(str(installed), qwen_tokenizer.path())
    over_tokens = measured()
    assert over_tokens.detail == {}
    assert "tool_input_rouge_l_words" not in over_tokens.values
    # A rare character is several tokens, each a part of its bytes: more of the text is the same.
    assert over_tokens.values["tool_input_rouge_l"] != over_words.values["tool_input_rouge_l_words"]
    assert 0.5 < over_tokens.values["tool_input_rouge_l"] < 1
    assert capsys.readouterr().err == ""


def test_hostile_replies_are_scored_stored_and_read_again(tmp_path: Path) -> None:
    replies = [
        'T\nAction: current_weather\nAction Input: {"city": "\\ud800"}',
        "T\nAction: current_weather\nAction Input: {{{",
        "T\nAction: \ud800\nAction Input: [NaN]",
        "Action: ",
    ]
    script, out = tmp_path / "script.jsonl", tmp_path / "out"
    script.write_text(json.dumps({"text": replies}))
    done = qwen_eval(
        "run", "--tasks", "react_tools", "--limit", 4, "--model", f"mock:{script}", "--out", out
    )
    assert done.returncode == 0, done.stderr
    read = read_samples(out)
    assert (len(read), {row.error for row in read}) == (4, {None})
    assert qwen_eval("rescore", out).returncode == 0


def test_the_suite_holds_both() -> None:
    assert load_suite(SUITES_DIR / "tools.yaml").tasks[:2] == ("react_tools", "bfcl_tools")


def test_arguments_that_cannot_be_read_are_named() -> None:
    call = {"name": "w", "arguments": {"x": 1}}

    def detail(arguments: str) -> Any:
        text = f"Thought: t\nAction: w\nAction Input: {arguments}"
        reply = Response(text=text, finish_reason="stop")
        return replay(react(asked(call), lambda text: text.split()), [reply]).detail

    assert detail("{x is not quoted and has no end") == {"arguments": "not readable"}
    assert detail('{"x": 1}') == {}
