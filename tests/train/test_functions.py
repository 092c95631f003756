"""A documented function becomes a question and the code that answers it."""

from __future__ import annotations

from qwen_eval.train.functions import LINES, functions_of

SOURCE = '''
import os

class Box:
    def area(self, side: float = 1.0, *, twice=False) -> float:
        """Area of the box,
        in metres.

        More of it.
        """
        scale = 2 if twice else 1
        return scale * side ** 2

    def plain(self):
        return 1

def nothing():
    """Says, and does nothing."""

def 长(x):
    """长度。"""
    return len(x)
'''


def test_the_docstring_asks_and_the_code_answers() -> None:
    found = {asked: answer for (_, asked), (_, answer) in functions_of(SOURCE)}
    method = found.pop(
        "Write a Python function `area(self, side: float=1.0, *, twice=False)`.\n"
        "Area of the box, in metres."
    )
    code = found.pop("Write a Python function `长(x)`.\n长度。")
    assert not found
    assert code == '```python\ndef 长(x):\n    """长度。"""\n    return len(x)\n```'
    program = method.removeprefix("```python\n").removesuffix("\n```")
    names: dict[str, object] = {}
    exec(program, names)
    assert callable(names["area"])
    assert names["area"](None, 3.0, twice=True) == 18.0


def test_what_is_no_python_or_too_long_has_none() -> None:
    long = 'def f(x):\n    """Adds."""\n' + "    x += 1\n" * LINES
    assert (
        list(functions_of("def (:")) == list(functions_of("\0")) == list(functions_of(long)) == []
    )
