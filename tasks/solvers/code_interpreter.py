"""Let a model write code, run it, show it what came out, and so on to its final answer.

ReAct (Yao et al. 2022, arXiv 2210.03629) with the one tool `code_interpreter`, as the benchmark of
the Qwen report asks it: everything stands in one turn of the assistant's, which goes on behind each
observation. Knows nothing of what a right answer is: scorers/transcripts.py.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace

from qwen_eval.types import (
    ExecuteRequest,
    GenerateRequest,
    Item,
    Message,
    Prompt,
    Response,
    Score,
    Session,
    Solver,
)

from ..interpreter import module_cell
from ..scorers import find_reading
from ..scorers.transcripts import Transcript

PACKAGES = ("numpy", "pandas", "sympy", "matplotlib")
CELL_SECONDS, CHECK_SECONDS = 10.0, 30.0
OBSERVED = 2_000  # letters of an observation; the middle of a longer one is left out
_ACTION = re.compile(r"(?:\A|\n)[ \t]*Action:[^\n]*\n[ \t]*Action Input:")
_FENCED = re.compile(r"```[ \t]*(?:python3?|py)?[ \t]*\r?\n?(.*?)(?:```|\Z)", re.DOTALL)
_FINAL = "Final Answer:"
_FIGURES = "figure_checks"


def code_interpreter(item: Item) -> Solver:
    """Up to `item.cells` cells and the final answer.

    `executable`: 1 where the first cell ran to its end, 0 where it did not and where no code was
    written; later cells, which may repair it, do not count. `correct`: what the recipe's scorer
    says, where the row has a gold answer or checks; 0 where one more cell was asked for. Checks run
    in the same session, as one more cell. `correct_easy`, `correct_hard`: the same, by what a row
    says of itself. `detail`: how many cells ran and failed, how many figures they left, and how the
    conversation ended.
    """
    row = item.sample.row
    checks = row.get("check", "")
    session = Session(
        PACKAGES,
        {name: text.encode() for name, text in row.get("files", {}).items()},
        module_cell(_FIGURES) if _FIGURES in checks else "",
    )
    written, cells, final = "", list[Response](), None
    ended, in_time = "final answer", True
    while True:
        reply = yield GenerateRequest(
            _going_on(item.prompt, written), item.decoding, _reference(item, len(cells))
        )
        said, code = read_action(reply.text)
        written += said
        if code is None:
            _, marked, behind = said.rpartition(_FINAL)
            final = behind.strip() if marked else None
            ended = ended if marked else "neither code nor final answer"
            break
        if len(cells) == item.cells:
            ended, in_time = f"more than {item.cells} cells", False
            break
        cells.append((yield ExecuteRequest(session, code, CELL_SECONDS)))
        written += f"\nObservation: {observation(cells[-1])}\nThought:"
        if not item.repair and (not cells[-1].passed or len(cells) == item.cells):
            ended = "last cell"
            break
    verdict = None
    if checks and cells:
        verdict = yield ExecuteRequest(session, checks, CHECK_SECONDS)
    output = "\n".join(cell.text for cell in cells)
    checked = bool(verdict is not None and verdict.passed) if checks else None
    transcript = Transcript(written, output, final, checked)
    reading = find_reading(item.scorer, item.folder)(transcript, item.target)
    values = {"executable": float(bool(cells and cells[0].passed))}
    if reading.correct is not None:
        values["correct"] = float(reading.correct and in_time)
        if "difficulty" in row:  # no group: problems of one resemble each other no more than others
            values[f"correct_{row['difficulty']}"] = values["correct"]
    detail = {
        "cells": len(cells),
        "failed": sum(not cell.passed for cell in cells),
        "figures": sum(len(cell.figures) for cell in cells),
        "ended": ended,
    }
    if verdict is not None and verdict.fault:
        detail["check"] = verdict.fault.strip().rpartition("\n")[2]
    nothing = not cells and final is None
    return Score(values, reading.answer, "no_answer" if nothing else "scored", detail)


def read_action(reply: str) -> tuple[str, str | None]:
    """A reply up to the end of the code that it wants run, and that code; the whole reply and None
    where it wants none. Of several actions the last counts; its tool's name is not looked at.

    Code stands in triple backticks, or is all that follows, or the `code` of a JSON object.
    """
    begins = [action.end() for action in _ACTION.finditer(reply)]
    if not begins:
        return reply, None
    fenced = _FENCED.search(reply, begins[-1])
    code, end = (fenced[1], fenced.end()) if fenced else (reply[begins[-1] :], len(reply))
    if code.lstrip().startswith("{"):
        # What is no such object may be a set or a dictionary, and code as well.
        with suppress(ValueError, KeyError, TypeError, RecursionError):
            code = str(json.loads(code)["code"])
    return (reply[:end].rstrip(), code) if code.strip() else (reply, None)


def observation(cell: Response) -> str:
    """What a model is shown of a cell."""
    drawn = f"[{len(cell.figures)} figures]" if cell.figures else ""
    shown = "\n".join(filter(None, (cell.text.rstrip(), cell.fault.rstrip(), drawn)))
    if len(shown) > OBSERVED:
        shown = f"{shown[: OBSERVED // 2]}\n[...]\n{shown[-OBSERVED // 2 :]}"
    return shown or "[no output]"


def _going_on(prompt: Prompt, written: str) -> Prompt:
    if not written:
        return prompt
    if prompt.messages:
        return replace(prompt, messages=(*prompt.messages, Message("assistant", written)))
    return replace(prompt, text=prompt.text + written)


def _reference(item: Item, cells: int) -> str:
    """A reply that solves the problem: first the code, then the answer."""
    if not cells:
        return (
            "Thought: This takes some code.\nAction: code_interpreter\nAction Input:\n"
            f"```py\n{item.reference}\n```\n"
        )
    return f" I now know the final answer\n{_FINAL} {item.target or 'done'}"
