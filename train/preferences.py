"""Pairs of answers of which one is preferred, as sequences to judge (paper, section 3.2.1).

A pair is a prompt, the turns up to an answer, and two answers to it. Each makes a conversation in
ChatML that ends with the answer's <|im_end|>, and there its reward is read. Knows nothing of models
or losses.

Shapes: P pairs as B = 2P sequences of S tokens, the preferred ones first.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.fileio import text_hash
from qwen_eval.model.chatml import encode_chat
from qwen_eval.model.tokenizer import Tokenizer

from .conversations import Turns, messages_of
from .feed import shuffled

_SPEAKER = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
# Characters of a prompt by which a person knows it again.
_SHOWN = 60


class FaultyPairError(UserError):
    """A row that is a pair and says nothing of what is preferred, or is too long to be read.

    cause: what is wrong, the same words for all such rows.
    """

    def __init__(self, where: str, cause: str, detail: str = "") -> None:
        super().__init__(
            f"{where}: {cause}{detail}; mend the row, or leave such rows out with `faulty: "
            "leave_out`"
        )
        self.cause = cause


@dataclass(frozen=True)
class Pair:
    """Two answers to the same turns. margin: by how much the reward of `chosen` should be higher,
    0 where nothing is said. where: file and row."""

    prompt: Turns
    chosen: str
    rejected: str
    margin: float
    where: str

    @property
    def named(self) -> str:
        """For a person: where it stands, and how its last question begins."""
        words = " ".join(self.prompt[-1][1].split())
        return f"{self.where} ({words[:_SHOWN]!r})"


def pair_of(row: dict[str, Any], where: str) -> Pair:
    """The pair of a row: `chosen` and `rejected` answers to a `prompt` or to `messages`, or without
    either two whole dialogues of "Human:" and "Assistant:"; optionally with a `margin`.

    Raises FaultyPairError for answers that are equal or empty and for dialogues that part before
    the last answer, UserError for what is no pair.
    """
    answers = [row.get(name) for name in ("chosen", "rejected")]
    margin = row.get("margin")
    margin = 0.0 if margin is None else margin
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not math.isfinite(margin):
        raise UserError(f"{where}: margin is no number")
    if not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{where}: needs the texts chosen and rejected")
    chosen, rejected = (str(answer) for answer in answers)
    if "messages" in row:
        prompt = messages_of(row["messages"], where)
    elif "prompt" in row:
        if not isinstance(row["prompt"], str):
            raise UserError(f"{where}: prompt is no text")
        prompt = (("user", row["prompt"]),)
    else:
        (prompt, chosen), (other, rejected) = (dialogue(text, where) for text in (chosen, rejected))
        if prompt != other:
            raise FaultyPairError(where, "the dialogues part before the last answer")
    if not prompt or prompt[-1][0] != "user":
        raise UserError(f"{where}: the turns before the answers must end with a user's")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer.strip():
            raise FaultyPairError(where, "an empty answer", f" ({name})")
    if chosen.strip() == rejected.strip():
        raise FaultyPairError(where, "chosen and rejected are equal")
    return Pair(prompt, chosen, rejected, float(margin), where)


def dialogue(text: str, where: str) -> tuple[Turns, str]:
    """The turns of a dialogue as Anthropic writes them, and its last answer. Raises UserError."""
    begin, *parts = _SPEAKER.split(text)
    turns = [(_ROLES[who], said.strip()) for who, said in zip(parts[::2], parts[1::2], strict=True)]
    if begin.strip() or not turns or turns[-1][0] != "assistant":
        raise UserError(
            f"{where}: needs prompt or messages, or dialogues of Human: and Assistant: that end "
            "with an assistant's turn"
        )
    return tuple(turns[:-1]), turns[-1][1]


def place_of(prompt: Turns) -> float:
    """A number in [0, 1) that depends on the first question alone, by which prompts are divided:
    all that goes on from the same question falls on the same side."""
    first = next((content for role, content in prompt if role == "user"), "")
    return int(text_hash(first.strip()), 16) / 16**16


def judged(prompt: Turns, answer: str, tokenizer: Tokenizer) -> tuple[list[int], int]:
    """A conversation up to the <|im_end|> of its last answer, and where that answer begins: the
    reward is read at the last id."""
    chat = encode_chat([*prompt, ("assistant", answer)], tokenizer)
    return list(chat.ids[: chat.spans[-1].end]), chat.spans[-1].start


@dataclass(frozen=True)
class EncodedPair:
    """A pair as ids, both in int32 and ending with <|im_end|>. answer_at: where answers begin."""

    pair: Pair
    chosen_ids: Tensor
    rejected_ids: Tensor
    answer_at: int

    @property
    def tokens(self) -> tuple[int, int]:
        """Of the two answers, without their <|im_end|>."""
        ends = len(self.chosen_ids), len(self.rejected_ids)
        return ends[0] - self.answer_at - 1, ends[1] - self.answer_at - 1


def encode_pair(pair: Pair, tokenizer: Tokenizer, length: int) -> EncodedPair:
    """Raises FaultyPairError for one of more than `length` tokens: without its end an answer has no
    reward."""
    (chosen, answer_at), (rejected, _) = (
        judged(pair.prompt, answer, tokenizer) for answer in (pair.chosen, pair.rejected)
    )
    detail = f", which is {length}"
    if answer_at >= length:
        raise FaultyPairError(pair.where, "its prompt is longer than the context", detail)
    if max(len(chosen), len(rejected)) > length:
        raise FaultyPairError(pair.where, "prompt and answer are longer than the context", detail)
    ids = [torch.tensor(each, dtype=torch.int32) for each in (chosen, rejected)]
    return EncodedPair(pair, ids[0], ids[1], answer_at)


def padded(sequences: Sequence[Tensor], length: int | None = None) -> tuple[Tensor, Tensor]:
    """Sequences as ids_BS, filled up behind their ends to the longest one or to `length`, and the
    place of each one's last token, ends_B. What is filled in stands behind all that is read."""
    ends_B = torch.tensor([len(ids) - 1 for ids in sequences])
    ids_BS = torch.zeros(len(sequences), length or int(ends_B.max()) + 1, dtype=torch.int64)
    for row, ids in enumerate(sequences):
        ids_BS[row, : len(ids)] = ids
    return ids_BS, ends_B


