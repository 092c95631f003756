"""What a policy is asked while it learns: conversations up to an answer, without the answer.

A part of them is held out by a hash of the first question, so that whoever judges the policy later
finds what it has never been trained on. Knows nothing of models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, read_jsonl, text_hash
from qwen_eval.model.chatml import encode_chat
from qwen_eval.model.tokenizer import Tokenizer
from qwen_eval.schema import Closed

from .conversations import OBSERVATION, ROLES, Turns, messages_of, question_of
from .data.decontaminate import KnownTests
from .data.recipe import find_files
from .documents import QUESTION
from .preferences import dialogue, place_of

# Characters of a question by which a person knows it again.
_SHOWN = 60


class Prompts(Closed):
    """JSON lines of one kind: preferences, conversations or instructions; answers are not read."""

    files: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class Query:
    """Ids up to where the answer begins. named: for a person."""

    ids: tuple[int, ...]
    named: str


@dataclass
class Queries:
    """All that is asked, each once, and what was left out: by set, by test set, for its length."""

    trained: list[Query] = field(default_factory=list)
    held_out: list[Query] = field(default_factory=list)
    kept: Counter[str] = field(default_factory=Counter)
    contaminated: Counter[str] = field(default_factory=Counter)
    repeated: int = 0
    too_long: int = 0

    def digest(self) -> str:
        """A hash of all that is trained on."""
        return text_hash(canonical_json([query.ids for query in self.trained]))


def gather_queries(
    prompts: Mapping[str, Prompts],
    held_out: float,
    data: Path,
    tests: KnownTests,
    tokenizer: Tokenizer,
    longest: int,
) -> Queries:
    """Read all queries but those that share an n-gram with a test set, and those of more than
    `longest` tokens, which would leave no room for a reply.

    Raises UserError naming file and row for one that asks nothing, and if none is left.
    """
    found = Queries()
    known: set[Turns] = set()
    for name, of in prompts.items():
        for path in find_files(of.files, data, f"prompts {name}"):
            for turns, where in _rows(path):
                if turns in known:
                    found.repeated += 1
                    continue
                known.add(turns)
                test = tests.found_in("\n\n".join(content for _, content in turns))
                if test is not None:
                    found.contaminated[test] += 1
                    continue
                ids = encode_chat(turns, tokenizer, add_generation_prompt=True).ids
                if len(ids) > longest:
                    found.too_long += 1
                    continue
                words = " ".join(turns[-1][1].split())[:_SHOWN]
                side = found.held_out if place_of(turns) >= 1 - held_out else found.trained
                side.append(Query(ids, f"{where} ({words!r})"))
                found.kept[name] += 1
    if not found.trained:
        why = f"{found.too_long} have more than {longest} tokens" if found.too_long else "none left"
        raise UserError(f"prompts: nothing to train on ({why}); name other files")
    return found


def query_of(row: dict[str, Any], where: str) -> Turns:
    """The turns of a row up to its last answer: of `messages`, of a question with what belongs to
    it, or of a dialogue `chosen` of "Human:" and "Assistant:".

    Raises UserError naming the row for one that is none of these, in which a tool has a turn, or
    in which a user asks nothing at last.
    """
    if "messages" in row:
        turns = list(messages_of(row["messages"], where, (*ROLES, OBSERVATION)))
        while turns and turns[-1][0] == "assistant":
            turns.pop()
    elif (question := question_of(row)) is not None:
        turns = [("user", question)]
    elif isinstance(row.get("chosen"), str):
        turns = list(dialogue(row["chosen"], where)[0])
    else:
        raise UserError(f"{where}: needs messages, {' or '.join(QUESTION)}, or a dialogue chosen")
    if any(role == OBSERVATION for role, _ in turns):
        raise UserError(f"{where}: a tool's observations cannot be asked; leave the row out")
    if not turns or turns[-1][0] != "user" or not turns[-1][1].strip():
        raise UserError(f"{where}: no user asks anything before the last answer")
    return tuple(turns)


def _rows(path: Path) -> Iterator[tuple[Turns, str]]:
    for number, row in enumerate(read_jsonl(path), 1):
        where = f"{path}, row {number}"
        yield query_of(row, where), where
