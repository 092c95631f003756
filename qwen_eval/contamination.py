"""How much of each test item occurs in a corpus, word for word, and what a score is without those.

The n-grams of all items are held, the corpus goes by text after text and may be of any size. An
item's share is that of its n-grams which occur anywhere; its longest run is of words in a row whose
n-grams all occur in one and the same text, which says more than a sum of scattered ones (Singh et
al. 2024, arXiv 2411.03923). What a word is: `qwen_eval.ngrams`. An item too short for one n-gram is
never called clean. Knows nothing of files.

Thresholds: Brown et al. 2020 (GPT-3, arXiv 2005.14165, appendix C) call an item dirty for a single
13-gram; Chowdhery et al. 2022 (PaLM, arXiv 2204.02311, section 8) for 70% of its 8-grams; Touvron
et al. 2023 (Llama 2, arXiv 2307.09288, appendix A.6) for 80% of its tokens. Ours: the share of
PaLM's, of n-grams of any length, and a single one ends cleanness as in GPT-3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from qwen_eval.metrics import Estimate, estimate, estimate_of
from qwen_eval.ngrams import ngrams, words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from qwen_eval.results import SampleRecord

LENGTH = 13
THRESHOLD = 0.7
Verdict = Literal["clean", "partly", "contaminated", "too short"]
VERDICTS: tuple[Verdict, ...] = ("clean", "partly", "contaminated", "too short")
_BITS = 24  # of a hash, to tell at once that most n-grams of a corpus are no item's


@dataclass(frozen=True)
class Overlap:
    """One item in a corpus.

    `words`: of the item as it is asked, with its answer. `question`, `with_answer`: the share of
    the n-grams of the question alone, and of the question with its answer; None where nothing was
    found and a wording is too short for an n-gram. `longest`: words of the longest run, 0 for none;
    `where`: the first text that has it.
    """

    words: int
    question: float | None
    with_answer: float | None
    longest: int
    where: str

    @property
    def verdict(self) -> Verdict:
        """By either share; `too short` where even the answer's words make no n-gram."""
        if self.with_answer is None:
            return "too short"
        if max(self.question or 0.0, self.with_answer) >= THRESHOLD:
            return "contaminated"
        return "partly" if self.with_answer else "clean"


class Search:
    """Looks for items in texts that go by. ValueError for n < 1.

    An item comes in one wording or several, each a question and its answer: of its shares and runs
    the largest count. A slot is a place in a wording where an n-gram begins; slots are numbered
    through all wordings.
    """

    def __init__(self, items: Sequence[Sequence[tuple[str, str]]], n: int = LENGTH) -> None:
        import numpy as np

        if n < 1:
            raise ValueError(f"n-grams have at least one word, not {n}")
        self.n = n
        self._wordings = list(map(len, items))
        flat = [wording for wordings in items for wording in wordings]
        asked = [words(question) for question, _ in flat]
        whole = [
            np.concatenate([question, words(answer)])
            for question, (_, answer) in zip(asked, flat, strict=True)
        ]
        grams = [ngrams(each, n) for each in whole]
        self._words = [len(each) for each in whole]
        self._asked = [max(len(each) - n + 1, 0) for each in asked]
        self._first = np.cumsum([0, *map(len, grams)])
        self._owner = np.repeat(np.arange(len(flat)), list(map(len, grams)))
        joined = np.concatenate([np.empty(0, np.uint64), *grams])
        self._known, self._gram, counts = np.unique(joined, return_inverse=True, return_counts=True)
        # The slots of known n-gram k are _slots[_ends[k] - _counts[k] : _ends[k]].
        self._slots = np.argsort(self._gram, kind="stable")
        self._counts, self._ends = counts, np.cumsum(counts)
        self._maybe = np.zeros(1 << _BITS, np.bool_)
        self._maybe[self._known >> np.uint64(64 - _BITS)] = True
        self._seen = np.zeros(len(self._known), np.bool_)
        self._longest = np.zeros(len(flat), np.int64)
        self._where = [""] * len(flat)

    def read(self, text: str, where: str) -> None:
        """Look for all items in one more text, which is called `where`."""
        import numpy as np

        found = self._found(ngrams(words(text), self.n))
        if not len(found):
            return
        self._seen[found] = True
        counts = self._counts[found]
        back = np.repeat(np.cumsum(counts), counts) - np.arange(counts.sum())
        slots = np.sort(self._slots[np.repeat(self._ends[found], counts) - back])
        owners = self._owner[slots]
        new = np.flatnonzero((np.diff(slots) != 1) | (np.diff(owners) != 0)) + 1
        starts = np.concatenate([[0], new])
        runs = np.diff(starts, append=len(slots)) + self.n - 1
        owners = owners[starts]
        for at in np.flatnonzero(runs > self._longest[owners]):
            if runs[at] > self._longest[owners[at]]:
                self._longest[owners[at]] = runs[at]
                self._where[owners[at]] = where

    def overlaps(self) -> list[Overlap]:
        """What was found of each item so far."""
        import numpy as np

        seen = np.concatenate([[0], np.cumsum(self._seen[self._gram])])
        ends = np.cumsum(self._wordings)
        return [
            _largest([self._overlap(i, seen) for i in range(end - count, end)])
            for count, end in zip(self._wordings, ends, strict=True)
        ]

    def _overlap(self, i: int, seen: NDArray[np.int64]) -> Overlap:
        """Of one wording; `seen` counts the slots before each whose n-gram has been seen."""
        start, asked, end = self._first[i], self._first[i] + self._asked[i], self._first[i + 1]
        return Overlap(
            self._words[i],
            float(seen[asked] - seen[start]) / float(asked - start) if asked > start else None,
            float(seen[end] - seen[start]) / float(end - start) if end > start else None,
            int(self._longest[i]),
            self._where[i],
        )

    def _found(self, grams: NDArray[np.uint64]) -> NDArray[np.intp]:
        """Which of the known n-grams are among those of a text, each once."""
        import numpy as np

        near = grams[self._maybe[grams >> np.uint64(64 - _BITS)]]
        if not len(near):
            return np.empty(0, np.intp)
        places = np.searchsorted(self._known, near)
        places[places == len(self._known)] = 0
        return np.unique(places[self._known[places] == near])


