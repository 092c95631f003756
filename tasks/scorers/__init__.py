"""How a reply is read. Scorers read a text; cuts end a program.

Each is a pure function under a name that task.yaml may use. Recipes of the released Qwen scripts
and of lm-evaluation-harness keep those projects' readings, flaws included, under their names.
"""

from collections.abc import Callable

from qwen_eval.errors import UserError
from qwen_eval.types import Score

from . import answers, numbers, programs, retrieval, verdicts

Scorer = Callable[[str, str, str], Score]
"""(reply, target, metric) → Score."""

Cut = Callable[[str, str], str]
"""(prompt, completion) → the part of the completion that is the program."""

SCORERS: dict[str, Scorer] = {
    "number": numbers.number,
    "lm_eval_strict_match": numbers.lm_eval_strict_match,
    "lm_eval_flexible_extract": numbers.lm_eval_flexible_extract,
    "qwen_last_digits": numbers.qwen_last_digits,
    "first_number": retrieval.first_number,
    "inclusion": retrieval.inclusion,
    "answered": answers.answered,
    "verdict": verdicts.verdict,
}

CUTS: dict[str, Cut] = {
    "indentation": programs.indentation,
    "whole": programs.whole,
    "qwen_blank_line": programs.qwen_blank_line,
}


def find_scorer(name: str) -> Scorer:
    """The scorer of a name. Raises UserError for an unknown one."""
    if name not in SCORERS:
        raise UserError(f"scorer {name}: unknown; known: {', '.join(SCORERS)}")
    return SCORERS[name]


def find_cut(name: str) -> Cut:
    """The cut of a name. Raises UserError for an unknown one."""
    if name not in CUTS:
        raise UserError(f"scorer {name}: unknown for programs; known: {', '.join(CUTS)}")
    return CUTS[name]
