"""Rounds of self-instruct: draw examples, let the model write, keep what passes.

In later rounds one example is a sample that was kept before. All draws are seeded and all replies
are kept (see replies), so a build that was stopped goes on with the same command and ends in the
same samples.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..data.decontaminate import KnownTests
from ..replies import Model, Replies
from .likeness import Likeness
from .rules import DroppedError, check_whole
from .samples import Sample
from .writing import Draft, Manner, begin, write


@dataclass(frozen=True)
class Goal:
    """samples: how many are wanted; asked: how many are begun in a round. shots: examples that the
    model sees."""

    samples: int
    rounds: int
    asked: int
    shots: int = 3


@dataclass(frozen=True)
class KnownQuestions:
    """Questions of test sets: their n-grams, and what a question must not be like."""

    known: KnownTests
    likeness: Likeness

    def found_in(self, sample: Sample) -> str | None:
        """Why a sample is too near to a test set, or None."""
        name = self.known.found_in(f"{sample.query}\n{sample.trace}")
        if name is not None:
            return f"shares {self.known.n} words with {name}"
        return "like a question of a test set" if self.likeness.like(sample.query) else None


@dataclass(frozen=True)
class Outcome:
    """What became of a draft. reason: empty if it was kept. like: the text it is like. sample:
    there if it came to its end."""

    id: str
    round: int
    text: str
    filter: str = ""
    reason: str = ""
    like: str = ""
    sample: Sample | None = None

    @property
    def kept(self) -> bool:
        """Whether no filter dropped it."""
        return not self.reason


@dataclass
class Rounds:
    """likeness: holds the seeds at the beginning, and what is kept from then on. kept: in the order
    in which they were written."""

    seeds: Sequence[Sample]
    model: Model
    replies: Replies
    goal: Goal
    manner: Manner
    likeness: Likeness
    tests: KnownQuestions
    say: Callable[[str], None]
    outcomes: list[Outcome] = field(default_factory=list)
    kept: list[Sample] = field(default_factory=list)

    def run(self) -> None:
        """Until there are enough samples or no more rounds."""
        for number in range(1, self.goal.rounds + 1):
            if self._enough:
                break
            drafts = [self._begin(f"{number}-{place}") for place in range(self.goal.asked)]
            self.say(f"round {number}: {len(drafts):,} drafts")
            write(drafts, self.model, self.replies, self.manner)
            for draft in drafts:
                self._judge(number, draft)
            self.say(f"round {number}: {len(self.kept):,} samples of {self.goal.samples:,}")

    @property
    def _enough(self) -> bool:
        return len(self.kept) >= self.goal.samples

    def _begin(self, name: str) -> Draft:
        rng = random.Random(f"{self.manner.seed} {name}")
        model_of = rng.choice(self.seeds)
        language = model_of.language
        others = [s for s in self.seeds if s.language == language and s is not model_of]
        before = [s for s in self.kept if s.language == language]
        generated = rng.sample(before, min(1, len(before)))
        examples = rng.sample(others, min(self.goal.shots - len(generated), len(others)))
        examples += generated
        rng.shuffle(examples)
        return begin(name, examples, model_of.tools, language)

    def _judge(self, number: int, draft: Draft) -> None:
        sample, like = draft.sample, ""
        if self._enough:
            return
        try:
            if sample is None:
                raise draft.dropped or AssertionError("a draft is whole or dropped")
            check_whole(sample, draft.language)
            if (near := self.tests.found_in(sample)) is not None:
                raise DroppedError("test sets", near)
            if (found := self.likeness.like(sample.query)) is not None:
                like = found
                raise DroppedError("likeness", "a question like a seed or one that was kept")
        except DroppedError as drop:
            why = drop.filter, drop.reason, like
            self.outcomes.append(Outcome(draft.name, number, draft.written, *why, sample))
            return
        self.likeness.add(sample.query)
        self.kept.append(sample)
        self.outcomes.append(Outcome(draft.name, number, draft.written, sample=sample))


def counts(outcomes: Sequence[Outcome]) -> Counter[tuple[str, str]]:
    """Drafts that were dropped, by filter and reason."""
    return Counter((o.filter, o.reason) for o in outcomes if not o.kept)
