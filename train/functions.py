"""Functions of Python sources as conversations: what a docstring says is asked, the code answers.

Instructions for code are seldom free to use, and sources are; so the question is written from the
source itself. Knows nothing of tokens or files.
"""

from __future__ import annotations

import ast
import textwrap
import warnings
from collections.abc import Iterator

from .conversations import Turns

# Longer ones are seldom what a short question asks for.
LINES = 40


def functions_of(source: str) -> Iterator[Turns]:
    """A conversation for every documented function that does something, in order.

    The question holds name and arguments and the docstring's first paragraph. A source that Python
    cannot read has none.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or len(node.body) < 2:
            continue
        said = (ast.get_docstring(node) or "").split("\n\n")[0].strip()
        code = ast.get_source_segment(source, node, padded=True) or ""
        if said and len(code.splitlines()) <= LINES:
            head = f"{node.name}({ast.unparse(node.args)})"
            asked = f"Write a Python function `{head}`.\n{' '.join(said.split())}"
            yield (
                ("user", asked),
                ("assistant", f"```python\n{textwrap.dedent(code).strip()}\n```"),
            )
