"""What a gate.yaml may say: a closed schema, read once, with errors that name the rule.

    alpha: 0.05
    inconclusive: warn          # or fail
    rules:
      - {task: mmlu, type: non_inferiority, margin: 0.02}
      - {task: gsm8k, type: floor, minimum: 0.30}
      - {task: tiny_bits_en, type: ceiling, maximum: 2.0}
      - {task: humaneval, type: must_pass, items: [5f1c, 90ab]}
      - {task: gsm8k, type: budget, no_answer: 0.05, errors: 0.01}
      - {type: ratio, figure: samples_per_second, least: 0.8}
      - {type: ratio, figure: peak_memory, most: 1.1}
    quarantine:
      - {task: gsm8k, item: 77e0, until: 2026-12-31, reason: "two answers are right"}

A task named without a recipe means its default one.
"""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from qwen_eval.metrics import Figure
from qwen_eval.schema import Closed, Keys, parse, read_text
from qwen_eval.taskspec import recipe_id

Share = Annotated[float, Field(ge=0, le=1)]


class _OfTask(Closed):
    task: str = Field(min_length=1)

    @property
    def recipe(self) -> str:
        """The task with its recipe, as a run names it."""
        return recipe_id(self.task)


class NonInferiority(_OfTask):
    """The candidate may not be worse by `margin` or more: 0.02 is two points of a share, or 0.02
    bits per byte.

    `min_effect`: a proven drop below it does not fail; the margin, where nothing else is said.
    `blocking`: whether a failure fails the gate, and counts among Holm's tests.
    """

    type: Literal["non_inferiority"]
    margin: float = Field(gt=0)
    min_effect: float | None = Field(default=None, ge=0)
    blocking: bool = True

    @property
    def least_drop(self) -> float:
        """The smallest drop that fails."""
        return self.margin if self.min_effect is None else self.min_effect


class Floor(_OfTask):
    """The candidate's score may not be below `minimum`."""

    type: Literal["floor"]
    minimum: float


class Ceiling(_OfTask):
    """Where less is better: the candidate's score may not be above `maximum`."""

    type: Literal["ceiling"]
    maximum: float


class MustPass(_OfTask):
    """Items that the candidate has to get right, without tolerance."""

    type: Literal["must_pass"]
    items: tuple[str, ...] = Field(min_length=1)


class Budget(_OfTask):
    """Largest shares of the candidate's samples that may end so."""

    type: Literal["budget"]
    errors: Share | None = None
    no_answer: Share | None = None
    prompts_truncated: Share | None = None
    outputs_truncated: Share | None = None

    @model_validator(mode="after")
    def _some(self) -> Budget:
        if not self.limits:
            raise ValueError("names no limit: errors, no_answer, prompts_truncated or "
                             "outputs_truncated")  # fmt: skip
        return self

    @property
    def limits(self) -> dict[str, float]:
        """Those that were given."""
        return {k: v for k, v in self.model_dump(exclude={"task", "type"}).items() if v is not None}


class Ratio(Closed):
    """Candidate's figure over the baseline's: at least, at most."""

    type: Literal["ratio"]
    figure: Figure
    least: float | None = Field(default=None, gt=0)
    most: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _some(self) -> Ratio:
        if self.least is None and self.most is None:
            raise ValueError("names neither least nor most")
        return self


Rule = Annotated[
    NonInferiority | Floor | Ceiling | MustPass | Budget | Ratio, Field(discriminator="type")
]


class Quarantined(_OfTask):
    """An item that is known to be unsteady: left out of every rule until the day named, and not
    after."""

    item: str
    until: date
    reason: str = Field(min_length=1)


class Rules(Closed):
    """A whole file. `errors`: the share of items that may have failed or be in one run only; more
    of them, and there is no verdict."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    inconclusive: Literal["warn", "fail"] = "warn"
    errors: Share = 0.02
    quarantine: tuple[Quarantined, ...] = ()

    def held(self, today: date) -> set[tuple[str, str]]:
        """The items, each with its task, that are in quarantine on a day."""
        return {(q.recipe, q.item) for q in self.quarantine if q.until >= today}


def read_rules(path: Path) -> Rules:
    """Raises UserError naming the file, the line, the rule and the key at fault."""
    return parse(
        read_text(path, "--rules"),
        path,
        Rules,
        flag="--rules",
        expected="a mapping with a list under `rules:`",
        said=_fault_of,
    )


def _fault_of(keys: Keys, problem: str) -> str:
    place = [str(key) for key in keys]
    if len(place) > 1:  # people count from one
        place[1] = f"{'rule' if keys[0] == 'rules' else 'entry'} {int(keys[1]) + 1}"
    return f"{', '.join(place)}: {problem}"
