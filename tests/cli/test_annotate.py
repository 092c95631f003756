"""`qwen-eval annotate`: a whole study from two runs to a gate, and what can go wrong on the way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.human_eval_ui.store import access, assigning, voting
from qwen_eval.human_eval_ui.store.store import open_store
from qwen_eval.human_eval_ui.store.voting import Ballot
from qwen_eval.human_eval_ui.study.spec import read_study
from tests.cli.command import qwen_eval
from tests.human_eval_ui.made_study import made_study

LIMIT = 8
SYSTEMS = ("plain", "rich")


def answers(folder: Path, name: str) -> Path:
    """A run of human300 by a model that always says the same."""
    script = folder / f"{name}.jsonl"
    script.write_text(json.dumps({"text": f"这是一个{name}的回答，写得清楚，也写得完整。"}) + "\n")
    out = folder / name
    done = qwen_eval("run", "--tasks", "human300", "--model", f"mock:{script}", "--limit", LIMIT,
                     "--out", out)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("runs")
    return [answers(folder, name) for name in SYSTEMS]


@pytest.fixture
def study(tmp_path: Path, runs: list[Path]) -> Path:
    done = qwen_eval("annotate", "init", "--systems", *runs, "--baseline", runs[0],
                     "--overlap", 3, "--dwell", 0, "--control-every", 4, cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"{LIMIT} pairs × 3 votes = {3 * LIMIT}" in done.stdout
    assert f"with {LIMIT} items and 3 votes you can tell ±" in done.stdout
    return tmp_path / "study"


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that nothing is done with."""
    return made_study(tmp_path_factory.mktemp("frozen")).folder


def say(study: Path, *words: object) -> str:
    """One command on a study that has to go well."""
    command, *more = words
    done = qwen_eval("annotate", command, study, *more)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def vote(study: Path, name: str, better: str) -> None:
    """Everything there is, always for one system."""
    store = open_store(read_study(study))
    access.invite(store, name)
    person = access.named(store, name)
    assert person is not None
    while isinstance(one := assigning.next_assignment(store, person.id), assigning.Assignment):
        pair = store.pairs[one.pair]
        first = pair.gold or pair.first == better
        voting.cast(store, person.id, one.id, Ballot(2 if first is one.swapped else -2))
    store.close()


def test_a_study_from_runs_to_a_gate(study: Path, tmp_path: Path) -> None:
    baseline, system = (s.name for s in read_study(study).spec.systems)
    link = say(study, "invite", "小红", "--role", "viewer", "--url", "https://example.org/")
    assert link.startswith("https://example.org/join?token=")
    for name in ("小明", "小刚", "小丽"):
        vote(study, name, system)
    status = json.loads(say(study, "status", "--json"))
    assert (status["votes"], status["wanted"], status["disputes"]) == (24, 24, 0)
    assert "attention 1 of 1" in say(study, "status")

    blind = tmp_path / "blind"
    say(study, "export", "--out", blind)
    assert {path.name for path in blind.iterdir()} == {"votes-blind.jsonl", "events.jsonl"}
    for path in blind.iterdir():
        assert not any(name in path.read_text("utf-8") for name in (*SYSTEMS, baseline, system))
    refused = qwen_eval("annotate", "report", study)
    assert (refused.returncode, refused.stdout) == (3, "")
    assert "names stay hidden until it is closed and unblinded" in refused.stderr

    say(study, "close")
    say(study, "unblind")
    figure = tmp_path / "figure.svg"
    told = say(study, "report", "-o", figure)
    assert f"{system} is preferred to {baseline}: net +100.0 points" in " ".join(told.split())
    assert figure.read_text("utf-8").startswith("<svg")
    found = json.loads(say(study, "report", "--json"))
    assert found["verdicts"][0]["winner"] == system

    out = tmp_path / "out"
    say(study, "export", "--out", out, "--names")
    assert "小明" in (out / "votes.csv").read_text("utf-8")
    (run,) = (out / "runs").iterdir()
    report = qwen_eval("report", run, "-o", tmp_path / "report.html")
    assert report.returncode == 0, report.stderr
    (task,) = json.loads((run / "run.json").read_text("utf-8"))["tasks"]
    rules = tmp_path / "gate.yaml"
    rules.write_text(f'rules:\n  - {{task: "{task}", type: floor, minimum: 0.5}}\n')
    gate = qwen_eval("gate", "--rules", rules, "--baseline", run, "--candidate", run)
    assert gate.returncode == 0, gate.stdout + gate.stderr


def test_a_judge_is_held_against_people(study: Path, tmp_path: Path) -> None:
    baseline, system = (s.name for s in read_study(study).spec.systems)
    vote(study, "小明", system)
    script = tmp_path / "judge.jsonl"
    script.write_text(json.dumps({"text": "左边更好。[[A>B]]"}) + "\n")
    judged = say(study, "judge", "--model", f"mock:{script}", "--name", "lefty")
    assert f"lefty: a verdict in both orders on {LIMIT} of {LIMIT} pairs" in judged
    again = say(study, "judge", "--model", f"mock:{script}", "--name", "lefty")
    assert f"{2 * LIMIT} samples kept" in again
    say(study, "close")
    say(study, "unblind")
    found = json.loads(say(study, "report", "--json"))
    # Whoever always says the first is better says nothing: a tie on every pair, as no person did.
    assert found["judges"]["lefty"]["same"]["value"] == 0.0
    assert found["judges"]["lefty"]["units"] == LIMIT
    assert baseline != system


def test_states_go_one_way(study: Path) -> None:
    say(study, "pause")
    say(study, "resume")
    early = qwen_eval("annotate", "unblind", study)
    assert (early.returncode, "close it first" in early.stderr) == (3, True)
    say(study, "close")
    late = qwen_eval("annotate", "resume", study)
    assert late.returncode == 3
    assert "is closed and cannot become open" in late.stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["init"], 2, "--systems or --answers: name the runs"),
        (["init", "--systems", "nowhere", "elsewhere"], 2, "nowhere"),
        (["init", "--answers", "nowhere.jsonl"], 2, "nowhere.jsonl"),
        (["status", "nowhere"], 2, "nowhere: no study there; `qwen-eval annotate init` makes one"),
        (["serve", "study", "--host", "0.0.0.0", "--solo"], 3, "others can reach it"),
        (["serve", "study", "--port", "99999"], 2, "--port 99999"),
        (["serve", "study", "--host", "no.such.host.invalid"], 2, "--host no.such.host.invalid"),
        (["invite", "study", "x", "--role", "king"], 2, "--role king"),
        (["revoke", "study", "nobody"], 2, "nobody of that name"),
        (["judge", "study", "--model", "mock:random", "--recipe", "fr"], 2, "--recipe fr"),
        (["report", "study", "--database", "mysql://x/y"], 2, "--database"),
        (["report", "study", "--language", "fr"], 2, "--language fr"),
        ([], 0, ""),
    ],
)
def test_mistakes_are_one_line(
    frozen: Path, words: list[Any], code: int, told: str, tmp_path: Path
) -> None:
    if not words:  # without a word it serves ./study, and says how to make one where there is none
        empty = tmp_path / "empty"
        empty.mkdir()
        done = qwen_eval("annotate", cwd=empty)
        assert (done.returncode, "no study in ./study" in done.stderr) == (2, True)
        return
    done = qwen_eval("annotate", *words, cwd=frozen.parent)
    assert (done.returncode, done.stdout) == (code, "")
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
