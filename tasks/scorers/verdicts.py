"""Reading which of two answers a judge prefers: it ends with a mark, such as [[A>B]].

The marks are those of Arena-Hard (Li et al. 2024, arXiv 2406.11939). A score says whether there is
a verdict at all; which one it is stands in `answer`, and in `detail` as a choice from -2, A is much
better, to 2, B is.
"""

from __future__ import annotations

import re
import unicodedata

from qwen_eval.types import Score

CHOICES = {"A>>B": -2, "A>B": -1, "A=B": 0, "B>A": 1, "B>>A": 2}
_TURNED = {"A<<B": "B>>A", "A<B": "B>A", "B=A": "A=B", "B<A": "A>B", "B<<A": "A>>B"}
_MARK = re.compile(r"\[\[([AB<>=\s]+)\]\]")


def verdict(text: str, target: str, metric: str) -> Score:
    """1 where the last line that holds a mark holds one and no other.

    Full-width signs and spaces inside a mark are its own, and so is the same said from the other
    side, [[A<B]]. Marks of earlier lines are thoughts.
    """
    for line in reversed(unicodedata.normalize("NFKC", text).splitlines()):
        marks = {"".join(found.split()) for found in _MARK.findall(line)}
        known = {_TURNED.get(mark, mark) for mark in marks}
        if not known:
            continue
        if len(known) > 1 or not known <= CHOICES.keys():
            break
        (mark,) = known
        return Score({metric: 1.0}, answer=mark, detail={"choice": CHOICES[mark]})
    return Score({metric: 0.0}, status="no_answer")
