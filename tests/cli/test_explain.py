"""`qwen-eval explain`: what stands between two scores of one model, against what a script wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.attribution import FACTORS, effect, steps
from qwen_eval.taskspec import Recipe, find_task
from tests.cli.command import qwen_eval, refused

SAMPLE = Path(__file__).parents[2] / "tasks" / "gsm8k" / "sample" / "test.jsonl"
ROWS = [json.loads(line) for line in SAMPLE.read_text(encoding="utf-8").splitlines()]


def answer(row: dict[str, Any]) -> str:
    return str(row["answer"]).split("####")[1].strip().replace(",", "")


def script(folder: Path, asked: list[tuple[str, str]]) -> str:
    """A model that answers a text that it finds in its prompt."""
    path = folder / "script.jsonl"
    path.write_text("".join(json.dumps({"contains": c, "text": t}) + "\n" for c, t in asked))
    return f"mock:{path}"


def run(tasks: str, model: str, out: Path, *more: str) -> Path:
    done = qwen_eval("run", "--tasks", tasks, "--model", model, "--out", out, *more)
    assert done.returncode == 0, done.stderr
    return out


def explained(*arguments: object) -> Any:
    done = qwen_eval("explain", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    (found,) = json.loads(done.stdout.splitlines()[-1])["explained"]
    return found


def test_a_reading_that_loses_digits_is_found_and_nothing_else(tmp_path: Path) -> None:
    """Every third reply has no full stop, without which lm-evaluation-harness's strict pattern
    reads no or another number (protocols.md)."""
    asked = [
        (row["question"], f" The answer is {answer(row)}{'.' if i % 3 else ''}")
        for i, row in enumerate(ROWS)
    ]
    model = script(tmp_path, asked)
    a = run("gsm8k", model, tmp_path / "a")
    b = run("gsm8k@lm-eval", model, tmp_path / "b")
    found = explained(a, b, "--out", tmp_path / "way")
    lost = sum(i % 3 == 0 for i in range(len(ROWS)))
    assert (found["n"], found["start"]) == (len(ROWS), 1.0)
    factors = {one["factor"]: one for one in found["effects"]}
    assert list(factors) == ["truncation", "extraction"]
    assert factors["truncation"]["delta"] == 0.0
    assert factors["extraction"]["delta"] == pytest.approx(-lost / len(ROWS))
    assert (factors["extraction"]["lost"], factors["extraction"]["gained"]) == (lost, 0)


def test_what_a_prompt_does_is_asked_and_what_a_reading_does_is_not(
    tmp_path: Path, mirror: Path
) -> None:
    """The model is wrong on five questions if it is told to think, and uses a comma on one."""
    data = tmp_path / "data" / "gsm8k"
    data.mkdir(parents=True)
    rows = [row | {"answer": "#### 1250"} for row in ROWS]
    (data / "test.jsonl.gz").write_bytes(packed(rows))
    (data / "qwen_8shot.txt").write_bytes((mirror / "gsm8k" / "qwen_8shot.txt").read_bytes())
    told = "\nLet's think step by step"
    asked = [(row["question"] + told, " The answer is 7") for row in ROWS[:5]]
    asked.append((ROWS[5]["question"], " The answer is 1,250"))
    asked.append(("", " The answer is 1250"))
    model = script(tmp_path, asked)
    a = run("gsm8k", model, tmp_path / "a", "--data", str(data.parent))
    b = run("gsm8k@qwen", model, tmp_path / "b", "--data", str(data.parent))
    way = tmp_path / "way"
    found = explained(a, b, "--data", data.parent, "--out", way)
    n = len(ROWS)
    deltas = {one["factor"]: one["delta"] for one in found["effects"]}
    assert deltas == pytest.approx(
        {"prompt": -5 / n, "exemplars": 0, "truncation": 0, "extraction": -1 / n}
    )
    assert found["effects"][-1]["score"] == pytest.approx((n - 6) / n)
    # The last recipe before the reading asks what B asked: two runs in between are enough.
    assert len(list(way.iterdir())) == 2
    again = qwen_eval("explain", a, b, "--data", data.parent, "--out", way)
    assert f"{2 * n} samples kept" in again.stderr or again.stderr.count("samples kept") == 2
    assert "gsm8k@qwen" in again.stdout


def packed(rows: list[dict[str, Any]]) -> bytes:
    import gzip

    return gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())


def test_two_models_and_one_recipe_are_no_question(tmp_path: Path) -> None:
    a = run("gsm8k", "mock:oracle", tmp_path / "a", "--limit", "4")
    b = run("gsm8k@lm-eval", "mock:random", tmp_path / "b", "--limit", "4")
    assert "model.fingerprint" in refused(qwen_eval("explain", a, b), 3)
    assert "one recipe there and another here" in refused(qwen_eval("explain", a, a))
    c = run("gsm8k@lm-eval,gsm8k@strict", "mock:oracle", tmp_path / "c", "--limit", "4")
    found = explained(c, c, "--recipes", "gsm8k@lm-eval,gsm8k", "--out", tmp_path / "way")
    assert found["recipes"] == ["gsm8k@lm-eval", "gsm8k@strict"]
    assert "name two recipes" in refused(qwen_eval("explain", c, c, "--recipes", "gsm8k,mmlu"))
    assert "has no mmlu" in refused(qwen_eval("explain", c, c, "--recipes", "mmlu,mmlu@qwen"))


@pytest.mark.parametrize("name", ["mmlu", "ceval", "gsm8k", "humaneval", "piqa"])
def test_the_way_leads_from_every_recipe_to_every_other(name: str) -> None:
    spec, _ = find_task(name)
    for start in spec.recipes.values():
        for end in spec.recipes.values():
            way = steps(start, end)
            last = way[-1].recipe if way else start
            told = {"version": 1, "source": ""}
            assert last.model_copy(update=told) == end.model_copy(update=told)
            order = [list(FACTORS).index(step.factor) for step in way]
            assert order == sorted(set(order))


def test_every_key_of_a_recipe_belongs_to_one_factor() -> None:
    keys = [key for keys in FACTORS.values() for key in keys]
    assert len(keys) == len(set(keys))
    assert {*keys, "version", "source", "solver"} == set(Recipe.model_fields)


def test_another_average_changes_no_item() -> None:
    values, groups = [1.0, 1.0, 1.0, 0.0], ["a", "a", "a", "b"]
    found = effect("aggregation", values, values, groups, macro=(False, True))
    assert (found.score, found.delta, found.paired) == (0.5, -0.25, None)
    both = effect("extraction", values, [0.0, 1.0, 1.0, 0.0], groups, macro=(True, True))
    assert both.delta == pytest.approx((2 / 3 - 1) / 2)
