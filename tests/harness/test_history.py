"""The index over run directories: what is read once, read again, forgotten and rebuilt."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import pytest

from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash
from qwen_eval.history import INDEX, History, read_history
from qwen_eval.results import FILES, read_run
from tests.harness.toys import finished_run, task_info


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with a run, one below it, and something else."""
    finished_run(tmp_path / "runs" / "a", [1.0, 0.0, None], "2026-01-02T10:00:00+00:00")
    finished_run(tmp_path / "runs" / "deep" / "b", [1.0, 1.0, 0.0], "2026-01-01T10:00:00+00:00")
    (tmp_path / "runs" / "notes").mkdir()
    return tmp_path / "runs"


def names(history: History, folder: Path) -> set[str]:
    return {str(Path(one.point.run).relative_to(folder)) for one in history.results}


def test_the_index_holds_what_the_run_says(runs: Path) -> None:
    history = read_history([runs])
    (one,) = [one for one in history.results if one.point.run == str(runs / "a")]
    point = asdict(one.point)
    assert (one.task, one.scores, one.groups) == ("toy@strict", (1.0, 0.0, None), ("g",) * 3)
    metrics = json.loads((runs / "a" / "metrics.json").read_text())["tasks"]["toy@strict"]
    assert {k: point[k] for k in ("n", "low", "high", "method")} == {
        k: metrics["overall"][k] for k in ("n", "low", "high", "method")
    }
    assert (point["score"], point["n"]) == (0.5, 2)
    assert point["invalid"] == ("errors 33% > 2%",)
    assert (point["model"], point["fingerprint"], point["dtype"]) == ("m", "f", "float32")
    assert point["started"] == "2026-01-02T10:00:00+00:00"
    assert read_history([runs]).results == history.results, "what is stored is what was read"


def test_an_excluded_sample_has_no_score(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "a", [1.0, 0.0, None])
    path = folder / "samples.jsonl"
    text = path.read_text().replace('"status": "error"', '"status": "excluded"')
    path.write_text(text.replace('"error": "down"', '"error": null'))
    (folder / "DONE").write_text(json.dumps({name: file_hash(folder / name) for name in FILES}))
    (one,) = read_history([tmp_path]).results
    assert one.scores == (1.0, 0.0, None)


def test_a_run_is_read_once(runs: Path) -> None:
    read: list[Path] = []

    def watched(paths: list[Path]) -> list[Path]:
        read.extend(paths)
        return paths

    assert read_history([runs], track=watched).read == len(read) == 2
    assert read_history([runs], track=watched).read == 0
    finished_run(runs / "c", [1.0])
    again = read_history([runs], track=watched)
    assert (again.read, read[2:]) == (1, [runs / "c"])
    assert names(again, runs) == {"a", "deep/b", "c"}


def test_a_run_is_read_again_when_its_done_changed(runs: Path) -> None:
    read_history([runs])
    shutil.rmtree(runs / "a")
    finished_run(runs / "a", [0.0, 0.0])
    again = read_history([runs])
    assert again.read == 1
    assert {one.scores for one in again.results} == {(0.0, 0.0), (1.0, 1.0, 0.0)}


def test_what_vanished_is_forgotten(runs: Path) -> None:
    read_history([runs])
    shutil.rmtree(runs / "a")
    (runs / "deep" / "b" / "DONE").unlink()
    again = read_history([runs])
    assert (again.results, again.unfinished) == ([], 1)
    with closing(sqlite3.connect(runs / INDEX)) as database:
        assert database.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_unfinished_runs_are_counted(runs: Path) -> None:
    (runs / "deep" / "b" / "DONE").unlink()
    history = read_history([runs])
    assert (history.unfinished, names(history, runs)) == (1, {"a"})


def spoil(run: Path, name: str, text: str) -> None:
    """Change a file of a finished run so that DONE still agrees with it."""
    from qwen_eval.fileio import file_hash

    (run / name).write_text(text)
    done = json.loads((run / "DONE").read_text())
    (run / "DONE").write_text(json.dumps(done | {name: file_hash(run / name)}))


@pytest.mark.parametrize(
    "kind",
    ["changed", "done", "schema", "no start", "odd start", "no metrics", "word", "endless"],
)
def test_a_damaged_run_is_left_out_by_name(runs: Path, kind: str) -> None:
    read_history([runs])
    a = runs / "a"
    info = json.loads((a / "run.json").read_text())
    line = json.loads((a / "samples.jsonl").read_text().splitlines()[0])
    if kind == "changed":
        (a / "DONE").write_text((a / "DONE").read_text() + " ")  # so that it is looked at
        (a / "samples.jsonl").write_text("")
    if kind == "done":
        (a / "DONE").write_bytes(b"\xff[")
    if kind == "schema":
        spoil(a, "run.json", json.dumps(info | {"schema": 99}))
    if kind == "no start":
        spoil(a, "run.json", json.dumps(info | {"invocations": []}))
    if kind == "odd start":
        spoil(a, "run.json", json.dumps(info | {"invocations": [{"started": "at noon"}]}))
    if kind == "no metrics":
        spoil(a, "metrics.json", json.dumps({"tasks": {}}))
    if kind == "word":
        spoil(a, "samples.jsonl", json.dumps(line | {"values": {"accuracy": "good"}}) + "\n")
    if kind == "endless":
        spoil(a, "samples.jsonl", json.dumps(line).replace('"accuracy": 1.0', '"accuracy": 1e999'))
        spoil(a, "samples.jsonl", (a / "samples.jsonl").read_text() + "\n")
    for _ in range(2):
        history = read_history([runs])
        (message,) = history.damaged
        assert str(a) in message
        assert "\n" not in message
        assert names(history, runs) == {"deep/b"}


