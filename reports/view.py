"""What a report says, as plain data: runs in, findings out. Every form of it is made from this.

Scores stay in the metric's own unit; nothing here is text in a language but what a model, a file or
a task wrote. Knows nothing of HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from qwen_eval.compare import TaskComparison, compare_runs, differing_fields
from qwen_eval.errors import RefusedError
from qwen_eval.measures import measure_of
from qwen_eval.metrics import Estimate, TaskMetrics, Whole, figure_of, stored, summarise
from qwen_eval.paired import holm
from qwen_eval.paper import Figure, published
from qwen_eval.results import Run, TaskInfo
from qwen_eval.stats import detectable_difference

from .flips import ChangedAnswer, changed_answers
from .outcome import shares, win_tie_loss

SCHEMA = 1


@dataclass(frozen=True)
class Score:
    """A task's result in one run. `invalid` lists the limits passed, `groups` are subjects or
    lengths, `outcomes` how many samples ended in which way, `judged` the shares that a human study
    called win, tie and loss, by group. `detectable`: the smallest drop that so many items show.
    `whole`: figures that are no means over samples, by name. `others`: further metrics; `macro`:
    the mean over groups, where the recipe has it."""

    task: str
    info: TaskInfo
    overall: Estimate | None
    counts: dict[str, int]
    invalid: list[str]
    groups: dict[str, Estimate]
    categories: dict[str, Estimate]
    tokens: dict[str, int]
    outcomes: dict[str, int]
    judged: dict[str, dict[str, float]]
    detectable: float
    whole: dict[str, Whole] = field(default_factory=dict)
    others: dict[str, Estimate] = field(default_factory=dict)
    macro: Estimate | None = None

    @property
    def less_is_better(self) -> list[str]:
        """The further metrics of which less is better."""
        return [name for name in self.others if measure_of(name).sign < 0]

    @property
    def whole_figure(self) -> float | None:
        """The score itself, where it is one of the whole set."""
        own = self.whole.get(self.info.metric)
        return own.value if own else None


@dataclass(frozen=True)
class RunView:
    """One run: what it is called here, where it lies, its scores by task and what it cost.

    `cost`: seconds, samples, tokens, starts, and peak_memory (bytes; 0 where it is not known).
    `left`: samples that are still to come.
    """

    label: str
    folder: str
    finished: bool
    started: str
    model: dict[str, Any]
    isolation: str
    scores: dict[str, Score]
    cost: dict[str, float]
    left: int


@dataclass(frozen=True)
class Pair:
    """A candidate held against the first run: tasks that could be compared, why others not, those
    that one of the two does not have, and some of the answers that changed, by task.

    `invalid`: tasks whose score in one of the two means nothing, so their difference neither. They
    take no part in Holm's correction and their p_adjusted is 1.
    """

    candidate: int
    tasks: tuple[TaskComparison, ...]
    invalid: tuple[str, ...]
    refused: dict[str, str]
    missing: tuple[str, ...]
    changed: dict[str, tuple[ChangedAnswer, ...]]

    @property
    def sound(self) -> tuple[TaskComparison, ...]:
        """The comparisons that say something."""
        return tuple(one for one in self.tasks if one.task not in self.invalid)


@dataclass(frozen=True)
class Fact:
    """A line of the provenance: its value in every run."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the runs disagree on it."""
        return len(set(self.values)) > 1


