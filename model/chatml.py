"""ChatML to ids (technical report §2.2, §3.1), with the place of every turn.

`<|im_start|>role\\ncontent<|im_end|>\\n` for each turn. Control tokens come from here only: what
looks like one inside a content is encoded as text. Header and content are encoded apart, as
generation meets them: a reply begins after `<|im_start|>assistant\\n`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .tokenizer import Tokenizer

START, END = "<|im_start|>", "<|im_end|>"


@dataclass(frozen=True, slots=True)
class Span:
    """Ids [start, end) of one turn's content with its closing <|im_end|>: for an assistant's turn,
    exactly what the model has to write."""

    role: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class ChatIds:
    """A conversation as ids, and its turns in order."""

    ids: tuple[int, ...]
    spans: tuple[Span, ...]


def encode_chat(
    turns: Sequence[tuple[str, str]],
    tokenizer: Tokenizer,
    *,
    system_default: bool = True,
    add_generation_prompt: bool = False,
) -> ChatIds:
    """Ids of (role, content) turns.

    system_default: begin with the model's own system message if the turns have none.
    add_generation_prompt: end with the header of an assistant's turn.
    Raises UserError if the tokenizer has no ChatML tokens.
    """
    start, end = tokenizer.special(START), tokenizer.special(END)
    newline = tokenizer.encode("\n")
    if system_default:
        turns = _with_system(turns, tokenizer)
    ids: list[int] = []
    spans = []
    for role, content in turns:
        ids += [start, *tokenizer.encode(role + "\n")]
        begin = len(ids)
        ids += [*tokenizer.encode(content), end]
        spans.append(Span(role, begin, len(ids)))
        ids += newline
    if add_generation_prompt:
        ids += [start, *tokenizer.encode("assistant\n")]
    return ChatIds(tuple(ids), tuple(spans))


def chat_text(
    turns: Sequence[tuple[str, str]], tokenizer: Tokenizer, *, goes_on: bool = False
) -> str:
    """The turns, with the model's own system message, as a text with control tokens written out.

    For programs that know texts only: whoever encodes it must read control tokens, and then cannot
    tell those of a content from ours. goes_on: the last turn is left open, to be continued; else
    the header of an assistant's turn follows it. Raises UserError as encode_chat does."""
    for name in (START, END):
        tokenizer.special(name)
    texts = [f"{START}{role}\n{content}{END}\n" for role, content in _with_system(turns, tokenizer)]
    whole = "".join(texts)
    return whole.removesuffix(f"{END}\n") if goes_on else f"{whole}{START}assistant\n"


def _with_system(
    turns: Sequence[tuple[str, str]], tokenizer: Tokenizer
) -> Sequence[tuple[str, str]]:
    if tokenizer.default_system and not (turns and turns[0][0] == "system"):
        return [("system", tokenizer.default_system), *turns]
    return turns
