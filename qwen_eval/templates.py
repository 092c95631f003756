"""Jinja templates over the columns of a row, as task files hold them.

They are sandboxed: a task file can read a row, and nothing else. A column that is not there is an
error, not an empty text.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from jinja2 import StrictUndefined
from jinja2.sandbox import SandboxedEnvironment

from qwen_eval.types import Row

_environment = SandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True)


@cache
def _template(source: str) -> Callable[..., str]:
    return _environment.from_string(source).render


def fill(source: str, row: Row) -> str:
    """The template's text for a row. Raises jinja2.TemplateError, or what its expressions raise."""
    return _template(source)(**row) if "{" in source else source


@cache
def _condition(source: str) -> Callable[..., object]:
    return _environment.compile_expression(source, undefined_to_none=False)


def holds(condition: str, row: Row) -> bool:
    """Whether an expression, such as `10 < task_id <= 510`, is true of a row. Raises as fill()."""
    return bool(_condition(condition)(**row))
