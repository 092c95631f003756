"""A model as judge from a study's pairs to its agreement with people, by way of a run directory."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from qwen_eval.backends.base import BackendOptions, open_backend
from qwen_eval.cli.annotate_judge import judge_task
from qwen_eval.cli.asking import Asked, ask
from qwen_eval.cli.run import RunOptions, run_info
from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.analysis.judges import JudgeAgreement, judge_agreement
from qwen_eval.human_eval_ui.analysis.votes import Vote, majorities
from qwen_eval.human_eval_ui.judging import JudgeRow, judge_rows, votes_of
from qwen_eval.human_eval_ui.study.pairs import Pair
from qwen_eval.human_eval_ui.study.spec import Answer, StudyItem
from qwen_eval.results import read_run
from qwen_eval.taskspec import task_names
from tests.cli.command import qwen_eval

COUNT = 10
ITEMS = {
    f"i{n}": StudyItem(
        f"i{n}", "coding", f"Q{n}?", {"new": Answer(f"good {n}."), "old": Answer(f"bad {n}.")}
    )
    for n in range(COUNT)
}
PAIRS = [Pair(f"p{n}", f"i{n}", "new", "old") for n in range(COUNT)]
HUMANS = [
    Vote(f"i{n}", "coding", person, "old", "new", 1 if n < 6 else -1)
    for n in range(COUNT)
    for person in ("ann", "bob")
]
Write = Callable[..., Path]


@pytest.fixture
def script(tmp_path: Path) -> Write:
    def write(*rules: tuple[str, str]) -> Path:
        path = tmp_path / "script.jsonl"
        lines = [json.dumps({"contains": key, "text": text}) for key, text in rules]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def asked(rows: list[JudgeRow], script: Path, out: Path, recipe: str = "strict") -> Asked:
    task = judge_task(rows, recipe)
    backend = open_backend("mock", str(script), BackendOptions())
    options = RunOptions(tasks=task.info.recipe, model=f"mock:{script}")
    done = ask([task], backend, None, run_info([task], asdict(backend.info()), None, options), out)
    assert done is not None
    return done


def agreement(rows: list[JudgeRow], out: Path) -> JudgeAgreement:
    found = judge_agreement(votes_of(read_run(out).samples, rows, "mock"), HUMANS)
    assert found is not None
    return found


@pytest.mark.parametrize(("recipe", "label"), [("strict", "回答A"), ("en", "answer-A")])
def test_a_judge_that_knows_the_good_answer_agrees_where_people_do(
    recipe: str, label: str, script: Write, tmp_path: Path
) -> None:
    rows, out = judge_rows(ITEMS, PAIRS), tmp_path / "run"
    good = [(f"good {n}.\n</{label}", "Clear.\n[[A>B]]") for n in range(COUNT)]
    done = asked(rows, script(*good, ("", "I think\n[[B>>A]]")), out, recipe)
    assert done.failure is None
    assert [metrics.overall and metrics.overall.estimate for _, metrics in done.measured] == [1.0]
    votes = votes_of(read_run(out).samples, rows, "mock")
    assert len(votes) == 2 * COUNT
    assert {vote.choice_for("new") for vote in votes} == {1, 2}
    found = agreement(rows, out)
    assert (found.units, found.same.value) == (COUNT, 0.6)


def test_a_judge_that_always_says_a_says_ties(script: Write, tmp_path: Path) -> None:
    rows = judge_rows(ITEMS, PAIRS)
    asked(rows, script(("", "[[A>>B]]")), tmp_path / "run")
    votes = votes_of(read_run(tmp_path / "run").samples, rows, "mock")
    assert set(majorities(votes).values()) == {0}
    found = agreement(rows, tmp_path / "run")
    assert (found.same.value, found.decided) == (0.0, None)


def test_a_run_of_verdicts_goes_on_and_is_shown(script: Write, tmp_path: Path) -> None:
    rows, out = judge_rows(ITEMS, PAIRS), tmp_path / "run"
    rules = script(("Q3?", "I cannot say."), ("", "[[A=B]]"))
    asked(rows, rules, out)
    whole = (out / "samples.jsonl").read_bytes()
    (out / "samples.jsonl").write_bytes(b"".join(whole.splitlines(keepends=True)[:7]))
    (out / "DONE").unlink()
    asked(rows, rules, out)
    assert (out / "samples.jsonl").read_bytes() == whole
    assert len(rows) - len(votes_of(read_run(out).samples, rows, "mock")) == 2
    done = qwen_eval("report", out, "-o", tmp_path / "report.html")
    assert done.returncode == 0, done.stderr
    with pytest.raises(UserError, match="holds another run"):
        asked(rows[2:], rules, out)


def test_no_name_of_a_system_reaches_the_judge() -> None:
    for recipe in ("strict", "en"):
        for item in judge_task(judge_rows(ITEMS, PAIRS), recipe).items:
            system, user = item.prompt.messages
            assert (system.role, user.role) == ("system", "user")
            row = item.sample.row
            assert user.content.count(row["fence"]) == 7
            assert user.content.index(row["answer_a"]) < user.content.index(row["answer_b"])
            assert not re.search(r"\b(new|old)\b", system.content + user.content)


def test_what_cannot_be_asked_is_one_line() -> None:
    with pytest.raises(UserError, match="--recipe de: unknown; known: strict, en"):
        judge_task(judge_rows(ITEMS, PAIRS), "de")
    with pytest.raises(UserError, match="given: the test split is empty"):
        judge_task([])
    assert not {"pairwise", "judging"} & set(task_names())
