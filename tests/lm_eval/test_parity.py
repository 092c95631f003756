"""One task asked in three ways: by lm_eval with its hf model, by lm_eval with our engine as its
model, and by our runner. The same prompts, log-probabilities, texts and scores."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.cli.setup import load_tasks
from qwen_eval.cli.solvers import solver_of
from qwen_eval.metrics import TaskMetrics, summarise
from qwen_eval.results import SampleRecord, sample_record
from qwen_eval.runner import Runner
from tests.lm_eval.local_tasks import CHOICE, LAST, READ, WRITE, write_task
from tests.model.toy_folder import toy_chat

pytestmark = pytest.mark.slow
TASKS = {task["task"]: task for task in (CHOICE, WRITE, READ, LAST)}
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{% if not (loop.last and not add_generation_prompt) %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TOLERANCE = 1e-3  # natural log, of a whole option or text, in fp32


@dataclass(frozen=True)
class Ours:
    """What our own run made of a task."""

    records: list[SampleRecord]
    metrics: TaskMetrics


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_chat(tmp_path_factory.mktemp("toy"), TEMPLATE)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    folder = tmp_path_factory.mktemp("tasks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield {name: write_task(folder, task) for name, task in TASKS.items()}


def theirs(kind: str, folder: Path, files: dict[str, Path], **more: Any) -> dict[str, Any]:
    """lm_eval's results, with all samples."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    from qwen_eval.lm_eval import model

    model.register(str)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    found: dict[str, Any] = simple_evaluate(
        kind,
        {"pretrained": str(folder), "dtype": "float32"} | more.pop("arguments", {}),
        tasks=[str(path) for path in files.values()],
        task_manager=TaskManager(include_defaults=False),
        device="cpu",
        bootstrap_iters=0,
        **more,
    )
    return found


def ours(folder: Path, files: dict[str, Path]) -> dict[str, Ours]:
    """The same tasks by our own runner."""
    tasks = load_tasks(",".join(f"lm_eval:{path}" for path in files.values()), None, None)
    backend = open_backend("native", str(folder), BackendOptions(dtype="float32"))
    found = {}
    for task in tasks:
        solve = solver_of(task, backend.info().max_length)
        done = {one.item.sample.id: one for one in Runner(backend, solve).run(task.items)}
        finished = [done[item.sample.id] for item in task.items]
        records = [sample_record(f.item, f.responses, f.score, f.error) for f in finished]
        metrics = summarise(
            task.info.recipe,
            task.info.metric,
            records,
            also=task.spec.also,
            whole=task.whole(records),
        )
        found[task.spec.name.removeprefix("lm_eval:")] = Ours(records, metrics)
    backend.close()
    return found


def held(theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    """lm_eval's samples of the one model against those of the other."""
    for name, samples in theirs["samples"].items():
        for mine, other in zip(ours["samples"][name], samples, strict=True):
            assert mine["arguments"] == other["arguments"]
            for (here,), (there,) in zip(mine["resps"], other["resps"], strict=True):
                if isinstance(there, str):
                    assert here == there
                else:
                    assert here == pytest.approx(there, abs=TOLERANCE)
        for key, value in theirs["results"][name].items():
            if isinstance(value, float):
                assert ours["results"][name][key] == pytest.approx(value, rel=TOLERANCE)


@pytest.fixture(scope="module")
def hf(model: Path, files: dict[str, Path]) -> dict[str, Any]:
    return theirs("hf", model, files)


def test_our_engine_is_a_model_of_theirs(
    model: Path, files: dict[str, Path], hf: dict[str, Any]
) -> None:
    held(hf, theirs("qwen_eval", model, files))


def test_our_runs_of_their_tasks(model: Path, files: dict[str, Path], hf: dict[str, Any]) -> None:
    for name, found in ours(model, files).items():
        own = [sample for sample in hf["samples"][name] if sample["filter"] in ("none", "first")]
        for record, sample in zip(found.records, own, strict=True):
            assert record.status in ("scored", "no_answer")
            replies = [response for response in record.responses if "finish_reason" in response]
            if name == "local_write":
                assert replies[0]["text"] == sample["resps"][0][0]
            elif name == "local_read":
                assert sum(replies[-1]["logprobs"]) == pytest.approx(
                    sample["resps"][0][0], abs=TOLERANCE
                )
            else:
                expected = [answers[0][0] for answers in sample["resps"]]
                assert replies[0]["logprobs"] == pytest.approx(expected, abs=TOLERANCE)
        results = hf["results"][name]
        scores = {found.metrics.metric: found.metrics.overall} | found.metrics.others
        first = "first" if name == "local_write" else "none"
        for metric, estimate in scores.items():
            key = metric if "," in metric else f"{metric},{first}"
            assert estimate is not None
            assert estimate.estimate == pytest.approx(results[key], rel=TOLERANCE)
        for metric, figure in found.metrics.whole.items():
            key = f"{metric.partition(' ')[0]},{first}"
            assert figure.value == pytest.approx(results[key], rel=TOLERANCE)
    assert {"local_choice", "local_write", "local_read", "local_last"} == set(hf["results"])


def test_conversations_are_theirs(model: Path, files: dict[str, Path]) -> None:
    """Their seam lies before the newline that ends the header: it counts to the continuation."""
    chosen = {name: files[name] for name in ("local_choice", "local_write")}
    more = {"apply_chat_template": True, "system_instruction": "Be brief."}
    held(theirs("hf", model, chosen, **more), theirs("qwen_eval", model, chosen, **more))


def test_texts_longer_than_the_context_are_read_as_theirs(
    model: Path, files: dict[str, Path]
) -> None:
    chosen = {"local_read": files["local_read"]}
    short = {"arguments": {"max_length": 64}}
    held(theirs("hf", model, chosen, **short), theirs("qwen_eval", model, chosen, **short))


@pytest.mark.smollm2
def test_a_real_model(
    smollm2: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    del files  # the environment that they are read in is what counts
    folder = tmp_path_factory.mktemp("few")
    chosen = {task["task"]: write_task(folder, task, 3) for task in (CHOICE, WRITE)}
    there = theirs("hf", smollm2, chosen)
    held(there, theirs("qwen_eval", smollm2, chosen))
    for name, found in ours(smollm2, chosen).items():
        metric = "acc,none" if name == "local_choice" else "exact_match,first"
        assert found.metrics.overall is not None
        assert found.metrics.overall.estimate == pytest.approx(there["results"][name][metric])
