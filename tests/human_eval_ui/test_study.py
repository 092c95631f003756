"""A study is frozen from runs or lines, and nothing in it changes unseen."""

from __future__ import annotations

import json
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from qwen_eval.errors import UserError
from qwen_eval.fileio import file_hash
from qwen_eval.human_eval_ui.instructions import load_instructions
from qwen_eval.human_eval_ui.store.store import open_store
from qwen_eval.human_eval_ui.study import making, pairs
from qwen_eval.human_eval_ui.study.making import Rules
from qwen_eval.human_eval_ui.study.spec import read_study
from tests.cli.command import qwen_eval
from tests.human_eval_ui.made_study import lines, made_study, write_lines

RULES = Rules(control_every=0)


def answering(folder: Path, name: str, limit: int = 6, reply: str = "很高兴回答。") -> Path:
    """A run of human300 whose model always says the same."""
    script = folder / f"{name}.jsonl"
    script.write_text(json.dumps({"text": reply}) + "\n")
    done = qwen_eval("run", "--tasks", "human300", "--model", f"mock:{script}", "--limit", limit,
                     "--out", folder / name)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: answering(folder, name) for name in ("east", "west")}


def test_answers_of_runs_stand_beside_their_instructions(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    gathered = making.from_runs(list(runs.values()), RULES)
    study = making.make_study(tmp_path / "study", gathered, None, RULES)
    known = {each.id: each for each in load_instructions()}
    assert len(study.items) == 6
    for name, item in study.items.items():
        assert (item.text, item.points) == (known[name].text, known[name].points)
        assert len(item.answers) == 2
    assert [system.run for system in study.spec.systems] == ["east", "west"]


def test_a_system_that_names_itself_is_masked(tmp_path: Path) -> None:
    rows = lines(3, ("falcon-x", "y"))
    for row in rows:
        row["answers"]["falcon-x"] += "我是 Falcon-X，也不是通义千问。"
    path = write_lines(tmp_path / "a.jsonl", rows)
    gathered = making.from_lines(path, RULES)
    study = making.make_study(tmp_path / "study", gathered, "y", RULES)
    for item in study.items.values():
        answer = item.answers["falcon-x"]
        assert answer.masked == 2
        assert "alcon" not in answer.text
        assert "千问" not in answer.text
        assert answer.length == len(answer.text)
        assert item.answers["y"].masked == 0


def test_a_system_called_by_a_plain_word_is_masked_where_it_speaks_of_itself(
    tmp_path: Path,
) -> None:
    rows = lines(3, ("Zephyr", "y"))
    for row in rows:
        row["answers"]["Zephyr"] += "我是Zephyr，一个AI助手。The zephyr blows."
    gathered = making.from_lines(write_lines(tmp_path / "a.jsonl", rows), RULES)
    for item in making.make_study(tmp_path / "study", gathered, "y", RULES).items.values():
        answer = item.answers["Zephyr"]
        assert answer.text.endswith("我是[已隐去]，一个AI助手。The zephyr blows.")
        assert answer.masked == 1


def test_pairs_are_against_the_baseline_or_all(tmp_path: Path) -> None:
    three = ("ash", "oak", "yew")
    against = made_study(tmp_path / "one", systems=three, baseline="oak")
    assert against.versus == (("ash", "oak"), ("oak", "yew"))
    everybody = made_study(tmp_path / "two", systems=three, baseline=None)
    assert everybody.versus == (("ash", "oak"), ("ash", "yew"), ("oak", "yew"))
    found = pairs.pairs_of(everybody)
    assert len(found.regular) == 36
    assert not any(name in pair for pair in found.regular for name in three)


def test_attention_pairs_hold_one_answer_twice_once_damaged(tmp_path: Path) -> None:
    found = pairs.pairs_of(study := made_study(tmp_path, gold=5))
    assert len(found.gold) == 5
    for name, pair in found.gold.items():
        sound = study.items[pair.item].answers[pair.first].text
        assert sorted(found.damaged[name].text) == sorted(sound)
        assert found.damaged[name].text != sound


def test_the_folder_is_closed_to_others_and_tells_what_it_holds(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    assert stat.S_IMODE((study.folder / "key").stat().st_mode) == 0o600
    assert study.spec.items_digest == file_hash(study.folder / "items.jsonl")
    assert study.spec.plan.primary.startswith("net preference")
    assert read_study(study.folder).spec.digest == study.spec.digest
    assert repr(study.key) not in repr(study)


@pytest.mark.parametrize("name", ["items.jsonl", "key"])
def test_a_frozen_file_that_changed_is_refused(tmp_path: Path, name: str) -> None:
    study = made_study(tmp_path)
    path = study.folder / name
    text = path.read_text("utf-8")
    path.write_text(text.replace(text[5], "0" if text[5] != "0" else "1", 1), "utf-8")
    with pytest.raises(UserError, match=f"{name}: changed since the study was frozen"):
        read_study(study.folder)


def test_rules_that_changed_are_another_study(tmp_path: Path) -> None:
    study = made_study(tmp_path)
    path = study.folder / "study.json"
    raw = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(raw | {"overlap": 9}), "utf-8")
    assert read_study(study.folder).spec.digest != study.spec.digest
    path.write_text(json.dumps(raw | {"votes": 9}), "utf-8")
    with pytest.raises(UserError, match=r"study\.json: not a study of this version \(votes"):
        read_study(study.folder)
    with pytest.raises(UserError, match="no study there"):
        read_study(tmp_path)


def test_a_study_begins_in_a_folder_of_its_own(tmp_path: Path) -> None:
    made_study(tmp_path)
    with pytest.raises(UserError, match="not empty"):
        made_study(tmp_path)


@pytest.mark.parametrize("name", ["a?b", "a%20b", "a#b", "a b@c:d", "研究"])
def test_the_database_lies_in_the_folder_whatever_its_name(tmp_path: Path, name: str) -> None:
    study = made_study(tmp_path / name)
    open_store(study).close()
    assert (study.folder / "study.db").is_file()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def spoilt(row: dict, **changes: object) -> dict:
    return {**row, **changes}


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ({"id": "i00"}, "line 3: id: i00 was there before"),
        ({"text": " "}, "line 3: id, category and text must not be empty"),
        (
            {"answers": {"north": "x"}},
            "line 3: answers: of north; every line has",
        ),
        ({"answers": {"north": "x", "east": "y"}}, "line 3: answers: of east, north; every line"),
        ({"answers": {"north": "x", "south": "\n"}}, r"line 3: answers\.south: empty"),
        ({"answers": {"north": "x", "south": 5}}, r"line 3: answers\.south: "),
        ({"prompt": "x"}, "line 3: prompt: "),
    ],
)
def test_a_corrupt_line_is_named(tmp_path: Path, last: dict, told: str) -> None:
    rows = lines(3)
    rows[2] = spoilt(rows[2], **last)
    with pytest.raises(UserError, match=rf"a\.jsonl, {told}"):
        making.from_lines(write_lines(tmp_path / "a.jsonl", rows), RULES)


