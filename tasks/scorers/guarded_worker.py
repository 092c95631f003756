"""The process behind guarded.py: answers lines of JSON until its input ends.

The heavy libraries are imported here and nowhere else: math-verify with sympy, and lm-eval's own
scorers of MATH and IFEval, which stand in its task folders.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

SECONDS = 1.0  # of processor time for a call
GRACE = 1  # seconds more until the kernel ends a call that no Python code can interrupt
MEMORY = 4 << 30  # bytes of address space


def math_equal(gold: str, found: str) -> bool:
    """Whether two LaTeX expressions say the same, by math-verify; its own timeouts, which need
    signals, are off."""
    from math_verify import parse, verify

    golds, answers = (parse(f"${text}$", parsing_timeout=None) for text in (gold, found))
    return bool(verify(golds, answers, timeout_seconds=None))


def minerva(reply: str, gold: str) -> list[Any]:
    """lm-eval's reading of a reply to MATH and whether it takes it for the gold answer, which may
    be a whole solution."""
    theirs = _lm_eval("minerva_math.utils")
    if "\\boxed" in gold:
        gold = theirs.remove_boxed(theirs.last_boxed_only_string(gold))
    answer = theirs.normalize_final_answer(theirs.get_unnormalized_answer(reply))
    equal = theirs.is_equiv(answer, theirs.normalize_final_answer(gold))
    return [None if answer == "[invalidanswer]" else answer, bool(equal)]


def followed(row: dict[str, Any], reply: str) -> dict[str, list[bool]]:
    """By lm-eval's checkers, whether a reply follows each instruction of a row of IFEval: as it
    stands, and after the leniency of `loose`."""
    _sentence_model()
    theirs = _lm_eval("ifeval.utils")
    asked = theirs.InputExample(
        key=0,
        instruction_id_list=row["instruction_id_list"],
        prompt=row["prompt"],
        kwargs=row["kwargs"],
    )
    return {
        "strict": theirs.test_instruction_following_strict(asked, reply).follow_instruction_list,
        "loose": theirs.test_instruction_following_loose(asked, reply).follow_instruction_list,
    }


@cache
def _lm_eval(module: str) -> ModuleType:
    """A module below lm-eval's task folder. The packages around it are not run: they take long."""
    if "lm_eval" not in sys.modules:
        found = importlib.util.find_spec("lm_eval")
        if found is None or not found.submodule_search_locations:
            raise ModuleNotFoundError("lm-eval is not installed")
        folder = Path(found.submodule_search_locations[0])
        for name, place in (("lm_eval", folder), ("lm_eval.tasks", folder / "tasks")):
            package = ModuleType(name)
            package.__path__ = [str(place)]
            sys.modules[name] = package
    return importlib.import_module(f"lm_eval.tasks.{module}")


@cache
def _sentence_model() -> tempfile.TemporaryDirectory[str] | None:
    """Put NLTK's English sentence model where NLTK looks for it, from the package that ships it;
    otherwise the checkers would download it. Languages are detected with a fixed seed."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    try:
        nltk.data.find("tokenizers/punkt_tab/english/")
        return None
    except LookupError:
        pass
    from punkt.data import english as model

    folder = tempfile.TemporaryDirectory()
    place = Path(folder.name) / "tokenizers" / "punkt_tab" / "english"
    place.mkdir(parents=True)
    tables = {
        "abbrev_types.txt": model.ABBREV_TYPES,
        "sent_starters.txt": model.SENT_STARTERS,
        "collocations.tab": ("\t".join(pair) for pair in model.COLLOCATIONS),
        "ortho_context.tab": (f"{word}\t{flags}" for word, flags in model.ORTHO_CONTEXT.items()),
    }
    for name, lines in tables.items():
        (place / name).write_text("\n".join(lines), encoding="utf-8")
    nltk.data.path.insert(0, folder.name)
    return folder


FUNCTIONS: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "math_equal": (math_equal, ("1", "x")),
    "minerva": (minerva, ("Final Answer: The final answer is $x$. I hope it is correct.", "1")),
    "followed": (followed, ({"prompt": "", "instruction_id_list": [], "kwargs": []}, "")),
}
"""By name, each with arguments to be tried first: imports are no part of a call's time."""


class _TooLong(BaseException):
    """No Exception: the libraries catch those, and go on."""


def _too_long(signum: int, frame: FrameType | None) -> None:
    raise _TooLong


def _outcome(function: str, arguments: list[Any]) -> tuple[str, Any]:
    called, first = FUNCTIONS[function]
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    try:
        if not arguments:
            called(*first)
            return "value", None
        used = resource.getrusage(resource.RUSAGE_SELF)
        most = int(used.ru_utime + used.ru_stime + SECONDS) + GRACE
        resource.setrlimit(resource.RLIMIT_CPU, (most, hard))
        signal.setitimer(signal.ITIMER_PROF, SECONDS, SECONDS / 10)
        return "value", called(*arguments)
    except _TooLong:
        return "failed", "it took too long"
    except Exception as error:  # libraries of this size raise anything
        return "failed", str(error).partition("\n")[0] or type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))


def main() -> None:
    """Answer `[function, *arguments]` until the input ends; without arguments, whether the function
    can be called. What libraries print goes nowhere."""
    logging.disable()
    answers = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    signal.signal(signal.SIGPROF, _too_long)
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        print(json.dumps(_outcome(function, arguments)), file=answers, flush=True)
