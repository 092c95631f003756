"""Conversations as sequences to fine-tune on (paper, section 3.1).

A conversation becomes ChatML ids with a mask of what is learnt; conversations are laid into
sequences of one length, several in one where they fit, or one in each, and never see one another.
Which one goes where depends on the seed alone. Knows nothing of models or of files' origins.

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
# What a tool returned: it stands in the assistant's turn, which goes on behind it.
OBSERVATION = "observation"
ROLES = ("system", "user", "assistant")
# Trimmed sequences are of few lengths, each of which torch.compile compiles for.
SHORTEST = 64
_ALPACA = re.compile(r"### Instruction:\n(.*?)\n\n(?:### Input:\n(.*?)\n\n)?### Response:", re.S)


def turns_of(
    row: dict[str, Any], where: str, question: Sequence[str] = (), answer: str | None = None
) -> Turns:
    """The turns of a row: `messages`, or a question with what belongs to it, and its answer.

    question, answer: the row's columns that hold them, where they have other names than a set of
    instructions gives them. A question in Alpaca's frame is taken out of it. Raises UserError
    naming the row for one that is neither, and as `checked` does.
    """
    if question and answer is not None:
        asked = " ".join(_written(row, name, where) for name in question)
        return checked([("user", asked), ("assistant", _written(row, answer, where))], where)
    if "messages" in row:
        return checked(messages_of(row["messages"], where, (*ROLES, OBSERVATION)), where)
    said = question_of(row)
    answered_as = next((name for name in ANSWER if isinstance(row.get(name), str)), None)
    if said is None or answered_as is None:
        raise UserError(f"{where}: needs messages, or {QUESTION[0]} and {ANSWER[0]}")
    return checked([("user", said), ("assistant", row[answered_as])], where)


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


def checked(turns: Sequence[tuple[str, str]], where: str) -> Turns:
    """The same turns. Raises UserError naming the row where nothing is answered, an answer is
    empty, or an observation stands behind no words of the assistant's."""
    if not any(role == "assistant" for role, _ in turns):
        raise UserError(f"{where}: no answer of an assistant in it; leave the row out")
    for number, (role, content) in enumerate(turns, 1):
        if role == "assistant" and not content.strip():
            raise UserError(f"{where}: turn {number}, the assistant's, is empty; leave the row out")
        if role == OBSERVATION and (number == 1 or turns[number - 2][0] != "assistant"):
            raise UserError(f"{where}: turn {number}, an observation, is behind no assistant's")
    return tuple(turns)


def _written(row: dict[str, Any], name: str, where: str) -> str:
    """A column's text; a number is written without an empty fraction."""
    value = row.get(name)
    if isinstance(value, float | int) and not isinstance(value, bool):
        return str(int(value)) if value == int(value) else str(value)
    if not isinstance(value, str):
        raise UserError(f"{where}: {name} is missing, or neither text nor number")
    return value


def messages_of(messages: Any, where: str, roles: Sequence[str] = ROLES) -> Turns:
    """A row's list of messages as turns. Raises UserError naming the row for anything else."""
    listed = messages if isinstance(messages, list) else [messages]
    return tuple(_turn(message, where, roles) for message in listed)


def _turn(message: Any, where: str, roles: Sequence[str]) -> tuple[str, str]:
    role = str(message.get("role")) if isinstance(message, dict) else ""
    if role not in roles or not isinstance(message.get("content"), str):
        raise UserError(f"{where}: a message needs role ({', '.join(roles)}) and content")
    return role, message["content"]


