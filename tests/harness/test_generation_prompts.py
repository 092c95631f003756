"""The exact bytes that a model sees, and where it stops, against lm-evaluation-harness's files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import datasets as hub
import pytest
import yaml

from qwen_eval.datasets import TaskData, open_data, take
from qwen_eval.errors import UserError
from qwen_eval.exemplars import lm_eval_exemplars
from qwen_eval.prompts import Renderer
from qwen_eval.taskspec import find_task
from qwen_eval.types import Item


def their_tasks() -> Path:
    import lm_eval

    return Path(lm_eval.__path__[0]) / "tasks"


def theirs(name: str) -> dict[str, Any]:
    """A task file of lm-eval, its function tags as plain words."""
    text = (their_tasks() / name).read_text(encoding="utf-8")
    found: dict[str, Any] = yaml.safe_load(text.replace("!function", ""))
    return found


def first(name: str, rows: dict[str, list[dict[str, Any]]]) -> Item:
    spec, recipe = find_task(name)
    data = TaskData(spec, "given", _splits=rows)
    return Renderer(data, recipe).render(data.samples()[0])


@pytest.mark.parametrize("column", ["context", "problem"])
def test_math_is_minervas_prompt(column: str) -> None:
    row = {column: "What is $1+1$?", "answer": "2", "category": "algebra"}
    config = theirs("minerva_math/minerva_math_algebra.yaml")
    source = (their_tasks() / "minerva_math" / "utils.py").read_text(encoding="utf-8")
    # Its two small functions, run by themselves: the module wants libraries that they do not.
    functions = re.findall(
        r"def (?:doc_to_text|list_fewshot_samples)\(.*?(?=\n\n\n)", source, re.DOTALL
    )
    scope: dict[str, Any] = {}
    exec("\n\n".join(functions), scope)
    shots = scope["list_fewshot_samples"]()
    assert len(shots) == config["num_fewshot"] == 4
    text = "".join(f"{scope['doc_to_text'](shot)} {shot['solution']}\n\n" for shot in shots)
    for name in ("competition_math", "competition_math@lm-eval", "competition_math@qwen"):
        item = first(name, {"test": [row]})
        assert item.prompt.full_text == text + scope["doc_to_text"]({"problem": row[column]})
        assert list(item.decoding.stop) == config["generation_kwargs"]["until"]
    assert first("competition_math@lm-eval", {"test": [row]}).decoding.max_tokens == 256


def test_bbh_is_lm_evals_prompt(mirror: Path) -> None:
    from lm_eval.utils import apply_template

    spec, _ = find_task("bbh")
    data = open_data(spec, mirror)
    ours, authors = Renderer(data, "lm-eval"), Renderer(data, "strict")
    shared = theirs("bbh/cot_fewshot/_cot_fewshot_template_yaml")
    by_task = {sample.group: sample for sample in data.samples()}
    assert len(by_task) == 27
    differing = set()
    for task, sample in by_task.items():
        config = theirs(f"bbh/cot_fewshot/{task}.yaml")
        item = ours.render(sample)
        text = config["description"]
        for shot in config["fewshot_config"]["samples"]:
            text += apply_template(config["doc_to_text"], shot) + shot["target"] + "\n\n"
        text += apply_template(config["doc_to_text"], dict(sample.row))
        assert item.prompt.full_text == text
        assert sorted(item.decoding.stop) == sorted(shared["generation_kwargs"]["until"])
        assert item.decoding.max_tokens == shared["generation_kwargs"]["max_gen_toks"]
        if authors.render(sample).prompt != item.prompt:
            differing.add(task)
    assert differing == {"sports_understanding"}


def test_natural_questions_is_lm_evals_prompt() -> None:
    from lm_eval.utils import apply_template

    config = theirs("nq_open/nq_open.yaml")
    shots = [{"question": f"q{i}", "answer": [f"a{i}", "b"]} for i in range(6)]
    rows = {"validation": [{"question": "who", "answer": ["x"]}], "train": shots}
    asked = apply_template(config["doc_to_text"], rows["validation"][0])
    item = first("natural_questions@lm-eval", rows)
    assert item.prompt.full_text == config["description"] + asked
    assert list(item.decoding.stop) == config["generation_kwargs"]["until"]
    with_shots = first("natural_questions", rows).prompt.full_text
    answered = "".join(
        f"{apply_template(config['doc_to_text'], shot)} {shot['answer'][0]}"
        + config["fewshot_delimiter"]
        for shot in shots[:5]
    )
    assert with_shots == config["description"] + answered + asked


def test_ifeval_is_the_bare_prompt(mirror: Path) -> None:
    config = theirs("ifeval/ifeval.yaml")
    data = open_data(find_task("ifeval")[0], mirror)
    for sample in take(data.samples(), 20):
        item = Renderer(data, "lm-eval").render(sample)
        assert item.prompt.full_text == sample.row[config["doc_to_text"]]
        assert item.decoding.max_tokens == config["generation_kwargs"]["max_gen_toks"]
        assert list(item.decoding.stop) == config["generation_kwargs"]["until"]


def test_gsm8k_as_a_chat() -> None:
    row = {"question": "How many?", "answer": "1+1 = <<1+1=2>>2\n#### 2"}
    shots = theirs("gsm8k/gsm8k-cot.yaml")["fewshot_config"]["samples"]
    turns = [turn.content for turn in first("gsm8k@chat-8shot", {"test": [row]}).prompt.messages]
    assert turns == [text for s in shots for text in (s["question"], s["target"])] + ["How many?"]
    asked = first("gsm8k@qwen-chat", {"test": [row]}).prompt.messages
    assert [turn.content for turn in asked] == ["You are a helpful assistant.", "How many?"]


# --- exemplars of the package, and configurations of the hub --------------------------------------


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("minerva_math/none.yaml", "no exemplars found"),
        ("nq_open/nq_open.yaml", "no exemplars found"),  # it has none that are fixed
        ("ifeval/ifeval.yaml", "no exemplars found"),
    ],
)
def test_a_file_without_exemplars_is_named(name: str, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        lm_eval_exemplars(name, 1)


def test_too_many_exemplars_are_named() -> None:
    with pytest.raises(UserError, match="4 exemplars, 5 are needed"):
        lm_eval_exemplars("minerva_math/minerva_math_algebra.yaml", 5)


def test_every_configuration_of_the_hub_is_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(path: str, name: str | None, split: str) -> list[dict[str, str]]:
        assert (path, split) == ("lukaemon/bbh", "test")
        return [{"input": f"{name}?", "target": "Yes"}]

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    spec, _ = find_task("bbh")
    samples = TaskData(spec, "hub").samples()
    assert spec.hub is not None
    assert [sample.group for sample in samples] == list(spec.hub.parts)
    assert samples[0].row == {
        "task": spec.hub.parts[0],
        "input": "boolean_expressions?",
        "target": "Yes",
    }