def _largest(wordings: Sequence[Overlap]) -> Overlap:
    longest = max(wordings, key=lambda one: one.longest)
    return Overlap(
        wordings[0].words,
        _largest_share([one.question for one in wordings]),
        _largest_share([one.with_answer for one in wordings]),
        longest.longest,
        longest.where,
    )


def _largest_share(shares: Sequence[float | None]) -> float | None:
    """None where no wording was found and one of them is too short to be."""
    most = max((share for share in shares if share is not None), default=None)
    return most or (None if None in shares else most)


@dataclass(frozen=True)
class Share:
    """Items by one of their two shares: `short` have none, `hit` have any n-gram in the corpus,
    `over` at least THRESHOLD of them; `estimate` is the part that those are of the items that are
    not short, with Wilson's interval."""

    items: int
    short: int
    hit: int
    over: int
    estimate: Estimate | None


@dataclass(frozen=True)
class Contamination:
    """A task's test set in a corpus."""

    question: Share
    with_answer: Share
    verdicts: Mapping[Verdict, int]

    def to_json(self) -> dict[str, Any]:
        """As a JSON object holds it."""
        return asdict(self)


def summarise(overlaps: Sequence[Overlap]) -> Contamination:
    """Count the items of one task."""
    counted = Counter(overlap.verdict for overlap in overlaps)
    return Contamination(
        _share([overlap.question for overlap in overlaps]),
        _share([overlap.with_answer for overlap in overlaps]),
        {verdict: counted[verdict] for verdict in VERDICTS},
    )


def _share(shares: Sequence[float | None]) -> Share:
    judged = [share for share in shares if share is not None]
    over = [float(share >= THRESHOLD) for share in judged]
    return Share(
        items=len(shares),
        short=len(shares) - len(judged),
        hit=sum(share > 0 for share in judged),
        over=int(sum(over)),
        estimate=estimate(over),
    )


def split_score(
    metric: str, records: Mapping[str, SampleRecord], verdicts: Mapping[str, Verdict]
) -> dict[str, Estimate | None]:
    """A run's score on all its items, on those of each verdict, and on all but the contaminated
    ones; None for none. Both mappings go by sample id; every record's is among the verdicts."""
    scored = {key: record for key, record in records.items() if record.counted}
    parts: dict[str, Estimate | None] = {"all": estimate_of(metric, list(scored.values()))}
    for verdict in VERDICTS:
        of = [record for key, record in scored.items() if verdicts[key] == verdict]
        parts[verdict] = estimate_of(metric, of)
    rest = [record for key, record in scored.items() if verdicts[key] != "contaminated"]
    return parts | {"without contaminated": estimate_of(metric, rest)}
