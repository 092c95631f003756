"""Tasks of lm-evaluation-harness through the commands, and its own command with our engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qwen_eval.results import read_metrics, read_samples
from tests.cli.command import qwen_eval, refused
from tests.lm_eval.local_tasks import CHOICE, LAST, ONLY_WHOLE, WRITE, write_task
from tests.model.toy_folder import toy_checkpoint

pytestmark = pytest.mark.slow  # every command loads lm-evaluation-harness anew
TASK = "lm_eval:local_choice@strict"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tasks")
    return ",".join(f"lm_eval:{write_task(folder, task)}" for task in (CHOICE, LAST))


@pytest.fixture(scope="module")
def runs(tasks: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    made = {}
    for model in ("oracle", "random"):
        made[model] = folder / model
        done = qwen_eval("run", "--tasks", tasks, "--model", f"mock:{model}", "--out", made[model])
        assert done.returncode == 0, done.stderr
    return made


def test_a_run_of_their_tasks_is_a_run(runs: dict[str, Path]) -> None:
    metrics = read_metrics(runs["oracle"])["tasks"]
    assert metrics[TASK]["overall"]["estimate"] == 1.0
    assert metrics[TASK]["others"].keys() == {"acc_norm"}
    (figure,) = metrics["lm_eval:local_last@strict"]["whole"].values()
    assert figure["by"] == "perplexity"
    assert figure["value"] == pytest.approx(1 / 0.9)


def test_what_was_cut_off_goes_on_to_the_same_end(
    runs: dict[str, Path], tasks: str, tmp_path: Path
) -> None:
    whole = runs["random"]
    lines = (whole / "samples.jsonl").read_text().splitlines(keepends=True)
    for name in ("run.json", "prompts.json"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "samples.jsonl").write_text("".join(lines[:9]) + lines[9][:40])
    done = qwen_eval("run", "--tasks", tasks, "--model", "mock:random", "--out", tmp_path)
    assert "9 samples kept" in done.stderr
    assert read_samples(tmp_path) == read_samples(whole)
    assert read_metrics(tmp_path) == read_metrics(whole)


def test_reports_comparisons_and_gates_read_it(runs: dict[str, Path], tmp_path: Path) -> None:
    done = qwen_eval("compare", runs["oracle"], runs["random"], "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])["tasks"]
    assert [task["task"] for task in found] == [TASK, "lm_eval:local_last@strict"]
    assert found[0]["candidate"] < 1.0
    rules = tmp_path / "gate.yaml"
    rules.write_text(
        "rules: [{task: 'lm_eval:local_choice', type: non_inferiority, margin: 0.02},"
        " {task: 'lm_eval:local_choice', type: floor, minimum: 0.9}]"
    )
    arguments = ("--rules", rules, "--baseline", runs["oracle"], "--candidate")
    assert qwen_eval("gate", *arguments, runs["oracle"]).returncode == 0
    assert qwen_eval("gate", *arguments, runs["random"]).returncode == 1
    page = tmp_path / "r.html"
    assert qwen_eval("report", *runs.values(), "-o", page).returncode == 0
    assert "made by perplexity, without an interval" in page.read_text(encoding="utf-8")
    assert "filters of their own" in refused(qwen_eval("rescore", runs["random"]))


def test_a_score_of_the_whole_set_has_no_interval_and_no_test(tmp_path: Path) -> None:
    task = f"lm_eval:{write_task(tmp_path / 'task', ONLY_WHOLE)}"
    done = qwen_eval("run", "--tasks", task, "--model", "mock:random", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    metrics = read_metrics(run)["tasks"]["lm_eval:local_whole@strict"]
    assert metrics["overall"] is None
    assert metrics["whole"].keys() == {metrics["metric"]}
    assert "without an interval" in " ".join(done.stdout.split())
    message = refused(qwen_eval("compare", run, run), 3)
    assert "no sample has a value of it" in message
    page = tmp_path / "r.html"
    assert qwen_eval("report", run, "-o", page).returncode == 0
    assert "of the whole set, no interval" in page.read_text(encoding="utf-8")


def test_data_of_the_hub_without_a_network_is_one_line(tmp_path: Path) -> None:
    hub = write_task(tmp_path, WRITE | {"dataset_path": "nobody/nothing", "dataset_kwargs": {}})
    done = qwen_eval("run", "--tasks", f"lm_eval:{hub}", "--model", "mock:oracle")
    assert "from the hub, which does not answer" in refused(done)


def test_their_command_knows_our_engine(tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "model")
    path = write_task(tmp_path, WRITE)
    words = ("lm-eval", "--model", "qwen_eval", "--tasks", path, "--output_path", tmp_path / "out")
    done = qwen_eval(*words, "--model_args", f"pretrained={model},dtype=float32")
    assert done.returncode == 0, done.stderr
    assert "|local_write|" in done.stdout
    (results,) = (tmp_path / "out").rglob("results_*.json")
    assert json.loads(results.read_text())["config"]["model_dtype"] == "float32"
    done = qwen_eval(*words, "--model_args", f"pretrained={tmp_path}/none")
    assert "neither a name that is known" in refused(done)