def test_a_torn_or_empty_file_is_named(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", lines(2))
    path.write_text(path.read_text("utf-8")[:-30], "utf-8")
    with pytest.raises(UserError, match=r"a\.jsonl, line 2"):
        making.from_lines(path, RULES)
    path.write_text("", "utf-8")
    with pytest.raises(UserError, match="holds no instruction"):
        making.from_lines(path, RULES)


def test_runs_over_different_instructions_are_refused(
    tmp_path: Path, runs: dict[str, Path]
) -> None:
    other = answering(tmp_path, "north", limit=5)
    with pytest.raises(UserError, match=r"north: answers other instructions than .*east: 1 are in"):
        making.from_runs([runs["east"], other], RULES)


def test_a_run_counts_once_however_it_is_written(tmp_path: Path, runs: dict[str, Path]) -> None:
    east = runs["east"]
    (tmp_path / "link").symlink_to(east)
    for other in (east, east / ".." / "east", tmp_path / "link"):
        with pytest.raises(UserError, match="named twice; give each run once"):
            making.from_runs([east, other], RULES)
    init = ("annotate", "init", "--systems", "east", east, "--out", tmp_path / "study")
    for more in ((), ("--baseline", "west"), ("--baseline", "east")):
        done = qwen_eval(*init, *more, cwd=east.parent)
        assert (done.returncode, done.stdout) == (2, "")
        assert "named twice" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "study").exists()


def test_a_study_has_two_systems_and_a_pair_whatever_the_way_in(tmp_path: Path) -> None:
    gathered = making.from_lines(write_lines(tmp_path / "a.jsonl", lines(2)), RULES)
    first = gathered.systems[0]
    for systems in ((), (first,), (first, first)):
        with pytest.raises(UserError, match="a study needs two systems of different names"):
            making.make_study(tmp_path / "s", replace(gathered, systems=systems), None, RULES)
    with pytest.raises(UserError, match="one instruction at least"):
        making.make_study(tmp_path / "s", replace(gathered, lines=[]), None, RULES)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("name", "told"),
    [(" ", "must not be empty"), ("x" * 101, "a name of 101 characters; 100 at most"),
     ("a\ud800", "holds half a character")],
)  # fmt: skip
def test_a_name_that_cannot_be_shown_is_refused_where_it_stands(
    tmp_path: Path, runs: dict[str, Path], name: str, told: str
) -> None:
    rows = lines(3)
    for row in rows[1:]:
        row["answers"] = {name: "x", "south": "y"}
    rows[0]["answers"] = dict(rows[1]["answers"])
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=rf"a\.jsonl, line 1: answers: .*{told}"):
        making.from_lines(path, RULES)
    done = qwen_eval("annotate", "init", "--answers", path, "--out", tmp_path / "study")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.strip().splitlines()) == 1
    named = tmp_path / "named"
    shutil.copytree(runs["east"], named)
    info = json.loads((named / "run.json").read_text("utf-8"))
    info["model"]["name"] = name
    (named / "run.json").write_text(json.dumps(info))
    done_marks = json.loads((named / "DONE").read_text("utf-8"))
    done_marks["run.json"] = file_hash(named / "run.json")
    (named / "DONE").write_text(json.dumps(done_marks))
    with pytest.raises(UserError, match=rf"--systems .*named: .*{told}"):
        making.from_runs([runs["west"], named], RULES)


