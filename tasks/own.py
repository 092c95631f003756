"""Functions that a task brings along: `grade.py:grade` is one of a file in the task's folder.

Such a file is code of whoever wrote the task, and runs with all rights of this process; only a task
from a folder that the user named, or from a package that the user installed, has one. It is read
when the task is going to be asked, and once: what began to read replies reads them to the end.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash

_BY_PLACE = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
_OWN = re.compile(r"([^\W\d]\w*\.py):[^\W\d]\w*")


def own_file(name: str) -> str | None:
    """`grade.py:grade` → grade.py; None for what is no function of a file."""
    found = _OWN.fullmatch(name)
    return found[1] if found else None


@cache
def own_function(name: str, folder: Path, *forms: tuple[str, ...]) -> Callable[..., Any]:
    """The function that `name` stands for; `forms`: parameters that it may have, one way or the
    other. Raises UserError where it is not there or takes others."""
    file, _, function = name.partition(":")
    path = folder / file
    found = getattr(_module(path), function, None)
    if not inspect.isfunction(found):
        raise UserError(f"{path}: no function {function}")
    kinds = [parameter.kind for parameter in inspect.signature(found).parameters.values()]
    if len(kinds) not in map(len, forms) or not set(kinds) <= _BY_PLACE:
        wanted = " or ".join(f"({', '.join(form)})" for form in forms)
        raise UserError(f"{path}: {function} must take {wanted}, not {inspect.signature(found)}")
    return found


@cache
def _module(path: Path) -> ModuleType:
    module = ModuleType(f"qwen_eval_own_{text_hash(str(path.resolve()))}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # where dataclasses and pickle look for it
    try:
        # Not by an import: that would take a compiled file of the same second for this one.
        exec(compile(path.read_bytes(), path, "exec"), module.__dict__)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:
        raise UserError(f"{path}: {type(error).__name__}: {error}") from error
    return module
