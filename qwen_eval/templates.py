"""Jinja templates over the columns of a row, as task files hold them.

They are sandboxed: a task file can read a row, and nothing else. A column that is not there is an
error, not an empty text. Beside Jinja's own filters there are `sub(pattern, by)`, that of re, and
`json`, json.dumps with letters as they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache, partial
from typing import Any

from jinja2 import StrictUndefined, Undefined, meta
from jinja2.sandbox import SandboxedEnvironment

from qwen_eval.types import Row

_environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)
_environment.filters["sub"] = lambda text, pattern, by: re.sub(pattern, by, text)
_environment.filters["json"] = partial(json.dumps, ensure_ascii=False)


@cache
def _template(source: str) -> Callable[..., str]:
    return _environment.from_string(source).render


def fill(source: str, row: Row) -> str:
    """The template's text for a row. Raises jinja2.TemplateError, or what its expressions raise."""
    return _template(source)(**row) if "{" in source else source


@cache
def columns(source: str) -> frozenset[str]:
    """The columns that a template names."""
    return frozenset(meta.find_undeclared_variables(_environment.parse(source)))


@cache
def _expression(source: str) -> Callable[..., Any]:
    return _environment.compile_expression(source, undefined_to_none=False)


def evaluate(expression: str, row: Row) -> Any:
    """The value of an expression, such as `10 < task_id <= 510`, for a row. Raises as fill()."""
    value = _expression(expression)(**row)
    if isinstance(value, Undefined):
        str(value)  # which raises, and says what is missing
    return value
