"""What is asked of a document and what becomes of the answers, against made-up ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_eval.backends.base import BackendOptions
from qwen_eval.backends.mock import MockBackend
from qwen_eval.cli.setup import LoadedTask, load_tasks
from qwen_eval.cli.solvers import solver_of
from qwen_eval.errors import UserError
from qwen_eval.lm_eval.figures import plain
from qwen_eval.lm_eval.solving import decoding_of, windows
from qwen_eval.results import SampleRecord, sample_record
from qwen_eval.runner import Runner, replay
from qwen_eval.types import LoglikelihoodRequest, Response
from tests.lm_eval.local_tasks import CHOICE, LAST, ONLY_WHOLE, READ, WRITE, write_task


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(path: Path) -> LoadedTask:
    (task,) = load_tasks(f"lm_eval:{path}", None, None)
    return task


def answered(task: LoadedTask, model: str = "oracle") -> list[SampleRecord]:
    """All samples asked of a mock model, in their order."""
    backend = MockBackend.open(model, BackendOptions())
    done = {one.item.sample.id: one for one in Runner(backend, solver_of(task, 0)).run(task.items)}
    found = (done[item.sample.id] for item in task.items)
    return [sample_record(one.item, one.responses, one.score, one.error) for one in found]


@pytest.mark.parametrize(
    ("task", "metric", "value"),
    [(CHOICE, "acc", 1.0), (WRITE, "exact_match,as_is", 1.0), (LAST, "acc", 1.0)],
)
def test_right_answers_are_right(
    tmp_path: Path, task: dict[str, Any], metric: str, value: float
) -> None:
    records = answered(load(write_task(tmp_path, task)))
    assert [record.values[metric] for record in records] == [value] * 12


def test_contexts_that_are_chosen_between(tmp_path: Path) -> None:
    """Where doc_to_text is a number, the choices are contexts and one continuation follows each."""
    asked = {
        "doc_to_text": "answer",
        "doc_to_choice": "choices",
        "doc_to_target": "number",
        "num_fewshot": 0,
    }
    task = load(write_task(tmp_path, CHOICE | asked))
    request = next(solver_of(task, 0)(task.items[0]))
    assert isinstance(request, LoglikelihoodRequest)
    assert (request.prompt.full_text, request.continuations) == (
        "Questions about things.\n\nred thing",
        (" 0",),
    )
    assert [record.values["acc"] for record in answered(task)] == [1.0] * 12


def test_options_of_one_context_are_one_request(tmp_path: Path) -> None:
    task = load(write_task(tmp_path, CHOICE))
    records = answered(task, "random")
    for record, item in zip(records, task.items, strict=True):
        assert len(record.responses) == 1
        assert len(record.responses[0]["logprobs"]) == 4
        logprobs = record.responses[0]["logprobs"]
        best = logprobs.index(max(logprobs))
        assert record.answer == item.options[best].strip()
        assert record.values["acc"] == float(best == item.gold)


def test_figures_of_the_whole_set_are_sklearns(tmp_path: Path) -> None:
    from sklearn.metrics import matthews_corrcoef

    task = load(write_task(tmp_path, ONLY_WHOLE))
    records = answered(task, "random")
    chosen = [
        [one.strip() for one in item.options].index(r.answer or "")
        for item, r in zip(task.items, records, strict=True)
    ]
    gold = [item.gold for item in task.items]
    (figure,) = task.whole(records).values()
    assert figure.value == pytest.approx(matthews_corrcoef(gold, chosen))
    assert (figure.n, figure.by) == (12, "matthews_corrcoef")
    assert all(record.values == {} and record.status == "scored" for record in records)


def test_perplexities_are_those_of_the_formula(tmp_path: Path) -> None:
    task = load(write_task(tmp_path, READ))
    records = answered(task, "random")  # eight bits a byte
    assert [record.values["bits_per_byte"] for record in records] == [pytest.approx(8.0)] * 12
    whole = task.whole(records)
    assert whole["byte_perplexity (of the whole set, less is better)"].value == pytest.approx(256)
    texts = [item.sample.row["doc"]["text"] for item in task.items]
    words = sum(len(text.split()) + 1 for text in texts)  # it counts the end as one
    nats = 8 * math.log(2) * sum(len(text.encode()) for text in texts)
    word = whole["word_perplexity (of the whole set, less is better)"].value
    assert word == pytest.approx(math.exp(nats / words))


def test_a_reply_in_which_its_filter_finds_nothing_is_no_answer(tmp_path: Path) -> None:
    script = tmp_path / "script.jsonl"
    rules = ({"contains": "Number: 3\n", "text": " 3"}, {"text": "none"})
    script.write_text("".join(json.dumps(rule) + "\n" for rule in rules))
    task = load(write_task(tmp_path, WRITE))
    records = answered(task, str(script))
    assert [record.status for record in records].count("no_answer") == 11
    (right,) = (record for record in records if record.status == "scored")
    assert (right.answer, right.values["exact_match"], right.target) == ("3", 1.0, "3")


def test_a_metric_that_raises_is_the_samples_error_and_the_run_goes_on(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "def results(doc, found):\n"
        "    return {'score': 1 / int(doc['number']), 'seen': float(doc['number'] != '2')}\n"
    )
    path = write_task(tmp_path, WRITE | {"task": "raises", "filter_list": None})
    text = yaml.safe_load(path.read_text())
    text |= {"metric_list": [{"metric": "score", "aggregation": "mean", "higher_is_better": False}]}
    del text["filter_list"]
    path.write_text(yaml.safe_dump(text) + "process_results: !function own.results\n")
    task = load(path)
    assert task.info.metric == "score (less is better)"
    records = answered(task)
    assert records[0].error == "solver: ZeroDivisionError: division by zero"
    assert [record.status for record in records[1:]] == ["scored"] * 11
    assert records[4].values["score (less is better)"] == 0.25


def test_what_is_not_a_number_takes_no_part(tmp_path: Path) -> None:
    (tmp_path / "nan.py").write_text(
        "def results(doc, found):\n"
        "    return {'acc': float('nan') if doc['number'] == '1' else 1}\n"
    )
    path = write_task(tmp_path, CHOICE | {"task": "nan"})
    path.write_text(path.read_text() + "process_results: !function nan.results\n")
    records = answered(load(path))
    assert [record.status for record in records] == ["scored", "excluded"] + ["scored"] * 10


def test_its_settings_in_our_words() -> None:
    given = {"until": ["\n", ""], "max_gen_toks": 9, "do_sample": False, "temperature": 0.7}
    found = decoding_of(given)
    assert (found.stop, found.max_tokens, found.temperature) == (("\n",), 9, 0.0)
    drawn = decoding_of({"until": "x", "do_sample": True, "temperature": 0.7, "top_p": 0.9})
    assert (drawn.stop, drawn.max_tokens) == (("x",), 256)
    assert (drawn.temperature, drawn.top_p) == (0.7, 0.9)
    with pytest.raises(UserError, match="generation_kwargs: num_beams: 4"):
        decoding_of({"num_beams": 4})


def test_repeated_draws_have_seeds_of_their_own(tmp_path: Path) -> None:
    drawing = {"until": ["\n"], "do_sample": True, "temperature": 1.0}
    task = load(write_task(tmp_path, WRITE | {"generation_kwargs": drawing, "repeats": 3}))
    seeds = set()
    for item in task.items:
        solver = solver_of(task, 0)(item)
        request = next(solver)
        for _ in range(2):
            seeds.add(request.decoding.seed)  # type: ignore[union-attr]
            request = solver.send(Response(text="1"))
        seeds.add(request.decoding.seed)  # type: ignore[union-attr]
    assert len(seeds) == 36


@pytest.mark.parametrize("tokens", [1, 9, 10, 17, 18, 26, 100])
def test_windows_score_every_token_once(tokens: int) -> None:
    """Ten places, one of them the start token's: as lm-evaluation-harness lays them, one token of
    context in front, which here is its last but for the start token."""
    seen: list[int] = []
    for first, length, scored in windows(tokens, 10):
        end = tokens if length is None else first + length
        assert length is None or (length == 9 and first >= 0 and end <= tokens)
        seen += range(end - (tokens if scored is None else scored), end)
    assert seen == list(range(tokens))


def test_long_texts_are_read_in_windows(tmp_path: Path) -> None:
    task = load(write_task(tmp_path, READ))
    size = len(task.items[0].sample.row["doc"]["text"])
    replies = [Response(token_counts=(20,)), *(Response(logprobs=(-1.0,) * n) for n in (9, 8, 3))]
    score = replay(solver_of(task, 10)(task.items[0]), replies)
    assert score.values["bits_per_byte"] == pytest.approx(20 / size / math.log(2))


def test_what_a_file_cannot_hold_is_said() -> None:
    import numpy as np

    assert plain({"a": (np.float64(0.5), np.array([1, 2])), "b": {2, 1}}) == {
        "a": [0.5, [1, 2]],
        "b": [1, 2],
    }
    with pytest.raises(TypeError, match="a object cannot be kept"):
        plain(object())
