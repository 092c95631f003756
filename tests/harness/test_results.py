"""A run directory: what is written can be read, resumed, and never mixed with another run."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.results import (
    identity_digest,
    read_info,
    read_metrics,
    read_run,
    read_samples,
    response_from,
    sample_record,
    to_frame,
)
from qwen_eval.run_writer import RunWriter
from qwen_eval.types import Response, Score
from tests.harness.toys import item, record, run_info, task_info

ORDER = [("toy@strict", f"{i:04x}") for i in range(3)]


def finished(folder: Path) -> Path:
    writer = RunWriter(folder, run_info(), ["header "])
    for number in (2, 0, 1):
        writer.add(record(number, float(number > 0)))
    writer.finish(ORDER, {"schema": 1, "tasks": {}})
    writer.close()
    return folder


def test_a_finished_run_holds_its_files_and_reads_back(tmp_path: Path) -> None:
    folder = finished(tmp_path / "run")
    names = {"run.json", "prompts.json", "samples.jsonl", "metrics.json", "DONE"}
    assert set(os.listdir(folder)) == names
    assert read_info(folder) == run_info()
    assert [r.id for r in read_samples(folder)] == [i for _, i in ORDER]
    assert read_metrics(folder) == {"schema": 1, "tasks": {}}
    assert list(json.loads((folder / "prompts.json").read_text()).values()) == ["header "]


def test_what_was_done_is_not_asked_again(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, run_info(), [])
    writer.add(record(0))
    writer.add(record(1, error="server down", status="error"))
    writer.close()
    with (tmp_path / "samples.jsonl").open("a") as file:
        file.write('{"id": "0002", "ta')  # as a kill leaves it
    again = RunWriter(tmp_path, run_info(), [])
    assert set(again.done) == {("toy@strict", "0000")}, "failed and torn ones are asked again"
    assert again.resumed == 1
    again.add(record(1))
    again.add(record(2))
    again.finish(ORDER, {})
    assert [r.status for r in read_samples(tmp_path)] == ["scored"] * 3


def test_a_run_that_goes_on_is_not_done(tmp_path: Path) -> None:
    finished(tmp_path)
    RunWriter(tmp_path, run_info(), []).close()
    assert not (tmp_path / "DONE").exists()


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (run_info(model={"name": "m", "fingerprint": "g", "dtype": "float32"}), "fingerprint"),
        (run_info(settings={"seed": 1}), "settings.seed is 0 there, 1 here"),
        (run_info(isolation="none"), "isolation"),
        (run_info(tasks={"toy@strict": task_info(prompts_digest="q")}), "prompts_digest"),
        (run_info(tasks={"toy@strict": task_info(data_kind="sample")}), "data_kind"),
        (run_info(tasks={"toy@strict": task_info(), "b@strict": task_info()}), "tasks.b@strict"),
    ],
)
def test_another_run_is_refused_and_left_whole(tmp_path: Path, other, named: str) -> None:
    finished(tmp_path)
    before = {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}
    with pytest.raises(UserError) as error:
        RunWriter(tmp_path, other, [])
    assert "holds another run" in str(error.value)
    assert named in str(error.value)
    assert before == {name: (tmp_path / name).read_bytes() for name in os.listdir(tmp_path)}


def test_versions_and_machines_do_not_forbid_a_resume(tmp_path: Path) -> None:
    finished(tmp_path)
    other = run_info(
        environment={"python": "9.9"}, tasks={"toy@strict": task_info(data_source="elsewhere")}
    )
    assert RunWriter(tmp_path, other, []).resumed == 3


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="not empty and not a run"):
        RunWriter(tmp_path, run_info(), [])
    with pytest.raises(UserError, match="--out"):
        RunWriter(tmp_path / "thesis.tex", run_info(), [])


def test_damage_is_named_by_file_and_line(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    whole = (folder / "samples.jsonl").read_text()
    (folder / "samples.jsonl").write_text(whole.replace('"status"', '"stat"', 1))
    with pytest.raises(UserError, match=r"samples\.jsonl, line 1: not a sample record"):
        read_samples(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(UserError, match=r"run\.json: cannot be read"):
        read_info(folder)
    (folder / "run.json").write_text("{}")
    with pytest.raises(UserError, match="not a run of this version"):
        read_info(folder)
    with pytest.raises(UserError, match=r"is .* a run directory"):
        read_info(tmp_path / "nowhere")


def test_a_full_disk_at_the_end_keeps_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = RunWriter(tmp_path, run_info(), [])
    for number in range(3):
        writer.add(record(number))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("qwen_eval.fileio.os.replace", full)
        with pytest.raises(UserError, match="free some space and repeat the same command"):
            writer.finish(ORDER, {})
    assert len(read_samples(tmp_path)) == 3
    assert not (tmp_path / "DONE").exists()
    assert RunWriter(tmp_path, run_info(), []).resumed == 3


def test_a_response_survives_the_file() -> None:
    response = Response(
        text="\ud800 18",
        logprobs=(-0.5, -1e-9),
        greedy=(True,),
        finish_reason="length",
        passed=True,
    )
    stored = sample_record(item(1), [response], Score({"accuracy": 1.0}, "18"), None)
    assert response_from(json.loads(json.dumps(asdict(stored)))["responses"][0]) == response
    assert stored.output_truncated
    assert not stored.prompt_truncated


def test_runs_become_one_table(tmp_path: Path) -> None:
    finished(tmp_path / "a")
    finished(tmp_path / "b")
    frame = to_frame([tmp_path / "a", tmp_path / "b"])
    assert len(frame) == 6
    assert frame.groupby("run")["accuracy"].mean().tolist() == pytest.approx([2 / 3, 2 / 3])
    assert set(frame["id"]) == {i for _, i in ORDER}


def test_half_a_character_fits_into_the_table(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, run_info(), [])
    writer.add(record(0, answer="\ud83d 7"))
    writer.close()
    assert to_frame([tmp_path])["answer"].tolist() == ["\\ud83d 7"]


def test_the_default_folder_names_the_run() -> None:
    assert identity_digest(run_info()) == identity_digest(replace(run_info(), environment={"a": 1}))
    assert identity_digest(run_info()) != identity_digest(run_info(settings={"seed": 2}))


def test_a_kill_during_the_first_writes_leaves_a_folder_that_resumes(tmp_path: Path) -> None:
    (tmp_path / ".run.json.4711.tmp").write_text('{"mod')
    RunWriter(tmp_path, run_info(), ["header "]).close()
    (tmp_path / "prompts.json").unlink()  # killed behind run.json
    writer = RunWriter(tmp_path, run_info(), ["header "])
    assert (tmp_path / "prompts.json").exists()
    writer.close()


def test_a_folder_that_is_no_run_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "prompts.json").write_text("{}")
    with pytest.raises(UserError, match="not empty and not a run"):
        RunWriter(tmp_path, run_info(), [])
    assert os.listdir(tmp_path) == ["prompts.json"]


def test_a_marker_that_cannot_be_taken_away(tmp_path: Path) -> None:
    (tmp_path / "DONE").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(asdict(run_info())))
    with pytest.raises(UserError, match="cannot be written"):
        RunWriter(tmp_path, run_info(), [])


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"values": None}, "values"),
        ({"values": {"accuracy": "right"}}, r"values\.accuracy"),
        ({"values": {"accuracy": 1e200}}, "values: beyond 1e"),
        ({"id": 7}, "id"),
        ({"text": None}, "text"),
        ({"answer": 3}, "answer"),
        ({"detail": []}, "detail"),
        ({"detail": {"margin": None}}, r"detail\.margin"),
        ({"responses": [5]}, r"responses\.0"),
        ({"responses": None}, "responses"),
        ({"responses": [{"text": 5}]}, r"0\.text"),
        ({"responses": [{"logprobs": [None]}]}, r"0\.logprobs\.0"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_record_of_another_shape_is_named(tmp_path: Path, damage: dict, named: str) -> None:
    lines = [json.dumps(asdict(record(0))), json.dumps(asdict(record(1)) | damage)]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"samples\.jsonl, line 2: not a sample record \({named}"):
        read_samples(tmp_path)


def test_a_number_beyond_all_numbers_is_no_score(tmp_path: Path) -> None:
    line = json.dumps(asdict(record(0))).replace("1.0", "1e999")  # JSON allows it, floats do not
    (tmp_path / "samples.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match="finite"):
        read_samples(tmp_path)


def test_a_detail_may_say_more(tmp_path: Path) -> None:
    kept = record(0, detail={"margin": 1, "unheard": {"of": [None]}})
    (tmp_path / "samples.jsonl").write_text(json.dumps(asdict(kept)) + "\n")
    assert read_samples(tmp_path) == [kept]


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ({"model": None}, "model"),
        ({"model": {"detail": "native"}}, r"model\.detail"),
        ({"invocations": None}, "invocations"),
        ({"invocations": [{"seconds": None}]}, "invocations: seconds"),
        ({"settings": 3}, "settings"),
        ({"isolation": None}, "isolation"),
        ({"tasks": {"toy@strict": {}}}, r"tasks\.toy@strict\.recipe"),
        ({"tasks": {"toy@strict": asdict(task_info()) | {"selected": None}}}, "tasks.*selected"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_damaged_run_file_is_named(tmp_path: Path, damage: dict, named: str) -> None:
    (tmp_path / "run.json").write_text(json.dumps(asdict(run_info()) | damage))
    with pytest.raises(UserError, match=rf"run\.json: not a run of this version \({named}"):
        read_info(tmp_path)


def test_files_that_do_not_fit_one_another_are_no_run(tmp_path: Path) -> None:
    writer = RunWriter(tmp_path, run_info(), ["header "])
    writer.add(record(0, task="ghost@strict"))
    writer.close()
    with pytest.raises(UserError, match=r"samples of ghost@strict, which run\.json does not name"):
        read_run(tmp_path)
    (tmp_path / "samples.jsonl").write_text("")
    assert read_run(tmp_path).samples == []
    (tmp_path / "prompts.json").write_text('{"p": 5}')
    with pytest.raises(UserError, match=r"prompts\.json: damaged \(p"):
        read_run(tmp_path)