def learnt(turns: Turns, tokenizer: Tokenizer, mask: Mask) -> tuple[list[int], list[bool]]:
    """Ids of a conversation and, for each, whether it is learnt.

    paper: the assistant's words and the <|im_end|> behind them. released: these, and <|im_start|>,
    <|im_end|> and the line end behind it of every turn. An observation never is; it is encoded
    apart from the words around it, as it is met when a tool has answered.
    """
    parts = _continued(turns)
    chat = encode_chat([(role, "".join(texts)) for role, texts in parts], tokenizer)
    ids, wanted = list(chat.ids), [False] * len(chat.ids)
    # A system message of the model's own may stand in front, so turns are paired from their end.
    for span, (role, texts) in zip(reversed(chat.spans), reversed(parts), strict=False):
        if role != "assistant":
            continue
        spoken: list[int] = []
        said: list[bool] = []
        for number, text in enumerate(texts):
            encoded = tokenizer.encode(text)
            spoken += encoded
            said += [number % 2 == 0] * len(encoded)
        ids[span.start : span.end - 1] = spoken
        # The end is the assistant's own unless its turn breaks off behind an observation.
        wanted[span.start : span.end] = [*said, len(texts) % 2 == 1]
    if mask == "released":
        start, end = tokenizer.special(START), tokenizer.special(END)
        newline = len(tokenizer.encode("\n"))
        for at, token in enumerate(ids):
            if token == start:
                wanted[at] = True
            elif token == end:
                wanted[at : at + 1 + newline] = [True] * (1 + newline)
    return ids, wanted


def _continued(turns: Turns) -> list[tuple[str, list[str]]]:
    """ChatML's turns, each with its texts; an assistant's and observations take turns in one."""
    found: list[tuple[str, list[str]]] = []
    before = ""
    for role, content in turns:
        if role == OBSERVATION or (role == "assistant" and before == OBSERVATION):
            found[-1][1].append(content)
        else:
            found.append((role, [content]))
        before = role
    return found


@dataclass(frozen=True)
class Packed:
    """Conversations in sequences: ids_NL, targets_NL (IGNORED where nothing is learnt) and the
    number of each token's conversation, -1 behind the last.

    cut: conversations that are longer than a sequence and lost their end. left_out: those of which
    nothing that is learnt would be left.
    """

    ids_NL: Tensor
    targets_NL: Tensor
    documents_NL: Tensor
    cut: int
    left_out: int


def pack_conversations(
    encoded: Iterable[tuple[list[int], list[bool]]],
    length: int,
    filler: int,
    packing: bool = True,
) -> Packed:
    """Lay conversations into sequences, each into the first one with room for it.

    packing: off, each has a sequence to itself. One that is longer than a sequence is cut at its
    end; if nothing is learnt of what is left, it is left out. Raises UserError if that is so of
    all.
    """
    rows: list[list[tuple[list[int], list[bool]]]] = []
    room: list[int] = []
    cut = left_out = 0
    for whole_ids, whole_wanted in encoded:
        ids, wanted = whole_ids[:length], whole_wanted[:length]
        if not any(wanted[1:]):
            left_out += 1
            continue
        cut += len(whole_ids) > length
        # Only the newest rows are looked at: the search stays short, and little room is lost.
        newest = range(max(0, len(rows) - 64), len(rows)) if packing else ()
        row = next((row for row in newest if room[row] >= len(ids)), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(length)
        rows[row].append((ids, wanted))
        room[row] -= len(ids)
    if not rows:
        raise UserError("conversations: none of them has an answer within a sequence; lengthen it")
    shape = (len(rows), length)
    packed = Packed(
        torch.full(shape, filler), torch.full(shape, IGNORED), torch.full(shape, -1), cut, left_out
    )
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
    """What loop.Stage asks of a feed, of conversations in sequences; see feed.Feed.

    trimmed: for one conversation a sequence; what no token of a part needs is cut off behind.
    """

    packed: Packed
    seed: int
    trimmed: bool = False

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
            ids_BS, targets_BS, documents_BS = (
                x_NL[at] for x_NL in (packed.ids_NL, packed.targets_NL, packed.documents_NL)
            )
            if not self.trimmed:
                yield Part(ids_BS, targets_BS, documents_BS)
                continue
            longest = int((documents_BS != -1).sum(1).max())
            kept = min(self.length, max(SHORTEST, 1 << (longest - 1).bit_length()))
            # Nothing attends to what stands behind it, so there is nothing to hide.
            yield Part(ids_BS[:, :kept], targets_BS[:, :kept], None)

    def tokens_asked(self, places: Sequence[int]) -> int:
        """How many of their tokens are learnt."""
        return int(self._asked[torch.tensor(places)].sum())

    @cached_property
    def _asked(self) -> Tensor:
        return (self.packed.targets_NL != IGNORED).sum(1)
