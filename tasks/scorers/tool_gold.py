"""The call of a tool that a sample wants, and whether arguments are the ones it wants.

It comes as JSON text, a task's `target`: {"name": …, "arguments": {…}}, null where no tool is
wanted, or {"name": …, "accepted": {…}} in the manner of the Berkeley Function-Calling Leaderboard,
which lists for every argument the values it may have, "" among them or none at all where it may be
left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .tool_calls import sorted_json

Accepted = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class GoldCall:
    """`arguments`: those of a right call; of several, the one with the first value of each."""

    name: str
    arguments: Mapping[str, Any]
    accepted: Accepted | None = None

    @property
    def text(self) -> str:
        """The arguments as JSON text with sorted keys."""
        return sorted_json(self.arguments)

    def wants(self, arguments: str) -> bool:
        """Whether JSON text holds right arguments; none at all is an empty text."""
        given = json.loads(arguments) if arguments else None
        if self.accepted is None:
            return _same(self.arguments, given)
        return isinstance(given, dict) and _accepts(self.accepted, given)


def gold_call(target: str) -> GoldCall | None:
    """The call that a target names; None where no tool is wanted."""
    call = json.loads(target)
    if call is None:
        return None
    if "accepted" in call:
        return GoldCall(call["name"], _first(call["accepted"]), call["accepted"])
    return GoldCall(call["name"], call["arguments"])


def _same(wanted: Any, given: Any) -> bool:
    """Equal as JSON values: 2 is 2.0, and true is not 1."""
    if isinstance(wanted, dict) and isinstance(given, dict):
        return wanted.keys() == given.keys() and all(_same(wanted[k], given[k]) for k in wanted)
    if isinstance(wanted, list) and isinstance(given, list):
        return len(wanted) == len(given) and all(map(_same, wanted, given))
    return isinstance(wanted, bool) is isinstance(given, bool) and bool(wanted == given)


def _accepts(accepted: Accepted, given: Mapping[str, Any]) -> bool:
    return given.keys() <= accepted.keys() and all(
        any(_fits(value, given[name]) for value in _values(accepted[name]))
        if name in given
        else "" in (_values(accepted[name]) or [""])
        for name in accepted
    )


def _values(listed: Any) -> list[Any]:
    """What is listed for an argument; deep inside objects a value may stand for itself."""
    return listed if isinstance(listed, list) else [listed]


def _fits(wanted: Any, given: Any) -> bool:
    """An object that is accepted lists values for each of its own names."""
    if isinstance(wanted, dict):
        return isinstance(given, dict) and _accepts(wanted, given)
    if isinstance(wanted, list):
        fitting = isinstance(given, list) and len(wanted) == len(given)
        return fitting and all(map(_fits, wanted, given))
    return _same(wanted, given)


def _first(accepted: Accepted) -> dict[str, Any]:
    firsts = {name: _values(listed)[:1] for name, listed in accepted.items()}
    return {name: _plain(first[0]) for name, first in firsts.items() if first not in ([], [""])}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return _first(value)
    return [_plain(each) for each in value] if isinstance(value, list) else value
