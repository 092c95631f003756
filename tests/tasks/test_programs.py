"""Where a program ends: reference solutions must survive, what follows them must not."""

from __future__ import annotations

import ast

import pytest

from qwen_eval.datasets import open_data
from qwen_eval.tasks.scorers import find_cut
from qwen_eval.taskspec import find_task

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


@pytest.mark.parametrize("after", AFTER)
def test_what_follows_a_solution_is_cut_off(after: str) -> None:
    cut = find_cut("indentation")
    for problem in PROBLEMS:
        solution = problem["canonical_solution"].rstrip("\n")
        kept = cut(problem["prompt"], solution + "\n" + after)
        assert kept.rstrip().endswith(solution.rstrip()) or kept.startswith(solution)
        ast.parse(problem["prompt"] + kept)
        assert "other" not in kept[len(solution) :]
        assert "print(f(1))" not in kept
        assert "import os" not in kept[len(solution) :]


@pytest.mark.parametrize(("name", "shortened"), [("indentation", 0), ("whole", 0)])
def test_a_reference_solution_is_kept_whole(name: str, shortened: int) -> None:
    cut = find_cut(name)
    lost = [
        p for p in PROBLEMS if cut(p["prompt"], p["canonical_solution"]) != p["canonical_solution"]
    ]
    assert len(lost) == shortened


def test_qwens_rule_shortens_as_many_solutions_as_was_measured() -> None:
    # protocols.md, "HumanEval 0-shot": 37 of 164; 34 hold a blank line, 11 a nested def.
    cut = find_cut("qwen_blank_line")
    lost = [
        p
        for p in PROBLEMS
        if cut(p["prompt"], p["canonical_solution"]).strip() != p["canonical_solution"].strip()
    ]
    assert len(lost) == 37


def test_lm_evals_stops_shorten_none() -> None:
    stops = find_task("humaneval@lm-eval")[0].recipes["lm-eval"].stop
    assert not [p for p in PROBLEMS if any(stop in p["canonical_solution"] for stop in stops)]


def test_strict_stops_shorten_none() -> None:
    stops = find_task("humaneval")[0].recipes["strict"].stop
    assert not [p for p in PROBLEMS if any(stop in p["canonical_solution"] for stop in stops)]


@pytest.mark.parametrize(
    ("completion", "kept"),
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
    completion: str, kept: str
) -> None:
    assert find_cut("indentation")("def f():\n", completion) == kept
