"""Prompts to be answered: a conversation up to a user's turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, read_jsonl, text_hash

from ..conversations import Turns
from ..documents import MATTER, QUESTION

ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class Prompt:
    """`id` is a hash of the turns, the last of which is the user's."""

    id: str
    turns: Turns

    @property
    def asked(self) -> str:
        """All that the user says."""
        return "\n\n".join(content for role, content in self.turns if role == "user")


def prompt_of(row: dict[str, Any], where: str) -> Prompt:
    """The prompt of a row: its `messages` without the last answer, or a question with what belongs
    to it. Answers that a row has besides are not read.

    Raises UserError naming the row for one without a question.
    """
    if "messages" in row:
        if not isinstance(row["messages"], list):
            raise UserError(f"{where}: messages is not a list of turns")
        turns = [_turn(message, where) for message in row["messages"]]
        while turns and turns[-1][0] != "user":
            turns.pop()
    else:
        question = next((row[name] for name in QUESTION if isinstance(row.get(name), str)), "")
        matter = [row[name] for name in MATTER if isinstance(row.get(name), str) and row[name]]
        turns = [("user", "\n".join([question, *matter]))] if question else []
    if not turns or not turns[-1][1].strip():
        raise UserError(
            f"{where}: no question; needs messages with a user's turn, or {QUESTION[0]}"
        )
    return Prompt(text_hash(canonical_json(turns)), tuple(turns))


def _turn(message: Any, where: str) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES or not isinstance(message.get("content"), str):
        raise UserError(f"{where}: a message needs role ({', '.join(ROLES)}) and content")
    return role, message["content"]


def read_prompts(files: Sequence[Path]) -> tuple[list[Prompt], int]:
    """The prompts of JSON lines, each once, and how many stood there again.

    Raises UserError naming file and row for one that is none, and where there are none at all.
    """
    found: dict[str, Prompt] = {}
    rows = 0
    for path in files:
        for number, row in enumerate(read_jsonl(path), 1):
            prompt = prompt_of(row, f"{path}, row {number}")
            found.setdefault(prompt.id, prompt)
            rows += 1
    if not found:
        raise UserError(f"{', '.join(map(str, files))}: no prompt in it")
    return list(found.values()), rows - len(found)
