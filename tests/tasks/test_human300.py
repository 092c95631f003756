"""The instructions as a task: who is asked what, and what no model may see."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.backends.native import NativeBackend
from qwen_eval.cli.setup import load_tasks
from qwen_eval.datasets import TaskData
from qwen_eval.human_eval_ui.instructions import load_instructions
from qwen_eval.prompts import Renderer
from qwen_eval.reports.samples import pack
from qwen_eval.results import read_run
from qwen_eval.tasks.scorers import find_scorer
from qwen_eval.tasks.solvers import SOLVERS
from qwen_eval.taskspec import find_task
from qwen_eval.types import Message
from tests.cli.command import qwen_eval
from tests.model.toy_folder import toy_checkpoint

SYSTEM = Message("system", "You are a helpful assistant.")


def test_every_instruction_is_asked_word_for_word_and_nothing_else() -> None:
    (task,) = load_tasks("human300", None, None)
    wanted = {(SYSTEM, Message("user", i.text)): (i.id, i.category) for i in load_instructions()}
    found = {item.prompt.messages: (item.target, item.sample.group) for item in task.items}
    assert (len(task.items), found) == (300, wanted)
    assert {item.prompt.text + item.prompt.prefix for item in task.items} == {""}
    assert {(d.max_tokens, d.temperature, d.stop) for d in (i.decoding for i in task.items)} == {
        (1024, 0.0, ())
    }


def test_points_and_answer_reach_no_backend() -> None:
    spec, recipe = find_task("human300")
    data = TaskData(spec, "own")
    row = {"id": "k001", "category": "knowledge", "difficulty": "easy", "text": "Why?"}
    hidden = row | {"points": ["SECRET 1", "SECRET 2"], "answer": "SECRET 3"}
    data._splits["test"] = [row | {"points": ["SECRET 0"]}, hidden]
    for sample in data.samples():
        request = next(SOLVERS[spec.solver](Renderer(data, recipe).render(sample)))
        assert "Why?" in repr(request)
        assert "SECRET" not in repr(request)
        assert "SECRET" not in repr(Renderer(data, recipe).render(sample).prompt)


def test_ids_are_those_of_the_chatml_template_of_transformers(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = toy_checkpoint(tmp_path)
    theirs = AutoTokenizer.from_pretrained(folder)
    theirs.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    backend = open_backend("native", str(folder), BackendOptions(dtype="float32"))
    assert isinstance(backend, NativeBackend)
    (task,) = load_tasks("human300", None, "40")
    for item in task.items:
        turns = [{"role": m.role, "content": m.content} for m in item.prompt.messages]
        ids = theirs.apply_chat_template(turns, add_generation_prompt=True)["input_ids"]
        assert backend._encode_prompt(item.prompt) == ids


@pytest.mark.parametrize(
    ("reply", "status"),
    [("好", "scored"), (" . ", "scored"), ("", "no_answer"), (" \n　", "no_answer")],
)
def test_white_space_is_no_answer(reply: str, status: str) -> None:
    score = find_scorer("answered")(reply, "", "answered")
    assert (score.status, score.values) == (status, {"answered": float(status == "scored")})


def test_a_run_and_its_report_hold_what_was_asked(tmp_path: Path) -> None:
    script, out = tmp_path / "script.jsonl", tmp_path / "run"
    script.write_text(
        '{"contains": "system: You are a helpful assistant.\\nuser: ", "text": "好"}\n'
    )
    done = qwen_eval(
        "run", "--tasks", "human300", "--model", f"mock:{script}", "--limit", "5", "--out", out,
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout.splitlines()[-1])["tasks"]["human300@strict"]
    assert (row["overall"]["estimate"], row["overall"]["n"]) == (1.0, 5)
    run = read_run(out)
    asked = {f"system: {SYSTEM.content}\nuser: {i.text}" for i in load_instructions()}
    assert len({record.text for record in run.samples} & asked) == 5
    page = json.loads(gzip.decompress(base64.b64decode(pack([run], ["x"])[1])))
    assert {sample[5] for sample in page["samples"]} == {record.text for record in run.samples}
