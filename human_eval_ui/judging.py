"""A model as judge: the rows that it is asked, and its replies as votes.

Every pair is asked twice, each answer standing first once, so that a judge that always prefers the
first of two ends in ties. It sees no name of a system. Texts are not trusted: they stand between
tags with a number that none of them holds, and what looks like a control token (`<|im_end|>`) is
broken up, because servers may take it for one; other models' tokens are not known here. Knows
nothing of how a model is asked (tasks/judging/pairwise), and nothing of files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.results import SampleRecord

from .analysis.votes import MOST, Vote
from .study.pairs import Pair
from .study.spec import StudyItem


@dataclass(frozen=True)
class JudgeRow:
    """A pair in one order: `asked`, the task's row, is all that a judge can see; `tie` is the vote
    of somebody without a name who finds both alike."""

    asked: Mapping[str, Any]
    tie: Vote

    @property
    def name(self) -> str:
        """What the task's samples have as their target."""
        return f"{self.asked['pair']}/{self.asked['side']}"


def judge_rows(items: Mapping[str, StudyItem], pairs: Iterable[Pair]) -> list[JudgeRow]:
    """Two rows for each pair: on side 1 its first system is answer A, on side 2 its second."""
    rows = []
    for pair in pairs:
        item = items[pair.item]
        for side, (a, b) in enumerate(((pair.first, pair.second), (pair.second, pair.first)), 1):
            left, right = item.answers[a], item.answers[b]
            texts = [_broken(text) for text in (item.text, left.text, right.text)]
            asked = {"pair": pair.id, "item": pair.item, "category": item.category, "side": side}
            asked |= dict(zip(("instruction", "answer_a", "answer_b"), texts, strict=True))
            tie = Vote(
                item=pair.item,
                category=item.category,
                annotator="",
                left=a,
                right=b,
                choice=0,
                masked=bool(left.masked or right.masked),
                left_length=left.length,
                right_length=right.length,
                left_markdown=left.markdown,
                right_markdown=right.markdown,
            )
            rows.append(JudgeRow(asked | {"fence": _fence(texts)}, tie))
    return rows


def votes_of(
    samples: Iterable[SampleRecord], rows: Sequence[JudgeRow], judge_name: str
) -> list[Vote]:
    """A judge's votes in the order of the rows. A pair counts where it has a verdict in both
    orders, since one alone would keep the judge's leaning to a side.

    Raises UserError for a sample that judges none of the rows, or whose verdict cannot be read.
    """
    known = {row.name for row in rows}
    choices = {}
    for sample in samples:
        if sample.target not in known:
            raise UserError(f"sample {sample.id}: judges {sample.target}, no pair of this study")
        if sample.status != "scored":
            continue
        choice = sample.detail.get("choice")
        if type(choice) is not int or abs(choice) > MOST:
            raise UserError(f"sample {sample.id}: detail.choice: {choice!r} is no verdict")
        choices[sample.target] = choice
    both = Counter(row.asked["pair"] for row in rows if row.name in choices)
    return [
        replace(row.tie, annotator=judge_name, choice=choices[row.name])
        for row in rows
        if both[row.asked["pair"]] == 2
    ]


def _broken(text: str) -> str:
    return text.replace("<|", "< |")


def _fence(texts: Sequence[str]) -> str:
    """A number that none of the texts holds, the same for the same texts."""
    numbers = (text_hash("\0".join((*texts, str(number))), 8) for number in count())
    return next(number for number in numbers if not any(number in text for text in texts))
