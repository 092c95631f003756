"""The tree of findings against the estimators it is made of, and what was counted by hand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

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
from qwen_eval.human_eval_ui.study.spec import plan_of
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
    seen, rest = unmasked(STUDY), found.unmasked
    assert rest.votes == len(seen) < len(STUDY) == found.votes
    assert list(rest.shares) == shares(seen, "base", alpha=0.1, seed=3)
    assert rest.strengths.fit == strengths(seen, covariates=(), reference="base", alpha=0.1)
    assert rest.nominal == krippendorff(seen, "nominal", baseline="base", alpha=0.1, seed=3)
    assert rest.ordinal == krippendorff(seen, "ordinal", baseline="base", alpha=0.1, seed=3)
    assert rest.verdicts == findings(seen, "base", alpha=0.1, seed=3).verdicts
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
    assert found.unmasked.shares[0].net.delta == pytest.approx(0)
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
    assert len(found.shares) == len(found.unmasked.shares) == len(found.verdicts) == 0
    assert found.strengths.fit == strengths(votes, covariates=())
    first = sentences(found)[0]
    assert first.startswith("c: rank 1")
    assert "against the mean of all" in first


def masked_wins(votes: list[Vote], system: str) -> list[Vote]:
    """Nearly all answers that the system won with are those that named their maker."""
    return [
        replace(
            v,
            masked=system in (v.left, v.right)
            and v.outcome_for(system) > 0
            and not v.item.endswith(("00", "30")),
        )
        for v in votes
    ]


def test_a_verdict_that_rests_on_answers_that_named_their_maker_is_told() -> None:
    votes = styled(np.random.default_rng(6), 60, 3, {"new": (0.25, 0.1, 0.65)})
    plain = [replace(vote, masked=False) for vote in votes]
    assert "Without the" not in shown(findings(plain, "base"))
    # Masks that fall anywhere change no verdict, and only the figures are given.
    anywhere = [replace(v, masked=i % 9 == 0) for i, v in enumerate(votes)]
    found = findings(anywhere, "base")
    assert found.verdicts[0].winner == found.unmasked.verdicts[0].winner == "new"
    (line,) = (line for line in sentences(found) if line.startswith("Without"))
    assert "net: new +" in line
    assert "preferred" not in line
    found = findings(masked_wins(plain, "new"), "base")
    assert (found.verdicts[0].winner, found.unmasked.verdicts[0].winner) == ("new", "base")
    text = shown(found)
    assert ", base preferred." in text
    assert "ranks by strength: base 1 to 2, new 1 to 2." in text
    every = findings([replace(vote, masked=True) for vote in votes], "base")
    assert every.unmasked.votes == 0
    assert "net: new nothing left." in shown(every)
    assert "ranks by strength: nothing left." in shown(every)
    assert "ordinal alpha has nothing left: no agreement beyond chance." in shown(every)


def test_all_pairs_are_told_without_answers_that_named_their_maker() -> None:
    votes = davidson(np.random.default_rng(7), 60, 2, {"a": 0.0, "b": 0.2, "c": 3.0}, spread=0.5)
    anywhere = [replace(v, masked=i % 9 == 0) for i, v in enumerate(votes)]
    found = findings(anywhere, None)
    rest = unmasked(anywhere)
    assert found.unmasked.strengths.fit == strengths(rest, covariates=())
    assert found.unmasked.ordinal == krippendorff(rest, "ordinal")
    assert "named their maker, every rank is the same." in shown(found)
    found = findings(masked_wins(votes, "c"), None)
    fit = found.unmasked.strengths.fit
    assert fit is not None
    assert all((one.best, one.worst) == (1, 3) for one in fit.strengths)
    assert sentences(found)[0].startswith("c: rank 1 of 3")
    assert "ranks by strength: a 1 to 3, b 1 to 3, c 1 to 3." in shown(found)


def test_agreement_that_rests_on_them_is_told() -> None:
    # They agree on answers that named their maker, and on the others contradict each other.
    votes = []
    for i in range(40):
        for k in range(2):
            known = i % 4 > 0
            choice = (1 if i % 2 else -1) if known else (1 if k else -1)
            votes.append(Vote(f"i{i}", "coding", f"a{k}", "x", "y", choice, masked=known))
    found = findings(votes, "x")
    assert found.nominal is not None
    assert found.unmasked.nominal is not None
    assert found.nominal.low > 0 > found.unmasked.nominal.high
    assert "nominal alpha is -" in shown(found)
    assert "no agreement beyond chance" in shown(found)


def test_a_system_without_a_vote_is_told() -> None:
    known = ("base", "strong", "w", "weak")
    found = findings(SMALL, "base", systems=known)
    assert (found.systems, found.unvoted) == (known, ("w",))
    assert "w: no votes." in sentences(found)
    assert found.to_json()["unvoted"] == ("w",)
    votes = davidson(np.random.default_rng(4), 30, 2, {"a": 0.0, "b": 1.0})
    ranked = findings(votes, None, systems=("a", "b", "c"))
    assert "c: no votes." in sentences(ranked)
    assert " of 2, " in sentences(ranked)[0]
    assert findings(SMALL, "base").unvoted == ()


# What a plan promises, and where the findings hold it.
PROMISED: dict[str, Callable[[Any], Any]] = {
    "net preference against the baseline": lambda found: found.verdicts,
    "overall and by category": lambda found: {one.category for one in found.shares} - {None},
    "a sign test": lambda found: found.shares and found.shares[0].p_items,
    "strengths": lambda found: found.strengths.fit,
    "with side, length and Markdown as covariates": lambda found: found.styled.fit.effects,
    "the favour of a side": lambda found: found.position,
    "call both answers bad": lambda found: found.both_bad,
    "of those on answers that named their maker": lambda found: found.masked,
    "Krippendorff's alpha, nominal and ordinal": lambda found: found.nominal and found.ordinal,
    "ordinal alpha without each annotator": lambda found: all(
        one.votes.without is not None for one in found.reliability
    ),
    "net preference and ordinal alpha without each": lambda found: all(
        one.without for one in found.reliability
    ),
    "shares, net preference, strengths bare": lambda found: found.unmasked.shares,
    "strengths bare of covariates and alphas without": lambda found: found.unmasked.strengths.fit,
    "every model that was asked to judge": lambda found: found.judges["model"],
}


@pytest.mark.parametrize("baseline", ["base", None])
def test_a_plan_promises_what_findings_hold(baseline: str | None) -> None:
    plan = plan_of(baseline)
    told = f"{plan.primary}; {plan.secondary}"
    votes = findings(STUDY, baseline, judges={"model": JUDGE}, alpha=plan.alpha, seed=plan.seed)
    for promise, held in PROMISED.items():
        assert (promise in told) == bool(held(votes)), promise


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
    for plain, told in ((said, found), (said["unmasked"], found.unmasked)):
        assert [one["net"]["p"] for one in plain["shares"]] == [one.net.p for one in told.shares]
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
