"""How a reply is read. Scorers read a text; cuts end a program; measures weigh options; call
readers find the call of a tool.

Each is a pure function under a name that task.yaml may use. Recipes of the released Qwen scripts
and of lm-evaluation-harness keep those projects' readings, flaws included, under their names.
"""

import inspect
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from qwen_eval.errors import UserError
from qwen_eval.types import Item, Score

from ..own import own_file, own_function
from . import (
    answers,
    big_bench_hard,
    braces,
    examinations,
    instructions,
    letters,
    mathematics,
    numbers,
    options,
    passages,
    programs,
    retrieval,
    tool_calls,
    transcripts,
    verdicts,
    written_numbers,
)

Scorer = Callable[[str, str, str], Score]
"""(reply, target, metric) → Score."""

Cut = Callable[[str, str, str], str]
"""(what the program begins with, reply, name of the function under test) → the rest of it."""

ItemScorer = Callable[[str, Item], Score]
"""(reply, item) → Score, where more than the target is needed: the options, or the row."""

OptionMeasure = Callable[[Sequence[str], Sequence[int]], list[int]]
"""(options, their tokens) → what each one's log-probability is divided by."""

TranscriptReading = Callable[[transcripts.Transcript, str], transcripts.Reading]
"""(conversation, target) → whether it came to the right end."""

SCORERS: dict[str, Scorer] = {
    "number": numbers.number,
    "lm_eval_strict_match": numbers.lm_eval_strict_match,
    "lm_eval_flexible_extract": numbers.lm_eval_flexible_extract,
    "qwen_last_digits": numbers.qwen_last_digits,
    "qwen_last_number": numbers.qwen_last_number,
    "written_number": written_numbers.written_number,
    "thousandth": written_numbers.thousandth,
    "thousandth_first": written_numbers.thousandth_first,
    "math_answer": mathematics.math_answer,
    "lm_eval_minerva": mathematics.lm_eval_minerva,
    "bbh_answer": big_bench_hard.bbh_answer,
    "lm_eval_get_answer": big_bench_hard.lm_eval_get_answer,
    "short_answer": passages.short_answer,
    "lm_eval_short_answer": passages.lm_eval_short_answer,
    "chinese_span": passages.chinese_span,
    "letters": examinations.letters,
    "letters_or_formula": examinations.letters_or_formula,
    "first_number": retrieval.first_number,
    "inclusion": retrieval.inclusion,
    "answered": answers.answered,
    "verdict": verdicts.verdict,
}

VOTES: dict[str, Callable[[str], Hashable]] = {
    "number": numbers.parse_number,
    "lm_eval_strict_match": numbers.lm_eval_normal,
    "lm_eval_flexible_extract": numbers.lm_eval_normal,
    "qwen_last_digits": numbers.parse_number,
}
"""What two answers must have in common to be one vote; of other scorers their text."""

ITEM_SCORERS: dict[str, ItemScorer] = {
    "instructions": instructions.instructions,
    "letter": letters.letter,
    "qwen_chat_mmlu": letters.qwen_chat_mmlu,
    "qwen_chat_ceval": letters.qwen_chat_ceval,
}

MEASURES: dict[str, OptionMeasure] = {
    "argmax": options.argmax,
    "argmax_per_character": options.argmax_per_character,
    "argmax_per_byte": options.argmax_per_byte,
    "argmax_per_token": options.argmax_per_token,
}

TRANSCRIPT_READINGS: dict[str, TranscriptReading] = {
    "outcome": transcripts.outcome,
    "qwen_last_number": transcripts.qwen_last_number,
}

CUTS: dict[str, Cut] = {
    "indentation": programs.indentation,
    "braces": braces.braces,
    "whole": programs.whole,
    "program": programs.program,
    "qwen_blank_line": programs.qwen_blank_line,
    "qwen_chat": programs.qwen_chat,
}

CALL_READERS: dict[str, tool_calls.CallReader] = {
    "react": tool_calls.react,
    "qwen_react": tool_calls.qwen_react,
}


def find_scorer(name: str) -> Scorer:
    """The scorer of a name. Raises UserError for an unknown one."""
    if name not in SCORERS:
        raise UserError(f"scorer {name}: unknown; known: {_known({**SCORERS, **ITEM_SCORERS})}")
    return SCORERS[name]


def find_reader(name: str, folder: Path | None = None) -> ItemScorer:
    """What reads a reply to an item: a scorer of a name, or the function of a file in the task's
    folder, which may be of either kind. Raises UserError for an unknown one."""
    if name in ITEM_SCORERS:
        return ITEM_SCORERS[name]
    if folder is None or not own_file(name):
        scorer = find_scorer(name)
    else:
        function = own_function(name, folder, ("reply", "item"), ("reply", "target", "metric"))
        if len(inspect.signature(function).parameters) == 2:
            return function
        scorer = function
    return lambda reply, item: scorer(reply, item.target, item.metric)


def read(reply: str, item: Item) -> Score:
    """What the item's scorer makes of a reply. Raises UserError for an unknown one."""
    return find_reader(item.scorer, item.folder)(reply, item)


def find_reading(name: str, folder: Path | None = None) -> TranscriptReading:
    """The reading of a name, or the function of a file in the task's folder. Raises UserError for
    an unknown one."""
    if folder is not None and own_file(name):
        return own_function(name, folder, ("transcript", "target"))
    if name not in TRANSCRIPT_READINGS:
        known = ", ".join(TRANSCRIPT_READINGS)
        raise UserError(f"scorer {name}: unknown for transcripts; known: {known}")
    return TRANSCRIPT_READINGS[name]


def vote_of(scorer: str, answer: str) -> Hashable:
    """What an answer that a scorer read is a vote for."""
    return VOTES.get(scorer, str.strip)(answer)


def find_measure(name: str, folder: Path | None = None) -> OptionMeasure:
    """The measure of a name, or the function of a file in the task's folder. Raises UserError for
    an unknown one."""
    if folder is not None and own_file(name):
        return own_function(name, folder, ("options", "tokens"))
    if name not in MEASURES:
        raise UserError(f"scorer {name}: unknown for options; known: {_known(MEASURES)}")
    return MEASURES[name]


def find_cut(name: str, folder: Path | None = None) -> Cut:
    """The cut of a name, or the function of a file in the task's folder. Raises UserError for an
    unknown one."""
    if folder is not None and own_file(name):
        return own_function(name, folder, ("head", "reply", "name"))
    if name not in CUTS:
        raise UserError(f"scorer {name}: unknown for programs; known: {_known(CUTS)}")
    return CUTS[name]


def find_call_reader(name: str, folder: Path | None = None) -> tool_calls.CallReader:
    """The reader of calls of a name, or the function of a file in the task's folder. Raises
    UserError for an unknown one."""
    if folder is not None and own_file(name):
        return own_function(name, folder, ("reply", "ended"))
    if name not in CALL_READERS:
        raise UserError(f"scorer {name}: unknown for tools; known: {_known(CALL_READERS)}")
    return CALL_READERS[name]


def _known(names: Iterable[str]) -> str:
    return f"{', '.join(names)}; FILE.py:FUNCTION is one of the task's own"
