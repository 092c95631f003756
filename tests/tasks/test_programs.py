"""Where a program ends: reference solutions must survive, what follows them must not."""

from __future__ import annotations

import ast
import textwrap
from typing import Any

import pytest

from qwen_eval.datasets import open_data
from qwen_eval.tasks.scorers import Cut, find_cut
from qwen_eval.tasks.scorers.programs import called
from qwen_eval.taskspec import find_task
from qwen_eval.types import Row

PROBLEMS = open_data(find_task("humaneval")[0], None).rows("test")
AFTER = [
    "\n\ndef other(x):\n    return x\n",
    "\n\nclass Other:\n    pass\n",
    "\nprint(f(1))\n",
    "\n\nif __name__ == '__main__':\n    main()\n",
    "\n# a comment\nassert f(1) == 2\n",
    "\n```\n\nThis function works.",
    "\nimport os\n",
    "\n@cache\ndef more():\n    pass\n",
]


def kept(cut: Cut, problem: Row) -> str:
    """What a cut leaves of a problem's own solution."""
    return cut(problem["prompt"], problem["canonical_solution"], problem["entry_point"])


@pytest.mark.parametrize("after", AFTER)
def test_what_follows_a_solution_is_cut_off(after: str) -> None:
    cut = find_cut("indentation")
    for problem in PROBLEMS:
        solution = problem["canonical_solution"].rstrip("\n")
        left = cut(problem["prompt"], solution + "\n" + after, problem["entry_point"])
        assert left.rstrip().endswith(solution.rstrip()) or left.startswith(solution)
        ast.parse(problem["prompt"] + left)
        assert "other" not in left[len(solution) :]
        assert "print(f(1))" not in left
        assert "import os" not in left[len(solution) :]


@pytest.mark.parametrize(("name", "shortened"), [("indentation", 0), ("whole", 0)])
def test_a_reference_solution_is_kept_whole(name: str, shortened: int) -> None:
    cut = find_cut(name)
    lost = [p for p in PROBLEMS if kept(cut, p) != p["canonical_solution"]]
    assert len(lost) == shortened


def test_qwens_rule_shortens_as_many_solutions_as_was_measured() -> None:
    # protocols.md, "HumanEval 0-shot": 37 of 164; 34 hold a blank line, 11 a nested def.
    cut = find_cut("qwen_blank_line")
    lost = [p for p in PROBLEMS if kept(cut, p).strip() != p["canonical_solution"].strip()]
    assert len(lost) == 37


def test_lm_evals_stops_shorten_none() -> None:
    stops = find_task("humaneval@lm-eval")[0].recipes["lm-eval"].stop
    assert not [p for p in PROBLEMS if any(stop in p["canonical_solution"] for stop in stops)]


def test_strict_stops_shorten_none() -> None:
    stops = find_task("humaneval")[0].recipes["strict"].stop
    assert not [p for p in PROBLEMS if any(stop in p["canonical_solution"] for stop in stops)]


@pytest.mark.parametrize(
    ("completion", "left"),
    [
        ("    return 1\n\n\n    # unreachable\n", "    return 1\n\n\n    # unreachable\n"),
        (
            '    s = """\nflat text\n"""\n    return s\nprint(1)',
            '    s = """\nflat text\n"""\n    return s\n',
        ),
        ("    return [\n1,\n]\nx = 2", "    return [\n1,\n]\n"),
        ("    return 1\nelse:\n    return 2\n", "    return 1\n"),
        ("    return (\n", "    return (\n"),
    ],
)
def test_column_zero_ends_a_function_only_where_a_statement_begins(
    completion: str, left: str
) -> None:
    assert find_cut("indentation")("def f():\n", completion, "f") == left


BODY = '    """ Add one. """\n    return x + 1\n'
HEAD = 'def f(x):\n    """ Add one. """\n'
WHOLE = "def f(x):\n    return x + 1\n"


