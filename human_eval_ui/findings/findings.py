"""All that a study's votes say, in one tree of plain data: the estimates of the analysis, put
together and not a figure computed anew, but for controls and for speed.

With a baseline every system is held against it (shares.py), and strengths are relative to it.
Without one, where all pairs were compared, there are no shares: a system against the rest is its
strength relative to the mean of all. Knows nothing of words, pages or databases.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from qwen_eval.errors import UserError
from qwen_eval.paired import holm
from qwen_eval.stats import wilson_interval

from ..analysis.agreement import Annotator, PositionBias, annotators, krippendorff, position_bias
from ..analysis.judges import JudgeAgreement, judge_agreement
from ..analysis.resampling import Estimate
from ..analysis.shares import Shares, net_without_each, shares
from ..analysis.strength import COVARIATES, Fit, strengths
from ..analysis.votes import Vote, unmasked

SCHEMA = 2
FAST = 25.0  # characters of both answers a second: nobody reads so fast


@dataclass(frozen=True)
class ControlOutcome:
    """Whether an annotator passed a control. `gold`: an item whose better answer is known;
    `repeat`: one seen before, with its sides exchanged, which is passed by the same outcome."""

    annotator: str
    kind: Literal["gold", "repeat"]
    passed: bool


@dataclass(frozen=True)
class Passed:
    """How many of how many controls were passed, and the share with Wilson's interval."""

    passed: int
    of: int
    share: Estimate


@dataclass(frozen=True)
class Reliability:
    """An annotator. `votes`: beside the others', None for one who saw controls alone. `timed`:
    votes whose time and lengths are known, `fast` how many of these took less than both answers
    take to read: a mark, and no vote is left out for it. `without`: by system the net preference
    had this annotator not voted. `gold`, `repeats`: None where there were none."""

    name: str
    votes: Annotator | None
    timed: int
    fast: int
    without: dict[str, float]
    gold: Passed | None
    repeats: Passed | None


@dataclass(frozen=True)
class Strengths:
    """A fit, or the reason why there is none."""

    fit: Fit | None
    why_not: str = ""


@dataclass(frozen=True)
class Verdict:
    """What may be concluded of a system against the baseline. `p`: of the net preference over all
    items, Holm's over the systems. `winner`: None unless both p and interval show one."""

    system: str
    baseline: str
    winner: str | None
    net: Estimate
    p: float
    items: int
    votes: int
    detectable: float
    few: bool


@dataclass(frozen=True)
class Told:
    """What votes say of the systems and of each other. `verdicts`, `shares`: overall and by
    category for each system, none without a baseline. `strengths`: bare of covariates. `nominal`,
    `ordinal`: Krippendorff's alphas, None where annotators have no unit in common."""

    votes: int
    verdicts: tuple[Verdict, ...]
    shares: tuple[Shares, ...]
    strengths: Strengths
    nominal: Estimate | None
    ordinal: Estimate | None


@dataclass(frozen=True)
class Findings(Told):
    """`systems`: of the study, `unvoted` those without a vote. `unmasked`: what the votes on
    answers that named no maker say, as far as there are such. `styled`: strengths with side, length
    and markdown as covariates. `judges`: None for a judge without a unit in common with annotators.
    `both_bad`, `masked`: shares of all votes. Fractions throughout; strengths in log-odds."""

    baseline: str | None
    alpha: float
    seed: int
    items: int
    annotators: int
    systems: tuple[str, ...]
    unvoted: tuple[str, ...]
    unmasked: Told
    styled: Strengths
    position: PositionBias | None
    reliability: tuple[Reliability, ...]
    both_bad: float
    masked: float
    judges: dict[str, JudgeAgreement | None] = field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> dict[str, Any]:
        """Plain data, every number as it is; a net preference with its two-sided p."""
        found = asdict(self)
        for told, plain in ((self, found), (self.unmasked, found["unmasked"])):
            for one, as_plain in zip(told.shares, plain["shares"], strict=True):
                as_plain["net"]["p"] = one.net.p
        return found