# --- the index itself ---------------------------------------------------------------------------


def other_schema(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("PRAGMA user_version = 99")
        database.execute("DROP TABLE items")
        database.commit()


def other_words(file: Path) -> None:
    with closing(sqlite3.connect(file)) as database:
        database.execute("UPDATE runs SET results = x'00'")
        database.commit()


def torn(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def holed(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:4096] + bytes(file.stat().st_size - 4096))


def foreign(file: Path) -> None:
    file.unlink()
    with closing(sqlite3.connect(file)) as database:
        database.execute("CREATE TABLE runs (x)")
        database.commit()


DAMAGE: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "noise": lambda file: file.write_bytes(b"no database" * 999),
    "torn": torn,
    "holed": holed,
    "other schema": other_schema,
    "other words": other_words,
    "foreign": foreign,
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_index_is_made_anew_in_silence(runs: Path, kind: str) -> None:
    before = read_history([runs])
    DAMAGE[kind](runs / INDEX)
    again = read_history([runs])
    assert (again.results, again.damaged, again.kept) == (before.results, [], True)
    assert again.read == 2
    assert read_history([runs]).read == 0, "and it is whole again"


def test_no_flipped_byte_gives_other_results(runs: Path) -> None:
    whole = read_history([runs])
    good = (runs / INDEX).read_bytes()
    random = Random(0)
    used = [at for at, byte in enumerate(good) if byte]
    for at in random.sample(used, 100):
        bad = bytearray(good)
        bad[at] ^= 1 << random.randrange(8)
        (runs / INDEX).write_bytes(bad)
        again = read_history([runs])
        assert sorted(again.results, key=str) == sorted(whole.results, key=str), at
        assert again.kept


def test_where_no_index_can_be_written_there_is_none(runs: Path) -> None:
    whole = read_history([runs])
    (runs / INDEX).unlink()
    (runs / INDEX / "in the way").mkdir(parents=True)  # holds for root too, as a mode would not
    for _ in range(2):
        history = read_history([runs])
        assert (history.results, history.read, history.kept) == (whole.results, 2, False)
    nowhere = runs / "no" / "such" / "folder" / "index"
    assert read_history([runs], nowhere).results == whole.results


def test_an_index_in_use_is_left_alone(runs: Path) -> None:
    whole = read_history([runs])
    before = (runs / INDEX).read_bytes()
    with closing(sqlite3.connect(runs / INDEX)) as other:
        other.execute("BEGIN EXCLUSIVE")
        history = read_history([runs])
    assert (history.results, history.kept) == (whole.results, False)
    assert (runs / INDEX).read_bytes() == before
    assert read_history([runs]).read == 0


def test_an_index_elsewhere_serves_several_folders(runs: Path, tmp_path: Path) -> None:
    finished_run(tmp_path / "more" / "c", [1.0])
    index = tmp_path / "index.sqlite"
    assert read_history([runs, tmp_path / "more"], index).read == 3
    again = read_history([runs, tmp_path / "more"], index)
    assert (again.read, len(again.results)) == (0, 3)
    assert read_history([tmp_path / "more"], index).read == 0
    assert read_history([runs], index).read == 0, "another folder's runs have not vanished"
    assert not (runs / INDEX).exists()


def test_no_other_file_is_ever_taken_for_an_index(runs: Path, tmp_path: Path) -> None:
    for kind in ("noise", "foreign"):
        file = tmp_path / kind
        file.touch()
        DAMAGE[kind](file)
        before = file.read_bytes()
        with pytest.raises(UserError, match=f"--index .*{kind}: is another file"):
            read_history([runs], file)
        assert file.read_bytes() == before


def test_nothing_is_written_into_a_run_or_a_folder_without_runs(runs: Path) -> None:
    assert names(read_history([runs / "a"]), runs) == {"a"}
    assert read_history([runs / "notes"]).results == []
    assert not list(runs.rglob(INDEX))
    assert read_run(runs / "a").finished


def test_folders_that_overlap_give_each_run_once(runs: Path) -> None:
    history = read_history([runs, runs / "deep", runs / "a"])
    assert sorted(one.point.run for one in history.results) == [
        str(runs / "a"),
        str(runs / "deep" / "b"),
    ]


def test_a_folder_may_move_with_its_index(runs: Path, tmp_path: Path) -> None:
    read_history([runs])
    moved = runs.rename(tmp_path / "elsewhere")
    history = read_history([moved])
    assert (history.read, names(history, moved)) == (0, {"a", "deep/b"})


def test_a_folder_that_is_none_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        read_history([tmp_path / "none"])


def test_names_of_any_bytes_come_through(tmp_path: Path) -> None:
    odd: dict[str, Any] = {"name": "\ud800\x1b[31m\0", "fingerprint": 7, "dtype": None}
    try:
        run = finished_run(tmp_path / "r\udcff\n", [1.0], model=odd)
    except OSError:
        pytest.skip("this file system takes no such name")
    for _ in range(2):
        (one,) = read_history([tmp_path]).results
        assert Path(one.point.run) == run
        assert (one.point.model, one.point.fingerprint) == (odd["name"], "7")


def test_isolation_counts_for_programs_only(tmp_path: Path) -> None:
    for solver in ("code", "hf_agent", "generate"):
        for isolation in ("rung A", "rung C", "none"):
            tasks = {"toy@strict": task_info(solver=solver)}
            finished_run(tmp_path / solver / isolation, [1.0], tasks=tasks, isolation=isolation)
    for solver in ("code", "hf_agent"):
        keys = [str(one.key) for one in read_history([tmp_path / solver]).results]
        assert len(keys) == 3
        assert len(set(keys)) == 2, "contained, on whichever rung, and not"
    assert len({str(one.key) for one in read_history([tmp_path / "generate"]).results}) == 1