@dataclass(frozen=True)
class Report:
    """All of it. `gate`: a verdict of `qwen-eval gate`, as its JSON says."""

    runs: tuple[RunView, ...]
    pairs: tuple[Pair, ...]
    anchors: dict[str, tuple[Figure, ...]]
    facts: tuple[Fact, ...]
    alpha: float
    gate: Mapping[str, Any] | None = None
    schema: int = SCHEMA
    tasks: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def build(
    runs: Sequence[Run], *, gate: Mapping[str, Any] | None = None, alpha: float = 0.05
) -> Report:
    """The first run is the baseline of all others. Unfinished runs are taken as far as they are."""
    labels = _labels(runs)
    views = tuple(_run_view(run, label) for run, label in zip(runs, labels, strict=True))
    tasks = tuple(dict.fromkeys(task for run in runs for task in run.info.tasks))
    return Report(
        runs=views,
        pairs=tuple(_pair(i, runs, views, alpha) for i in range(1, len(runs))),
        anchors={task: tuple(published(task.partition("@")[0])) for task in tasks},
        facts=tuple(_facts(runs)),
        alpha=alpha,
        gate=gate,
        tasks=tasks,
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """Model and dtype, and as much of the folder as it takes to tell the runs apart."""
    models = (run.info.model for run in runs)
    names = [f"{model.get('name')} {model.get('dtype', '')}".strip() for model in models]
    labels = names
    for folders in ([run.folder.name for run in runs], [str(run.folder) for run in runs]):
        if len(set(labels)) == len(labels):
            break
        labels = [f"{name} ({folder})" for name, folder in zip(names, folders, strict=True)]
    return labels


def _run_view(run: Run, label: str) -> RunView:
    starts = run.info.invocations
    cost = {
        key: sum(float(start.get(key, 0)) for start in starts)
        for key in ("seconds", "samples", "tokens")
    }
    cost["starts"] = len(starts)
    cost["peak_memory"] = figure_of(run, "peak_memory") or 0.0
    asked = sum(info.selected for info in run.info.tasks.values())
    # A finished run has said its scores; they are not computed a second time.
    said = stored(run) if run.finished else {}
    return RunView(
        label=label,
        folder=str(run.folder),
        finished=run.finished,
        started=str(starts[0].get("started", "")) if starts else "",
        model=run.info.model,
        isolation=run.info.isolation,
        scores={name: _score(run, info, said.get(name)) for name, info in run.info.tasks.items()},
        cost=cost,
        left=max(asked - len(run.samples), 0),
    )


def _score(run: Run, info: TaskInfo, said: TaskMetrics | None) -> Score:
    records = list(run.of(info.recipe).values())
    found = said or summarise(info.recipe, info.metric, records)
    return Score(
        task=info.recipe,
        info=info,
        overall=found.overall,
        counts=found.counts,
        invalid=found.invalid,
        groups=found.groups,
        categories=found.categories,
        tokens=found.tokens,
        outcomes=shares(records, info.metric),
        judged=win_tie_loss(records),
        detectable=detectable_difference(max(len(records), 1)),
        whole=found.whole,
        others=found.others,
        macro=found.macro,
    )


def _pair(candidate: int, runs: Sequence[Run], views: Sequence[RunView], alpha: float) -> Pair:
    baseline, other = runs[0], runs[candidate]
    found: list[TaskComparison] = []
    refused = {}
    for task in baseline.info.tasks:
        if task not in other.info.tasks:
            continue
        try:
            # One that is still going is compared as far as it is, and the page says so.
            found += compare_runs(baseline, other, tasks=[task], allow=("unfinished",), alpha=alpha)
        except RefusedError as error:
            differing = differing_fields(task, baseline, other)
            why = "; ".join(
                f"{field} is {there} there, {here} here" for field, there, here in differing
            )
            refused[task] = why or str(error).removeprefix(f"{task}: ")
    scores = (score for i in (0, candidate) for score in views[i].scores.items())
    invalid = {task for task, score in scores if score.invalid}
    sound = [one for one in found if one.task not in invalid]
    adjusted = holm([one.paired.p for one in sound])
    p_of = {one.task: p for one, p in zip(sound, adjusted, strict=True)}
    return Pair(
        candidate,
        tuple(replace(one, p_adjusted=p_of.get(one.task, 1.0)) for one in found),
        tuple(one.task for one in found if one.task in invalid),
        refused,
        tuple(sorted(baseline.info.tasks.keys() ^ other.info.tasks.keys())),
        {
            one.task: changed_answers(one.flips, baseline.of(one.task), other.of(one.task))
            for one in found
        },
    )


def _facts(runs: Sequence[Run]) -> list[Fact]:
    """Everything run.json says of model, settings, tasks and machine; a line per key."""
    told = [
        dict(_flat("model", run.info.model))
        | dict(_flat("settings", run.info.settings))
        | {"isolation": run.info.isolation}
        | dict(_flat("tasks", {name: asdict(task) for name, task in run.info.tasks.items()}))
        | dict(_flat("environment", run.info.environment))
        for run in runs
    ]
    names = dict.fromkeys(name for one in told for name in one)
    return [Fact(name, tuple(one.get(name, "–") for one in told)) for name in names]


def _flat(name: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        return [pair for key, inner in value.items() for pair in _flat(f"{name}.{key}", inner)]
    if isinstance(value, list | tuple):
        return [(name, ", ".join(map(str, value)))]
    return [(name, str(value))]
