"""The tree of findings against the estimators it is made of, and what was counted by hand."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from qwen_eval.errors import UserError
from qwen_eval.human_eval_ui.analysis.agreement import annotators, krippendorff, position_bias
from qwen_eval.human_eval_ui.analysis.judges import judge_agreement
from qwen_eval.human_eval_ui.analysis.shares import net_without_each, shares
from qwen_eval.human_eval_ui.analysis.strength import COVARIATES, strengths
from qwen_eval.human_eval_ui.analysis.votes import Vote, unmasked
from qwen_eval.human_eval_ui.findings.findings import ControlOutcome, Findings, findings
from qwen_eval.human_eval_ui.findings.text import sentences, tables
from qwen_eval.stats import wilson_interval
from tests.human_eval_ui.studies import davidson, mirrored, styled

SYSTEMS = {"weak": (0.5, 0.2, 0.3), "strong": (0.2, 0.2, 0.6)}
STUDY = styled(np.random.default_rng(1), 40, 3, SYSTEMS)
JUDGE = [replace(vote, annotator="judge") for vote in STUDY if vote.annotator == "a0"]


@pytest.fixture(scope="module")
def found() -> Findings:
    return findings(STUDY, "base", judges={"model": JUDGE, "idle": []}, alpha=0.1, seed=3)


SMALL = [replace(vote, category="coding") for vote in STUDY if vote.item < "i012"]


def shown(found: Findings, width: int = 200) -> str:
    console = Console(file=io.StringIO(), width=width)
    for line in sentences(found):
        console.print(line, markup=False, soft_wrap=True)
    for table in tables(found):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_every_part_is_what_its_estimator_says(found: Findings) -> None:
    assert list(found.shares) == shares(STUDY, "base", alpha=0.1, seed=3)
    assert list(found.unmasked) == shares(unmasked(STUDY), "base", alpha=0.1, seed=3)
    assert found.strengths.fit == strengths(STUDY, covariates=(), reference="base", alpha=0.1)
    assert found.styled.fit == strengths(STUDY, covariates=COVARIATES, reference="base", alpha=0.1)
    assert found.position == position_bias(STUDY, alpha=0.1, seed=3)
    assert found.nominal == krippendorff(STUDY, "nominal", baseline="base", alpha=0.1, seed=3)
    assert found.ordinal == krippendorff(STUDY, "ordinal", baseline="base", alpha=0.1, seed=3)
    assert found.judges == {
        "model": judge_agreement(JUDGE, STUDY, alpha=0.1, seed=3),
        "idle": None,
    }
    assert [one.votes for one in found.reliability] == annotators(STUDY, baseline="base")
    for one in found.reliability:
        assert one.without == {
            system: net_without_each(STUDY, system, "base")[one.name] for system in SYSTEMS
        }
    assert (found.alpha, found.seed) == (0.1, 3)


def test_the_counts_are_by_hand() -> None:
    """Three annotators, two items: new wins 3, ties 1, loses 2."""
    said = {("i1", "a"): 2, ("i1", "b"): 1, ("i1", "c"): 0}
    said |= {("i2", "a"): 1, ("i2", "b"): -1, ("i2", "c"): -2}
    votes = [Vote(item, "coding", who, "old", "new", c) for (item, who), c in said.items()]
    votes[0] = replace(mirrored(votes[0]), masked=True, both_bad=True)
    found = findings(votes, "old")
    (overall, coding) = found.shares
    assert (found.votes, found.items, found.annotators) == (6, 2, 3)
    assert found.systems == ("new", "old")
    assert (overall.win.value, overall.tie.value, overall.lose.value) == (3 / 6, 1 / 6, 2 / 6)
    assert overall.net.delta == coding.net.delta == pytest.approx(1 / 6)
    assert (found.masked, found.both_bad) == (1 / 6, 1 / 6)
    assert found.unmasked[0].net.delta == pytest.approx(0)
    (verdict,) = found.verdicts
    assert verdict.winner is None
    assert verdict.few
    assert [one.without for one in found.reliability] == [
        {"new": pytest.approx(-1 / 4)},
        {"new": pytest.approx(1 / 4)},
        {"new": pytest.approx(2 / 4)},
    ]


def test_verdicts_are_held_to_holm_over_the_systems(found: Findings) -> None:
    from statsmodels.stats.multitest import multipletests

    overall = [one for one in found.shares if one.category is None]
    theirs = multipletests([one.net.p for one in overall], method="holm")[1]
    assert [verdict.p for verdict in found.verdicts] == pytest.approx(theirs)
    assert {v.system: v.winner for v in found.verdicts}["strong"] == "strong"


def test_the_baseline_may_win() -> None:
    votes = styled(np.random.default_rng(2), 40, 3, {"worse": (0.8, 0.1, 0.1)})
    found = findings(votes, "base")
    assert found.verdicts[0].winner == "base"
    assert sentences(found)[0].startswith("base is preferred to worse: net −")


def test_controls_are_counted_by_annotator() -> None:
    outcomes = [("a0", "gold", True)] * 3 + [("a0", "gold", False)]
    outcomes += [("a0", "repeat", False), ("stranger", "gold", True)]
    controls = [ControlOutcome(*each) for each in outcomes]  # type: ignore[arg-type]
    by_name = {one.name: one for one in findings(SMALL, "base", controls=controls).reliability}
    gold, repeats = by_name["a0"].gold, by_name["a0"].repeats
    assert gold is not None
    assert repeats is not None
    assert (gold.passed, gold.of, gold.share.value) == (3, 4, 0.75)
    assert (gold.share.low, gold.share.high) == wilson_interval(3, 4)
    assert (repeats.passed, repeats.of) == (0, 1)
    assert by_name["a1"].gold is by_name["a1"].repeats is None
    assert by_name["stranger"].votes is None


def test_haste_is_marked_and_nothing_is_left_out() -> None:
    votes = [
        Vote("i1", "c", "a", "x", "y", 1, left_length=100, right_length=150, seconds=9.9),
        Vote("i2", "c", "a", "x", "y", 1, left_length=100, right_length=150, seconds=10.1),
        Vote("i3", "c", "a", "x", "y", 1, left_length=100, right_length=150),  # not timed
        Vote("i4", "c", "a", "x", "y", 1, seconds=0.1),  # of no known length
    ]
    found = findings(votes, "x")
    (one,) = found.reliability
    assert (one.fast, one.timed) == (1, 2)
    assert found.shares[0].votes == 4
    assert "characters a second" in shown(found)


def test_without_a_baseline_strengths_alone_tell() -> None:
    votes = davidson(np.random.default_rng(4), 30, 2, {"a": 0.0, "b": 1.0, "c": 2.0})
    found = findings(votes, None)
    assert len(found.shares) == len(found.unmasked) == len(found.verdicts) == 0
    assert found.strengths.fit == strengths(votes, covariates=())
    first = sentences(found)[0]
    assert first.startswith("c: rank 1")
    assert "against the mean of all" in first


def test_what_cannot_be_fitted_says_why() -> None:
    one = [Vote("i1", "c", "a", "x", "y", 1)]
    found = findings(one, "x")
    assert found.strengths.fit is None
    assert "two items" in found.strengths.why_not
    assert "two items" in shown(found)


@pytest.mark.parametrize(
    ("votes", "baseline", "named"), [([], None, "no votes"), (STUDY, "absent", "baseline absent")]
)
def test_mistakes_are_named(votes: list[Vote], baseline: str | None, named: str) -> None:
    with pytest.raises(UserError, match=named):
        findings(votes, baseline)


def test_json_is_plain_and_has_every_p(found: Findings) -> None:
    said = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert [one["net"]["p"] for one in said["shares"]] == [one.net.p for one in found.shares]
    assert set(said["judges"]) == {"model", "idle"}
    assert said["reliability"][0]["votes"]["name"] == "a0"


def test_the_order_of_votes_changes_nothing() -> None:
    order = np.random.default_rng(5).permutation(len(SMALL))
    shuffled = [SMALL[i] for i in order]
    assert findings(shuffled, "base", judges={"model": JUDGE}) == findings(
        SMALL, "base", judges={"model": JUDGE}
    )


def test_sentences_come_first_and_hold_the_figures(found: Findings) -> None:
    text = shown(found)
    strong = next(v for v in found.verdicts if v.system == "strong")
    assert f"strong is preferred to base: net +{100 * strong.net.value:.1f} points" in text
    assert f"{len(STUDY)} votes on 40 items by 3 annotators; intervals at 90%" in text
    assert text.index("is preferred") < text.index("strong against base, percent of votes")
    assert "judge idle: no vote on the same" in text
    assert "named their maker" in text


def test_no_figure_is_cut_on_a_narrow_terminal(found: Findings) -> None:
    wide, narrow = (shown(found, width) for width in (200, 80))
    assert "…" not in narrow
    assert max(map(len, narrow.splitlines()[len(sentences(found)) :])) <= 80
    for one in found.shares:
        row = [f"{100 * part.value:.1f}" for part in (one.win, one.tie, one.lose)]
        for text in (wide, narrow):
            assert " ".join(row) in " ".join(text.split())


def test_names_act_on_no_terminal() -> None:
    hostile = "[red]x[/red]\x1b[31m\u202e"
    votes = [
        replace(v, left=v.left.replace("weak", hostile), right=v.right.replace("weak", hostile))
        for v in SMALL
    ]
    text = shown(findings(votes, "base"))
    assert "[red]x[/red]�[31m�" in text
    assert "\x1b" not in text
    assert "\u202e" not in text