@pytest.mark.parametrize("key", ["id", "category", "text", "points"])
def test_half_a_character_is_refused_and_in_answers_shown_as_such(tmp_path: Path, key: str) -> None:
    rows = lines(2)
    half = "a\ud800"
    rows[1]["answers"]["north"] = half
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study = making.make_study(tmp_path / "study", making.from_lines(path, RULES), None, RULES)
    assert study.items["i01"].answers["north"].text == "a\ufffd"
    rows[1][key] = [half] if key == "points" else half
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match="line 2: holds half a character"):
        making.from_lines(path, RULES)


def test_the_plan_is_of_the_design(tmp_path: Path) -> None:
    against = made_study(tmp_path / "one").spec.plan
    everybody = made_study(tmp_path / "two", baseline=None).spec.plan
    assert against.primary.startswith("net preference against the baseline")
    assert everybody.primary.startswith("strengths of all systems relative to their mean")
    assert "ranks" in everybody.primary
    assert "net preference" not in f"{everybody.primary} {everybody.secondary}"
    assert "baseline" not in f"{everybody.primary} {everybody.secondary}"
    assert "by category" in against.secondary
    for plan in (against, everybody):
        assert plan.secondary.count("named their maker") == 2
        assert read_study(tmp_path / "two" / "study").spec.plan == everybody


def test_init_prints_names_that_do_nothing(tmp_path: Path) -> None:
    hostile = "[red]x\x1b[31m"
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in lines(3, (hostile, "y"))))
    done = qwen_eval("annotate", "init", "--answers", path, "--baseline", hostile,
                     "--name", hostile, "--out", tmp_path / "study")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "3 instructions, y against [red]x�[31m" in done.stdout
    # Of three items with three votes each not even a difference of all is likely to be found.
    assert "no difference, however large, is found four times in five" in done.stdout


def test_empty_answers_are_told_and_may_be_taken(tmp_path: Path, runs: dict[str, Path]) -> None:
    silent = answering(tmp_path, "silent", reply="  ")
    with pytest.raises(UserError, match=r"silent: 6 answers are empty .*--allow-empty"):
        making.from_runs([runs["east"], silent], RULES)
    gathered = making.from_runs([runs["east"], silent], Rules(empty=True))
    study = making.make_study(tmp_path / "study", gathered, None, Rules())
    assert {a.text for i in study.items.values() for a in i.answers.values()} >= {""}


def test_an_unfinished_or_foreign_run_is_refused(tmp_path: Path, runs: dict[str, Path]) -> None:
    torn = answering(tmp_path, "torn")
    (torn / "DONE").unlink()
    with pytest.raises(UserError, match="torn: not finished"):
        making.from_runs([runs["east"], torn], RULES)
    done = qwen_eval("run", "--tasks", "tiny_pairs", "--model", "mock:random", "--limit", 3,
                     "--out", tmp_path / "pairs")  # fmt: skip
    assert done.returncode == 0
    with pytest.raises(UserError, match=r"a run of human300 alone is needed, not of tiny_pairs"):
        making.from_runs([runs["east"], tmp_path / "pairs"], RULES)
    with pytest.raises(UserError, match="two run directories at least"):
        making.from_runs([runs["east"]], RULES)


@pytest.mark.parametrize(
    ("rules", "told"),
    [({"overlap": 0}, "--overlap 0"), ({"control_every": 1}, "--control-every 1"),
     ({"gold": -1}, "--gold -1"), ({"quota": 0}, "--quota 0"), ({"name": ""}, "--name"),
     ({"lease": 0.6}, r"--lease 0\.01: give a number of minutes from 1 on"),
     ({"hidden": ("x", "\udcff")}, "--hide: .*half a character")],
)  # fmt: skip
def test_rules_out_of_range_are_refused(rules: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        Rules(**rules)
