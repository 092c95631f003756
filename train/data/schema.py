"""YAML with a closed schema, and errors that name file, line and key.

Knows nothing of what a recipe means. The harness has the like for its own files; this folder may
not import them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from qwen_eval.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


class Closed(BaseModel):
    """A part of a file: unknown keys are refused, and nothing of it changes."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def read_yaml(path: Path, model: type[Model]) -> Model:
    """A YAML file as `model`. Raises UserError for the first mistake, with its line and keys."""
    try:
        text = path.read_text(encoding="utf-8")
        raw = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        problem = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be read ({problem})") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{place}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected keys and values")
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        keys, problem = first["loc"], first["msg"].removeprefix("Value error, ")
        if problem.startswith("Extra inputs"):
            problem = "unknown key"
        line = _line(text, keys)
        place = f", line {line}" if line else ""
        named = ": ".join(filter(None, (".".join(map(str, keys)), problem)))
        raise UserError(f"{path}{place}: {named}") from error


def _line(text: str, keys: Sequence[int | str]) -> int | None:
    """Where the innermost of the keys that the text has begins, from 1; None for none of them."""
    node, line = yaml.compose(text, Loader=yaml.SafeLoader), None
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            for name, value in node.value:
                if name.value == str(key):
                    node, line = value, name.start_mark.line + 1
                    break
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
    return line
