"""YAML files with a closed schema: read once, with errors that name file, line and key.

Knows nothing of what the files mean: that is said by the pydantic model that a caller hands in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from qwen_eval.errors import UserError

Model = TypeVar("Model", bound=BaseModel)
Keys = Sequence[int | str]


class Closed(BaseModel):
    """A part of a file: unknown keys are refused, and nothing of it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def fault_of(keys: Keys, problem: str) -> str:
    """`recipes.strict.colour: unknown key`."""
    problem = problem.removeprefix("Value error, ")
    if problem.startswith("Extra inputs"):
        problem = "unknown key"
    return ": ".join(filter(None, (".".join(map(str, keys)), problem)))


def read_text(path: Path, flag: str = "") -> str:
    """A file's text. Raises UserError naming the file, and the flag that named it."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"{_at(path, flag)}cannot be read ({problem})") from error


def parse(
    text: str,
    path: Path,
    model: type[Model],
    *,
    flag: str = "",
    expected: str = "keys and values",
    said: Callable[[Keys, str], str] = fault_of,
    given: Mapping[str, Any] | None = None,
) -> Model:
    """A YAML text as `model`, with `given` fields that the file may not set.

    Raises UserError for the first mistake: `path`, and the flag that named it, the line where it
    can be had, and what `said` makes of the keys that lead to the mistake and of what it is.
    """
    given = given or {}
    try:
        raw = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A ValueError is a date that does not exist.
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        place = _at(path, flag, mark.line + 1 if mark else None)
        raise UserError(f"{place}not YAML: {problem}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{_at(path, flag)}expected {expected}")
    for key in given.keys() & raw.keys():
        raise UserError(f"{_at(path, flag, _line(text, [key]))}{said([key], 'unknown key')}")
    try:
        return model.model_validate({**raw, **given})
    except ValidationError as error:
        first = error.errors()[0]
        place = _at(path, flag, _line(text, first["loc"]))
        raise UserError(f"{place}{said(first['loc'], first['msg'])}") from error


def _at(path: Path, flag: str, line: int | None = None) -> str:
    place = f"line {line}" if line else ""
    if flag:
        return f"{flag} {path}: " + (place and f"{place}: ")
    return f"{path}, {place}: " if place else f"{path}: "


def _line(text: str, keys: Keys) -> int | None:
    """Where the innermost of the keys that the text has begins, from 1; None for none of them.

    Keys that are not in the text (what is missing, or pydantic's name of a kind) are passed over.
    """
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == str(key):
                    node, line = value, name.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line