@dataclass(frozen=True)
class PairPart:
    """Pairs that one process computes at a time. ends_B: where rewards are read. names_P: for a
    person."""

    ids_BS: Tensor
    ends_B: Tensor
    margins_P: Tensor
    names_P: tuple[str, ...]


@dataclass(frozen=True)
class PairFeed:
    """What loop.Stage asks of a feed, of pairs; see feed.Sequences.

    A step is a number of pairs. fill: tokens that every sequence is filled up to, None for those of
    the longest that is computed with it.
    """

    pairs: Sequence[EncodedPair]
    seed: int
    fill: int | None = None

    @cached_property
    def length(self) -> int:
        """Tokens of a pair on average, rounded up, by which what was read is counted."""
        return -(-sum(len(p.chosen_ids) + len(p.rejected_ids) for p in self.pairs) // len(self))

    def __len__(self) -> int:
        return len(self.pairs)

    def places(self, first: int, count: int) -> list[int]:
        """Pairs seen from the first-th on, over as many epochs as that takes."""
        return shuffled(first, count, len(self), self.seed)

    def parts(self, places: Sequence[int], size: int) -> Iterator[PairPart]:
        """The pairs at these places, `size` at a time."""
        for start in range(0, len(places), size):
            found = [self.pairs[place] for place in places[start : start + size]]
            ids = [each.chosen_ids for each in found] + [each.rejected_ids for each in found]
            margins_P = torch.tensor([each.pair.margin for each in found])
            names_P = tuple(each.pair.named for each in found)
            yield PairPart(*padded(ids, self.fill), margins_P, names_P)

    def tokens_asked(self, places: Sequence[int]) -> int:
        """Pairs: each asks for one number, and a loss is their mean."""
        return len(places)
