"""In which way a sample ended: the error taxonomy of a report, and what a human study decided.

Pure: records in, counts out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qwen_eval.measures import SHARE, measure_of
from qwen_eval.results import SampleRecord
from qwen_eval.stats import weighted_mean

# In the order of a bar, from good to nothing said.
OUTCOMES = (
    "right",
    "partly",
    "wrong",
    "wrong, cut",
    "failed tests",
    "raised an error",
    "timed out",
    "no answer",
    "no answer, cut",
    "not judged",
    "scored",
)
_JUDGED = ("win", "tie", "loss")


def outcome(record: SampleRecord, metric: str, *, share: bool = True) -> str:
    """One of OUTCOMES. `cut`: the reply ended at the token limit. `share`: whether 1 is right and 0
    wrong (are_shares); a sample of anything else is merely scored."""
    value = record.values.get(metric, 0.0)
    if not record.counted:
        return "not judged"
    if not share:
        return "scored"
    if value >= 1.0:
        return "right"
    cut = ", cut" if record.output_truncated else ""
    if record.status == "no_answer":
        return f"no answer{cut}"
    if value > 0.0:
        return "partly"
    if "verdict" in record.detail:
        return _program(str(record.detail["verdict"]))
    return f"wrong{cut}"


def _program(verdict: str) -> str:
    if verdict.startswith("timeout:"):
        return "timed out"
    return "failed tests" if verdict.startswith("AssertionError") else "raised an error"


def are_shares(records: Iterable[SampleRecord], metric: str) -> bool:
    """Whether a task's scores are shares of a right answer, and not, say, log-likelihoods."""
    return measure_of(metric) is SHARE and all(
        0.0 <= record.values.get(metric, 0.0) <= 1.0 for record in records
    )


def shares(records: Sequence[SampleRecord], metric: str) -> dict[str, int]:
    """How many samples ended in each way, in the order of OUTCOMES; {} where scores are no shares
    of right answers."""
    if not are_shares(records, metric):
        return {}
    found = dict.fromkeys(OUTCOMES, 0)
    for record in records:
        found[outcome(record, metric)] += 1
    return {name: count for name, count in found.items() if count}


def win_tie_loss(records: Sequence[SampleRecord]) -> dict[str, dict[str, float]]:
    """Mean shares by group, all of them under the name "": where the samples are judgements, which
    hold a win, a tie and a loss each, and may say of how many votes. {} for anything else."""
    judged = [r for r in records if r.counted and set(_JUDGED) <= r.values.keys()]
    if not judged:
        return {}
    groups: dict[str, list[SampleRecord]] = {"": judged}
    for record in judged:
        if record.group:
            groups.setdefault(record.group, []).append(record)
    return {name: {key: _mean(members, key) for key in _JUDGED} for name, members in groups.items()}


def _mean(records: Sequence[SampleRecord], key: str) -> float:
    return weighted_mean(
        [record.values[key] for record in records],
        [record.values.get("votes") or 1.0 for record in records],
    )
