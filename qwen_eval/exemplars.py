"""The fixed exemplars that the installed lm-eval package ships in its task files.

They are read as data: nothing of the package is imported.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml

from qwen_eval.errors import UserError
from qwen_eval.types import Row


class _Function(str):
    """`module.function` behind a tag `!function`: what makes a value of a task file."""


class _Loader(yaml.SafeLoader):
    """YAML with lm-eval's own tag, which names a function and calls none."""


_Loader.add_constructor("!function", lambda _, node: _Function(node.value))


def lm_eval_exemplars(name: str, count: int) -> list[Row]:
    """The first `count` samples of `fewshot_config` in the task file of that name, which lie in
    the file or are returned, as a literal, by a function of a module beside it. Raises UserError
    where the package or the samples are not there."""
    import importlib.util

    found = importlib.util.find_spec("lm_eval")  # finds the folder without importing the package
    if found is None or not found.submodule_search_locations:
        raise UserError("this recipe takes its exemplars from the package lm-eval: install it")
    path = Path(found.submodule_search_locations[0]) / "tasks" / name
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        rows = raw["fewshot_config"]["samples"]
        if isinstance(rows, _Function):
            module, _, function = rows.partition(".")
            rows = _returned(path.with_name(f"{module}.py"), function)
    except (OSError, LookupError, TypeError, ValueError, SyntaxError, yaml.YAMLError) as error:
        raise UserError(f"{path}: no exemplars found; lm-eval 0.4.13 is known to work") from error
    if len(rows) < count:
        raise UserError(f"{path}: {len(rows)} exemplars, {count} are needed")
    return list(rows[:count])


def _returned(path: Path, function: str) -> Any:
    """The literal that a function of a module returns. Raises LookupError, ValueError for none."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            last = node.body[-1]
            if isinstance(last, ast.Return) and last.value is not None:
                return ast.literal_eval(last.value)
    raise LookupError(f"{path}: no function {function} that returns a literal")