@pytest.mark.parametrize(
    "reply",
    [
        WHOLE,
        f"```python\n{WHOLE}```",
        f"Sure!\n\n```python\n{WHOLE}```\n\nThis adds one.",
        f"Sure!\n\n```\n{WHOLE}```",
        f"```py\nimport math\n\n\n{WHOLE}\nprint(f(1))\nassert f(1) == 2\n```",
        f"First the helper:\n```python\ndef g():\n    pass\n```\nThen:\n```python\n{WHOLE}```",
        f"```python\nprint(f(1))\n```\ngives 2, with\n```python\n{WHOLE}```",
        f"```python\n{WHOLE}```\nOr shorter:\n```python\ndef f(x):\n    return -1\n```",
        f"1. As follows:\n\n    ```python\n{textwrap.indent(WHOLE, '    ')}    ```\n",
        f"```python\n{WHOLE}",
        f"Here it is:\n\n{WHOLE}\nIt adds one to x.",
        f"Here it is:\n\nimport math\n{WHOLE}\n[DONE]\n\nYou are an expert",
        f"{WHOLE}\n\nDone\n",
        f"{WHOLE}\n\ndef broken(\n",
        "f = lambda x: x + 1\nprint(f(1))",
        "class Adder:\n    def __call__(self, x):\n        return x + 1\n\n\nf = Adder()\n",
        WHOLE.replace("\n", "\r\n") + "\r\n[DONE]",
    ],
)
@pytest.mark.parametrize("head", ["", HEAD])
def test_a_whole_program_is_found_in_a_reply(head: str, reply: str) -> None:
    names: dict[str, Any] = {}
    exec(head + find_cut("program")(head, reply, "f"), names)
    assert names["f"](1) == 2


@pytest.mark.parametrize(
    "reply",
    [
        BODY,
        "    return x + 1",
        "    return x + 1\n\ndef g():\n    pass\n",
        "```python\n    return x + 1\n```",
        "```python\nreturn x + 1\n```",
        "Like this:\n```\nreturn x + 1\n```\nwhich adds one.",
    ],
)
def test_a_body_is_found_where_the_program_has_begun(reply: str) -> None:
    names: dict[str, Any] = {}
    exec(HEAD + find_cut("program")(HEAD, reply, "f"), names)
    assert names["f"](1) == 2


@pytest.mark.parametrize("reply", ["I cannot do that.", "```\nno program\n```", "def g(:\n"])
def test_what_holds_no_program_fails(reply: str) -> None:
    names: dict[str, Any] = {}
    with pytest.raises((SyntaxError, NameError)):
        exec(HEAD + find_cut("program")(HEAD, reply, "f"), names)


@pytest.mark.parametrize(
    ("reply", "left"),
    [
        # The block: what follows the first line that ends in a colon, up to the fence.
        (f"So:\n```python\n{WHOLE}```", "    return x + 1"),
        (f"```Python\nimport os\n{WHOLE}\nprint(1)\n```", "    return x + 1\n\nprint(1)"),
        ("```python\ndef f(x):\n    if x:\n        return 1\n```", "    if x:\n        return 1"),
        # No block: up to a line that is not indented.
        (f"So:\n{WHOLE}That is all.", "    return x + 1"),
        ("def f(x):\n    y = x\n\n    return y + 1\nEnd", "    y = x\n\n    return y + 1"),
        # Another function's name.
        ("def add_one(x):\n    return x + 1\nEnd", "    return x + 1"),
        # No function at all: the text, indented.
        ("return x + 1", "    return x + 1"),
        ("    return x + 1\n", "        return x + 1\n"),
    ],
)
def test_the_released_script_finds_a_body_by_three_patterns(reply: str, left: str) -> None:
    assert find_cut("qwen_chat")(HEAD, reply, "f") == left


@pytest.mark.parametrize(
    ("tests", "name"),
    [
        ("assert f(1) == 2", "f"),
        ("assert set(f([1])) == {1}", "f"),
        ("assert len([]) == 0", "len"),
        ("root = Node(1)\nassert depth(root) == 1", "depth"),
        ("assert not (near(1, 2))", "near"),
    ],
)
def test_the_function_under_test_is_the_one_that_is_asserted_of(tests: str, name: str) -> None:
    assert called(tests) == name


@pytest.mark.parametrize("tests", ["", "assert x", "f(", "f(1)"])
def test_tests_that_assert_of_nothing_have_no_function(tests: str) -> None:
    with pytest.raises(ValueError, match="the tests call no function"):
        called(tests)