def findings(
    votes: Sequence[Vote],
    baseline: str | None,
    *,
    systems: Sequence[str] = (),
    judges: Mapping[str, Sequence[Vote]] | None = None,
    controls: Sequence[ControlOutcome] = (),
    alpha: float = 0.05,
    seed: int = 0,
) -> Findings:
    """`votes`: without those on controls. `systems`: of the study, where some may have no vote.
    `judges`: the votes of each judge, by its name. Raises UserError for no votes and for a baseline
    that was not compared."""
    if not votes:
        raise UserError("no votes yet: findings need at least one")
    voted = {system for vote in votes for system in (vote.left, vote.right)}
    if baseline is not None and baseline not in voted:
        there = ", ".join(sorted(voted))
        raise UserError(f"baseline {baseline}: no vote on it; there are {there}")
    known = tuple(sorted(voted.union(systems)))
    told, seen = _told(votes, baseline, alpha, seed), unmasked(votes)
    return Findings(
        **vars(told),
        baseline=baseline,
        alpha=alpha,
        seed=seed,
        items=len({vote.item for vote in votes}),
        annotators=len({vote.annotator for vote in votes}),
        systems=known,
        unvoted=tuple(system for system in known if system not in voted),
        unmasked=told if len(seen) == len(votes) else _told(seen, baseline, alpha, seed),
        styled=_strengths(votes, baseline, COVARIATES, alpha),
        position=position_bias(votes, alpha=alpha, seed=seed),
        reliability=_reliability(votes, known, baseline, controls, alpha),
        both_bad=sum(vote.both_bad for vote in votes) / len(votes),
        masked=sum(vote.masked for vote in votes) / len(votes),
        judges={
            name: judge_agreement(said, votes, alpha=alpha, seed=seed)
            for name, said in sorted((judges or {}).items())
        },
    )


def _told(votes: Sequence[Vote], baseline: str | None, alpha: float, seed: int) -> Told:
    found = () if baseline is None else tuple(shares(votes, baseline, alpha=alpha, seed=seed))
    return Told(
        votes=len(votes),
        verdicts=_verdicts(found, alpha),
        shares=found,
        strengths=_strengths(votes, baseline, (), alpha),
        nominal=krippendorff(votes, "nominal", baseline=baseline, alpha=alpha, seed=seed),
        ordinal=krippendorff(votes, "ordinal", baseline=baseline, alpha=alpha, seed=seed),
    )


def _verdicts(found: Sequence[Shares], alpha: float) -> tuple[Verdict, ...]:
    overall = [one for one in found if one.category is None]
    verdicts = []
    for one, p in zip(overall, holm([one.net.p for one in overall]), strict=True):
        net = Estimate(one.net.delta, one.net.low, one.net.high)
        winner = None
        if p <= alpha and net.low * net.high > 0:
            winner = one.system if net.value > 0 else one.baseline
        verdicts.append(
            Verdict(
                system=one.system,
                baseline=one.baseline,
                winner=winner,
                net=net,
                p=p,
                items=one.items,
                votes=one.votes,
                detectable=one.detectable,
                few=one.few,
            )
        )
    return tuple(verdicts)


def _strengths(
    votes: Sequence[Vote], baseline: str | None, covariates: Collection[str], alpha: float
) -> Strengths:
    try:
        return Strengths(strengths(votes, covariates=covariates, reference=baseline, alpha=alpha))
    except UserError as error:
        return Strengths(None, str(error))


def _reliability(
    votes: Sequence[Vote],
    systems: Sequence[str],
    baseline: str | None,
    controls: Sequence[ControlOutcome],
    alpha: float,
) -> tuple[Reliability, ...]:
    known = {one.name: one for one in annotators(votes, baseline=baseline)}
    without = {
        system: net_without_each(votes, system, baseline)
        for system in systems
        if baseline and system != baseline
    }
    found = []
    for name in sorted(known.keys() | {one.annotator for one in controls}):
        own = [vote for vote in votes if vote.annotator == name]
        timed = [v for v in own if v.seconds > 0 and v.left_length + v.right_length > 0]
        gold, repeats = (
            _passed([c for c in controls if (c.annotator, c.kind) == (name, kind)], alpha)
            for kind in ("gold", "repeat")
        )
        found.append(
            Reliability(
                name=name,
                votes=known.get(name),
                timed=len(timed),
                fast=sum(v.left_length + v.right_length > FAST * v.seconds for v in timed),
                without={s: nets[name] for s, nets in without.items() if name in nets},
                gold=gold,
                repeats=repeats,
            )
        )
    return tuple(found)


def _passed(controls: Sequence[ControlOutcome], alpha: float) -> Passed | None:
    if not controls:
        return None
    passed, of = sum(one.passed for one in controls), len(controls)
    return Passed(passed, of, Estimate(passed / of, *wilson_interval(passed, of, 1 - alpha)))
