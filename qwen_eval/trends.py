"""Series: results of a task that can be compared with each other, in order of time.

Pure: results in, plain frozen data out, for a terminal or a page to draw. Knows nothing of files.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from qwen_eval.changepoints import Change, change_points
from qwen_eval.history import Point, Result
from qwen_eval.measures import clusters_of, measure_of
from qwen_eval.paired import Array
from qwen_eval.results import is_named

# How a reader is told what differs: by what can be read, or else by the beginning of a digest.
_READABLE = {
    "data_kind": "{}",
    "metric": "{}",
    "scorer": "scorer {}",
    "solver": "solver {}",
    "version": "version {}",
    "recipe_version": "recipe version {}",
    "selected": "n {}",
}
_DIGESTS = {
    "data_digest": "rows {:.6}",
    "prompts_digest": "prompts {:.6}",
    "items": "items {:.6}",
    "isolation": "isolation {}",
}


@dataclass(frozen=True)
class Series:
    """Points that can be compared, by time; `dataclasses.asdict` makes plain data of it. `key`:
    what is equal in all of them. `differs`: what sets the series apart from others of its task, in
    a word or two. `changes`: each `at` is an index of `points`, and each `delta` above zero where
    scores got better."""

    task: str
    key: dict[str, str]
    differs: str
    points: tuple[Point, ...]
    changes: tuple[Change, ...]


def series(
    results: Sequence[Result],
    *,
    tasks: Collection[str] | None = None,
    model: str | None = None,
    alpha: float = 0.05,
) -> list[Series]:
    """All series by task and time of their first run. `tasks` names some, with or without their
    recipes; `model` one by its name. Points with an invalid score are shown and not tested."""
    gathered: dict[str, list[Result]] = {}
    for one in results:
        named = tasks is None or is_named(one.task, tasks)
        if named and model in (None, one.point.model):
            gathered.setdefault(json.dumps([one.task, one.key], sort_keys=True), []).append(one)
    groups = [sorted(group, key=_time) for group in gathered.values()]
    groups.sort(key=lambda group: (group[0].task, *_time(group[0])))
    found = []
    for group in groups:
        first = group[0]
        keys = [other[0].key for other in groups if other[0].task == first.task]
        points = tuple(one.point for one in group)
        differs = _difference(first.key, keys)
        found.append(Series(first.task, first.key, differs, points, _changes(group, alpha)))
    return found


def _time(result: Result) -> tuple[str, str]:
    return result.point.started, result.point.run


def _changes(results: Sequence[Result], alpha: float) -> tuple[Change, ...]:
    valid = [i for i, one in enumerate(results) if not one.point.invalid]
    if len(valid) < 2:
        return ()
    groups = clusters_of(results[0].key["metric"], results[0].groups)
    found = change_points(_gains([results[i] for i in valid]), groups, alpha=alpha)
    return tuple(replace(change, at=valid[change.at]) for change in found)


def _gains(results: Sequence[Result]) -> Array:
    """Runs x items, more being better whatever the metric. An item's weight is in its values, such
    that their plain mean over the items that all runs have is the weighted one."""
    values = np.array([one.scores for one in results], dtype=np.float64)
    weights = results[0].weights
    if weights is not None:
        shared = ~np.isnan(values).any(axis=0)
        weight_I = np.array(weights, dtype=np.float64)
        values = values * (weight_I / weight_I[shared].mean() if shared.any() else 1.0)
    return measure_of(results[0].key["metric"]).sign * values


def _difference(key: Mapping[str, str], keys: Sequence[Mapping[str, str]]) -> str:
    """What sets a key apart from the others."""
    readable, digests = (
        [name for name in names if len({one.get(name, "") for one in keys}) > 1]
        for names in (_READABLE, _DIGESTS)
    )
    told = [_READABLE[name].format(key[name]) for name in readable]
    alike = sum(all(one[name] == key[name] for name in readable) for one in keys)
    if alike > 1:
        told += [_DIGESTS[name].format(key.get(name, "")) for name in digests]
    return ", ".join(told)
