"""Conversations as sequences to fine-tune on (paper, section 3.1).

A conversation becomes ChatML ids with a mask of what is learnt; conversations are laid into
sequences of one length, several in one where they fit, and never see one another. Which one goes
where depends on the seed alone. Knows nothing of models or of files' origins.

Shapes: N sequences of L tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.model.chatml import END, START, encode_chat
from qwen_eval.model.tokenizer import Tokenizer

from .cross_entropy import IGNORED
from .documents import ANSWER, MATTER, QUESTION
from .feed import Part, shuffled

Turns = tuple[tuple[str, str], ...]
# Which tokens are learnt: what the paper says, or what the released finetune.py does.
Mask = Literal["paper", "released"]
ROLES = ("system", "user", "assistant")
_ALPACA = re.compile(r"### Instruction:\n(.*?)\n\n(?:### Input:\n(.*?)\n\n)?### Response:", re.S)


def turns_of(row: dict[str, Any], where: str) -> Turns:
    """The turns of a row: `messages`, or a question with what belongs to it, and its answer.

    Raises UserError naming the row for one that is neither, for an unknown role, and for a
    conversation in which nothing is answered.
    """
    if "messages" in row:
        turns = [*messages_of(row["messages"], where)]
    else:
        question = question_of(row)
        answer = next((row[name] for name in ANSWER if isinstance(row.get(name), str)), None)
        if question is None or answer is None:
            raise UserError(f"{where}: needs messages, or {QUESTION[0]} and {ANSWER[0]}")
        turns = [("user", question), ("assistant", answer)]
    if not any(role == "assistant" and content.strip() for role, content in turns):
        raise UserError(f"{where}: no answer of an assistant in it")
    return tuple(turns)


def question_of(row: dict[str, Any]) -> str | None:
    """A row's question with what belongs to it, None where there is none. One in Alpaca's frame is
    taken out of it."""
    question = next((row[name] for name in QUESTION if isinstance(row.get(name), str)), None)
    if question is None:
        return None
    if framed := _ALPACA.search(question):
        question = "\n".join(part for part in framed.groups() if part)
    matter = [row[name] for name in MATTER if isinstance(row.get(name), str) and row[name]]
    return "\n".join([question, *matter])


def messages_of(messages: Any, where: str) -> Turns:
    """A row's list of messages as turns. Raises UserError naming the row for anything else."""
    listed = messages if isinstance(messages, list) else [messages]
    return tuple(_turn(message, where) for message in listed)


def _turn(message: Any, where: str) -> tuple[str, str]:
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ROLES or not isinstance(message.get("content"), str):
        raise UserError(f"{where}: a message needs role ({', '.join(ROLES)}) and content")
    return role, message["content"]


def learnt(turns: Turns, tokenizer: Tokenizer, mask: Mask) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and, for each, whether it is learnt.

    paper: the assistant's words and the <|im_end|> behind them. released: these, and <|im_start|>,
    <|im_end|> and the line ends of every turn.
    """
    chat = encode_chat(turns, tokenizer)
    wanted = [False] * len(chat.ids)
    for span in chat.spans:
        if span.role == "assistant":
            wanted[span.start : span.end] = [True] * (span.end - span.start)
    if mask == "released":
        marks = {tokenizer.special(START), tokenizer.special(END)}
        for at, token in enumerate(chat.ids):
            wanted[at] = wanted[at] or token in marks
        for span in chat.spans:
            wanted[span.start - 1] = wanted[span.end] = True  # the line ends of header and turn
    return list(chat.ids), wanted


@dataclass(frozen=True)
class Packed:
    """Conversations in sequences: ids_NL, targets_NL (IGNORED where nothing is learnt) and the
    number of each token's conversation."""

    ids_NL: Tensor
    targets_NL: Tensor
    documents_NL: Tensor


def pack_conversations(
    encoded: Iterable[tuple[list[int], list[bool]]], length: int, filler: int
) -> Packed:
    """Lay conversations into sequences, each into the first one with room for it.

    One that is longer than a sequence is cut at its end; if nothing is learnt of what is left, it
    is left out. Raises UserError if that is so of all.
    """
    rows: list[list[tuple[list[int], list[bool]]]] = []
    room: list[int] = []
    for whole_ids, whole_wanted in encoded:
        ids, wanted = whole_ids[:length], whole_wanted[:length]
        if not any(wanted[1:]):
            continue
        # Only the newest rows are looked at: the search stays short, and little room is lost.
        fits = (row for row in range(max(0, len(rows) - 64), len(rows)) if room[row] >= len(ids))
        row = next(fits, len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append((ids, wanted))
        room[row] -= len(ids)
    if not rows:
        raise UserError("conversations: none of them has an answer within a sequence; lengthen it")
    shape = (len(rows), length)
    packed = Packed(torch.full(shape, filler), torch.full(shape, IGNORED), torch.full(shape, -1))
    for number, row_of in enumerate(rows):
        start = 0
        for document, (ids, wanted) in enumerate(row_of):
            end = start + len(ids)
            packed.ids_NL[number, start:end] = torch.tensor(ids)
            packed.documents_NL[number, start:end] = document
            # The token before the one that is learnt is where it is asked for.
            asked = torch.where(torch.tensor(wanted[1:]), torch.tensor(ids[1:]), IGNORED)
            packed.targets_NL[number, start : end - 1] = asked
            start = end
    return packed


@dataclass(frozen=True)
class ConversationFeed:
    """What loop.Stage asks of a feed, of packed conversations; see feed.Feed."""

    packed: Packed
    seed: int

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return self.packed.ids_NL.shape[1]

    def __len__(self) -> int:
        return len(self.packed.ids_NL)

    def places(self, first: int, count: int) -> list[int]:
        """Sequences seen from the first-th on, over as many epochs as that takes."""
        return shuffled(first, count, len(self), self.seed)

    def parts(self, places: Sequence[int], size: int) -> Iterator[Part]:
        """The sequences at these places, `size` at a time."""
        for start in range(0, len(places), size):
            at = torch.tensor(places[start : start + size])
            packed = self.packed
            yield Part(packed.ids_NL[at], packed.targets_NL[at], packed.documents_NL[at])

    def tokens_asked(self, places: Sequence[int]) -> int:
        """How many of their tokens are learnt."""
        return int(self._asked[torch.tensor(places)].sum())

    @cached_property
    def _asked(self) -> Tensor:
        return (self.packed.targets_NL != IGNORED).sum(1)
