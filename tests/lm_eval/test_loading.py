"""Names of lm-evaluation-harness's tasks, and what is wrong with them, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qwen_eval.cli.setup import LoadedTask, load_tasks
from qwen_eval.errors import RefusedError, UserError
from tests.lm_eval.local_tasks import CHOICE, LAST, ONLY_WHOLE, READ, WRITE, write_task


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def load(path: Path | str, limit: str | None = None) -> list[LoadedTask]:
    return load_tasks(f"lm_eval:{path}", None, limit)


def prompts(task: LoadedTask) -> dict[str, str]:
    return {item.sample.id: item.prompt.full_text for item in task.items}


def test_prompts_are_its_own_in_their_order(tmp_path: Path) -> None:
    """Exemplars are drawn per document there: the whole set's are what `lm_eval` asks."""
    from lm_eval.tasks import TaskManager

    path = write_task(tmp_path, CHOICE)
    theirs = TaskManager(include_defaults=False).load(str(path))["tasks"]["local_choice"]
    theirs.set_fewshot_seed(1234)
    theirs.build_all_requests(rank=0, world_size=1)
    (task,) = load(path)
    asked = [(item.prompt.full_text, option) for item in task.items for option in item.options]
    assert asked == [instance.args for instance in theirs.instances]
    assert len({item.prompt.prefix for item in task.items}) > 1, "the draws differ"
    assert all(item.prompt.text.lstrip().startswith("Q: ") for item in task.items)


@pytest.mark.parametrize("shots", ["", "@5"])
def test_a_prompt_does_not_change_with_the_limit(tmp_path: Path, shots: str) -> None:
    path = write_task(tmp_path, CHOICE)
    (whole,), (part,) = load(f"{path}{shots}"), load(f"{path}{shots}", "3")
    assert len(part.items) == 3
    assert prompts(part).items() < prompts(whole).items()
    assert part.info.data_digest == whole.info.data_digest
    assert part.info.prompts_digest != whole.info.prompts_digest
    assert whole.info.shots == (5 if shots else 2)
    assert whole.items[0].prompt.full_text.count("Q: ") == whole.info.shots + 1


def test_what_was_loaded_twice_is_the_same(tmp_path: Path) -> None:
    path = write_task(tmp_path, CHOICE)
    assert load(path)[0].info == load(path)[0].info
    asked_otherwise = write_task(tmp_path, CHOICE, doc_to_text="Question: {{question}}\nA:")
    other = load(asked_otherwise)[0].info
    assert other.prompts_digest != load(write_task(tmp_path, CHOICE))[0].info.prompts_digest


@pytest.mark.parametrize(
    ("task", "metric", "also"),
    [
        (CHOICE, "acc", ("acc_norm",)),
        (WRITE, "exact_match", ("exact_match,as_is",)),
        (READ, "bits_per_byte", ()),
        (LAST, "acc", ()),
        (ONLY_WHOLE, "mcc (of the whole set, more is better)", ()),
    ],
)
def test_the_first_mean_is_the_score(
    tmp_path: Path, task: dict[str, Any], metric: str, also: tuple[str, ...]
) -> None:
    (found,) = load(write_task(tmp_path, task))
    assert (found.info.metric, found.spec.also) == (metric, also)


def group_file(folder: Path, *tasks: dict[str, Any], **more: Any) -> Path:
    for number, task in enumerate(tasks):
        write_task(folder, task, 4 + number)
    path = folder / "group.yaml"
    members = [task["task"] for task in tasks]
    path.write_text(yaml.safe_dump({"group": "local_group", "task": members} | more))
    return path


def test_a_group_is_one_task_with_its_parts_as_groups(tmp_path: Path) -> None:
    other = CHOICE | {"task": "other_choice"}
    (task,) = load(group_file(tmp_path, CHOICE, other))
    assert task.info.recipe == "lm_eval:local_group@strict"
    assert [item.sample.group for item in task.items] == ["local_choice"] * 4 + ["other_choice"] * 5
    assert len({item.sample.id for item in task.items}) == 9


def test_a_group_that_is_scored_in_several_ways_is_several_tasks(tmp_path: Path) -> None:
    found = load(group_file(tmp_path, CHOICE, READ))
    assert [task.info.recipe for task in found] == [
        "lm_eval:local_choice@strict",
        "lm_eval:local_read@strict",
    ]


def test_a_broken_file_is_one_line_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("task: x\nmetric_list: [a, b\noutput_type: y\n")
    with pytest.raises(UserError, match=rf"^--tasks lm_eval:{path}, line 3: not YAML: "):
        load(path)
    path.write_text("dataset_path: json\n")
    with pytest.raises(UserError, match="names no task: and no group:"):
        load(path)
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"doc_to_text": "{{nothing.at.all}}"}, "cannot load it (UndefinedError: "),
        ({"dataset_kwargs": {"data_files": {"test": "/nowhere.jsonl"}}}, "cannot load it ("),
        ({"metric_list": [{"aggregation": "mean"}]}, "'metric' key not provided"),
        ({"output_type": "sing"}, "invalid output_type 'sing'"),
        ({"num_fewshot": 50}, "cannot be rendered ("),
    ],
)
def test_a_task_that_does_not_fit_its_rows_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = write_task(tmp_path, CHOICE | changes)
    with pytest.raises(UserError) as error:
        load(path)
    assert said in str(error.value)
    assert str(error.value).startswith("--tasks lm_eval:")
    assert "\n" not in str(error.value)


def test_data_of_the_hub_without_a_network(tmp_path: Path) -> None:
    path = write_task(tmp_path, CHOICE | {"dataset_path": "nobody/nothing", "dataset_kwargs": {}})
    with pytest.raises(UserError, match="its data come from the hub, which does not answer"):
        load(path)


def test_what_cannot_be_asked_here_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="runs the model's programs with nothing around them"):
        load(write_task(tmp_path, WRITE | {"unsafe_code": True}))
    with pytest.raises(UserError, match="shows pictures or sounds"):
        load(write_task(tmp_path, WRITE | {"doc_to_image": ["number"]}))
    with pytest.raises(UserError, match="local_choice allows no shots, its file says 0"):
        load(f"{write_task(tmp_path, CHOICE | {'num_fewshot': 0})}@3")
    with pytest.raises(UserError, match="behind the @ stands a number of shots, such as piqa@5"):
        load("piqa@lots")


def test_a_limit_and_a_second_naming_go_by_the_tasks_name(tmp_path: Path) -> None:
    path = write_task(tmp_path, CHOICE)
    assert len(load(path, "lm_eval:local_choice=4")[0].items) == 4
    with pytest.raises(UserError, match="a task is named twice"):
        load(f"{path},lm_eval:{path}")


@pytest.mark.slow
def test_a_task_of_the_package_is_found_and_an_unknown_one_has_neighbours() -> None:
    with pytest.raises(UserError, match=r"arc_easy: .*hub, which does not answer"):
        load("arc_easy")
    with pytest.raises(UserError, match=r"no such task; did you mean .*lm_eval:arc_easy"):
        load("arc_eazy")
