"""Tasks of programs, from the row to the verdict of the real sandbox."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.cli.setup import load_task
from qwen_eval.datasets import TaskData, given_data, open_data
from qwen_eval.fileio import read_jsonl
from qwen_eval.prompts import Renderer
from qwen_eval.runner import Finished, Runner
from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox
from qwen_eval.sandbox.trial import WEAKER
from qwen_eval.tasks.scorers.programs import called
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.taskspec import find_task
from qwen_eval.types import Item, Row
from tests.sandbox import published

TASKS = Path(__file__).parents[2] / "tasks"
ALONE = {367, 533, 596, 601, 927}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened


def solved(items: Sequence[Item], sandbox: Sandbox, model: str = "oracle") -> list[Finished]:
    backend = open_backend("mock", model, BackendOptions())
    return list(Runner(backend, SOLVERS["code"], sandbox).run(items))


def wrong(done: Sequence[Finished]) -> dict[object, object]:
    return {
        each.item.sample.row["task_id"]: each.error or each.score.detail
        for each in done
        if each.score.values.get("pass@1") != 1.0
    }


# --- MBPP ------------------------------------------------------------------------------------


def test_mbpp_asks_for_the_function_that_its_published_tests_call(mirror: Path) -> None:
    spec, _ = find_task("mbpp")
    everywhere = {n: s.model_copy(update={"where": None}) for n, s in spec.splits.items()}
    data = open_data(spec.model_copy(update={"splits": everywhere}), mirror)
    renderer, theirs = Renderer(data, "strict"), published.mbpp()
    assert len(data.samples()) == 974
    for sample in data.samples():
        item, request = renderer.render(sample), theirs[sample.row["task_id"]]
        assert item.program is not None
        assert called(item.program.tests) == request.entry_point
        assert item.program.tests == request.tests
        assert item.program.alone is (sample.row["task_id"] in ALONE)
        assert item.program.candidate == item.program.preamble == ""


@pytest.mark.parametrize("recipe", ["strict", "lm-eval", "chat"])
def test_some_canonical_mbpp_programs_pass(recipe: str, mirror: Path, sandbox: Sandbox) -> None:
    data = open_data(find_task("mbpp")[0], mirror)
    data._splits["test"] = data.rows("test")[::40]
    done = solved(load_task(data, recipe).items, sandbox)
    assert len(done) == 13
    assert not wrong(done)


@pytest.mark.slow
def test_every_canonical_mbpp_program_passes(mirror: Path, sandbox: Sandbox) -> None:
    done = solved(load_task(open_data(find_task("mbpp")[0], mirror), "strict").items, sandbox)
    assert len(done) == 500
    assert not wrong(done)
    verdicts = {e.item.sample.row["task_id"]: e.score.detail["verdict"] for e in done}
    assert {n for n, said in verdicts.items() if WEAKER in said} == {367}


def test_no_mbpp_sample_passes_with_anothers_program(sandbox: Sandbox) -> None:
    items = load_task(TaskData(find_task("mbpp")[0], "sample"), "strict").items
    turned = [replace(a, reference=b.reference) for a, b in pairwise(items)]
    assert len(wrong(solved(turned, sandbox))) == len(turned) > 5


# --- HumanEval and HumanEvalPack -------------------------------------------------------------


def packed(row: Row) -> dict[str, str]:
    """A row of HumanEval as HumanEvalPack has it, as far as the recipes read it."""
    name = row["entry_point"]
    described = re.search(r"(?:\"\"\"|''')(.*?)(?:\"\"\"|''')", row["prompt"], re.DOTALL)
    assert described
    return {
        "task_id": row["task_id"].replace("HumanEval", "Python"),
        "prompt": row["prompt"],
        "canonical_solution": row["canonical_solution"],
        "entry_point": name,
        "test_setup": "",
        "test": f"{row['test']}\n\ncheck({name})",
        "instruction": f"Write a Python function `{name}` to solve the following problem:\n"
        f"{described[1]}",
    }


@pytest.mark.parametrize("recipe", ["strict", "chat"])
def test_humanevals_programs_pass_as_humanevalpacks(recipe: str, sandbox: Sandbox) -> None:
    rows = open_data(find_task("humaneval")[0], None).rows("test")[::8]
    data = given_data(find_task("humanevalpack_python")[0], map(packed, rows))
    done = solved(load_task(data, recipe).items, sandbox)
    assert len(done) == 21
    assert not wrong(done)


@pytest.mark.parametrize("recipe", ["chat", "qwen-chat"])
def test_humanevals_programs_pass_in_a_conversation(recipe: str, sandbox: Sandbox) -> None:
    items = load_task(open_data(find_task("humaneval")[0], None), recipe, limit=20).items
    assert not wrong(solved(items, sandbox))
    assert len(wrong(solved(items, sandbox, "random"))) == 20


def test_a_reply_of_prose_or_of_the_prompt_alone_fails(sandbox: Sandbox) -> None:
    items = load_task(open_data(find_task("humaneval")[0], None), "chat", limit=6).items
    for reply in ("I cannot.", "```python\n{}```"):
        said = [replace(i, reference=reply.replace("{}", i.sample.row["prompt"])) for i in items]
        assert len(wrong(solved(said, sandbox))) == 6


def test_humanevals_prompts_are_programs_of_their_own() -> None:
    # A conversation's program begins with one, and defines the function anew.
    for row in open_data(find_task("humaneval")[0], None).rows("test"):
        compile(row["prompt"], "prompt", "exec")


# --- the bundled samples ---------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mbpp", "humanevalpack_python"])
@pytest.mark.parametrize("recipe", ["strict", "chat"])
def test_the_bundled_programs_pass(name: str, recipe: str, sandbox: Sandbox) -> None:
    items = load_task(TaskData(find_task(name)[0], "sample"), recipe).items
    assert items
    assert not wrong(solved(items, sandbox))


def test_the_bundled_programs_are_not_the_benchmarks(mirror: Path) -> None:
    ours = [
        *read_jsonl(TASKS / "mbpp" / "sample" / "test.jsonl"),
        *read_jsonl(TASKS / "mbpp" / "sample" / "prompt.jsonl"),
    ]
    theirs = list(read_jsonl(mirror / "mbpp" / "mbpp.jsonl.gz"))
    assert not {row["text"].lower() for row in ours} & {row["text"].lower() for row in theirs}
    names = {request.entry_point for request in published.mbpp().values()}
    assert not {called("\n".join(row["test_list"])) for row in ours} & names
    packs = list(read_jsonl(TASKS / "humanevalpack_python" / "sample" / "test.jsonl"))
    known = {
        row["entry_point"] for row in open_data(find_task("humaneval")[0], mirror).rows("test")
    }
    assert not {row["entry_point"] for row in packs} & known
