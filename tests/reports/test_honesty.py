"""What a page may not claim: of scores that mean nothing, of too few items, in another's unit."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from qwen_eval.paired import holm
from qwen_eval.reports.notes import near_figures
from qwen_eval.reports.view import build
from qwen_eval.results import Run
from tests.harness.toys import record, task_info
from tests.reports.runs import a_run, answers
from tests.reports.test_report import Reader, written


def section(html: str, name: str) -> str:
    """The text of one section."""
    return " ".join(
        Reader(html[html.index(f'id="{name}"') :].partition("</section>")[0]).text.split()
    )


def of_tasks(name: str, **values: str) -> Run:
    """A run with a task for each name, a letter for each sample (runs.answers)."""
    records = [one for task, letters in values.items() for one in answers(letters, task=task)]
    infos = {
        task: task_info(recipe=task, available=len(letters), selected=len(letters))
        for task, letters in values.items()
    }
    return a_run(records, name, tasks=infos)


def log_likelihoods(name: str, *values: float, **fields: Any) -> Run:
    records = [record(i, values={"log_likelihood": v}, **fields) for i, v in enumerate(values)]
    return a_run(records, name, task={"metric": "log_likelihood"})


def test_an_invalid_task_takes_no_part_in_the_verdict() -> None:
    a = of_tasks("a", sound="1" * 60, broken="1" * 60)
    b = of_tasks("b", sound="1" * 60, broken="-" * 40 + "1" * 20)
    report = build([a, b])
    (pair,) = report.pairs
    assert [one.task for one in pair.sound] == ["sound"]
    assert pair.invalid == ("broken",)
    html = written([a, b])
    said = section(html, "verdict")
    assert "No difference shown on any of 1, 1 invalid" in said
    assert "broken: invalid" in said
    assert "66.7" not in said + section(html, "scores") + section(html, "differences")
    alone = build([of_tasks("a", broken="11"), of_tasks("b", broken="--")])
    assert "Nothing to compare, 1 invalid" in section(
        written([of_tasks("a", broken="11"), of_tasks("b", broken="--")]), "verdict"
    )
    assert not alone.pairs[0].sound


def test_holm_is_over_the_sound_tasks() -> None:
    a = of_tasks("a", x="1" * 40, y="1" * 40, broken="1" * 40)
    b = of_tasks("b", x="0" * 6 + "1" * 34, y="0" * 3 + "1" * 37, broken="-" * 20 + "1" * 20)
    (pair,) = build([a, b]).pairs
    assert [one.p_adjusted for one in pair.sound] == holm([one.paired.p for one in pair.sound])
    assert pair.tasks[2].p_adjusted == 1.0


def test_subjects_and_lengths_of_an_invalid_score_are_not_shown() -> None:
    for groups in (("algebra", "law", "virology"), ("1024", "2048", "4096")):
        broken = a_run(answers("10-" * 5, group=lambda i, g=groups: g[i % 3]))
        html = written([broken])
        assert 'id="groups"' not in html
        assert 'id="lengths"' not in html


def test_tasks_that_one_run_lacks_are_named() -> None:
    a, b = of_tasks("a", both="11", gone="11"), of_tasks("b", both="11", new="11")
    said = section(written([a, b]), "verdict")
    assert "gone: in one run only" in said
    assert "new: in one run only" in said
    assert "Nothing to compare" in section(written([of_tasks("a", x="1"), of_tasks("b", y="1")]),
                                           "verdict")  # fmt: skip


def test_a_refusal_says_why_and_names_no_flag_of_another_command() -> None:
    a, b = a_run(answers("11"), "a"), a_run(answers("11"), "b", task={"data_digest": "other"})
    html = written([a, b])
    assert "toy@strict: not comparable data_digest is d there, other here" in section(
        html, "verdict"
    )
    assert "--allow" not in Reader(html).text
    assert 'id="differences"' not in html
    failed = a_run(answers("!!"), "b")
    assert "no item has a score in both runs" in section(written([a, failed]), "verdict")


def test_subjects_stand_in_the_column_of_their_run() -> None:
    """Where the first run lacks the task there is no difference to it."""
    first = of_tasks("a", other="11")
    rest = [a_run(answers("1100", group=lambda i: f"g{i % 2}"), name) for name in "bc"]
    html = written([first, *rest])
    table = html[html.index('class="maps"') :].partition("</table>")[0]
    head, *rows = table.split("<tr>")[1:]
    assert len(re.findall("<th", head)) == 1 + 3 + 2
    for row in rows:
        cells = re.findall(r'<td class="[hd]\d+">([^<]*)</td>', row)
        assert cells == ["–", "50", "50", "–", "–"]


def test_unfinished_is_said_beside_the_verdict() -> None:
    said = section(written([a_run(answers("11"), "a"), a_run(answers("11"), "b")]), "verdict")
    assert "b float32 against a float32 unfinished" in said
    assert "2 samples so far, which are no random draw" in said


def test_few_items_are_not_said_to_show_a_drop() -> None:
    """One-sided at 0.05 the exact test needs five items lost and none gained: 2 ** -5."""
    for n, shows in ((4, "–"), (5, "100.0"), (50, "10.0")):
        one, two = (a_run(answers("1" * n), name) for name in "ab")
        html = written([one, two])
        scores = html[html.index('id="scores"') :].partition("</section>")[0]
        assert re.findall(r'<td class="num">([^<]*)</td></tr>', scores) == [shows] * 2
        few = "not told apart; so few show no drop" in section(html, "verdict")
        assert few == (n < 5)
    assert "a drop would show from 10.0 on" in section(html, "verdict")


def test_a_perplexity_differs_by_a_ratio() -> None:
    a = log_likelihoods("a", *(-2.0 - i / 10 for i in range(8)))
    b = log_likelihoods("b", *(-2.5 - i / 10 for i in range(8)))
    html = written([a, b])
    assert f"perplexity ×{math.exp(0.5):.2f} (×1.65 … ×1.65) worse" in section(html, "verdict")
    assert "×1.65" in section(html, "differences")
    assert "−50.0" not in Reader(html).text
    assert "×0.61" in section(written([b, a]), "verdict")
    equal = section(
        written([a, log_likelihoods("c", *(-2.0 - i / 10 for i in range(8)))]), "verdict"
    )
    assert "a rise would show from ×1.00 on" in equal


def test_a_score_beyond_one_keeps_its_interval() -> None:
    run = a_run([record(i, float(i)) for i in range(5)])
    assert "3.7 – 396.3" in section(written([run]), "scores")


def test_published_figures_are_of_the_same_measure() -> None:
    lengths = log_likelihoods("a", *(-2.0 - i / 10 for i in range(4)), task="longppl@strict")
    info = task_info(recipe="longppl@strict", metric="log_likelihood")
    report = build([Run(Path("a"), a_run([], tasks={"longppl@strict": info}).info, lengths.samples,
                        finished=False)])  # fmt: skip
    assert report.anchors["longppl@strict"], "they are listed, with their columns"
    assert near_figures(report, "longppl@strict") == [], "but none is of all lengths together"
    for metric, found in (("accuracy", True), ("f1", False), ("log_likelihood", False)):
        mmlu = task_info(recipe="mmlu@strict", metric=metric, shots=5)
        report = build([a_run([], tasks={"mmlu@strict": mmlu})])
        assert bool(near_figures(report, "mmlu@strict")) == found


def test_a_verdict_says_which_runs_it_is_about() -> None:
    from tests.reports.test_ci import EVERY

    said = section(written([a_run(answers("1"))], gate=EVERY), "verdict")
    assert "Gate: FAIL m (runs/a) against m (runs/a)" in said


@pytest.mark.parametrize("count", [12, 30])
def test_many_runs(count: int) -> None:
    groups = {"group": lambda i: f"g{i % 2}"}
    html = written([a_run(answers("1011", **groups), f"m{i}") for i in range(count)])
    assert html.count('<div class="verdict') >= count - 1
    assert ("AD−A" in html) == (count == 30)


def test_judgements_beside_a_run_without_them() -> None:
    votes = [
        record(i, values={"win": 1.0, "tie": 0.0, "loss": 0.0}, task="human") for i in range(2)
    ]
    human = a_run(votes, "a", tasks={"human": task_info(recipe="human", metric="win")})
    html = written([human, of_tasks("b", other="1")])
    assert "a float32all win 100.0%100.00.00.0" in section(html, "judged")
