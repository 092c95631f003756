"""Hide a needle in a haystack, so that the prompt has a length in tokens, and ask for it."""

import re
from bisect import bisect_left
from collections.abc import Generator
from dataclasses import dataclass, replace

from qwen_eval.types import (
    CountRequest,
    GenerateRequest,
    Item,
    Prompt,
    Request,
    Response,
    Solver,
)

from ..scorers import read

ROUNDS = 16  # of counting; a few are the rule
SLACK = 4  # tokens that a prompt may fall short of its length
WORD = 40  # letters of the longest word
_SENTENCE = re.compile(r"[.!?]['\"”’)]*\s+|[。！？][”’」』）]*|\n+")
_BEGUN = re.compile(r"[!-~\u00c0-\u024f\u2013-\u201d]*\Z")  # a word, with the signs at its ends


@dataclass(frozen=True)
class _Built:
    """A prompt, its tokens, and where the needle stands: letters from the prompt's beginning, and
    its depth in the haystack from 0 to 1. `how`: how tokens were counted, if not by the model's."""

    text: str
    offset: int
    depth: float
    tokens: int = 0
    how: str = ""


def needle(item: Item) -> Solver:
    """Requests that count tokens, then one that asks.

    The prompt is the item's prefix, the haystack, and the item's text. With the reply and a start
    token it has at most the recipe's length. The needle stands at the end of the sentence that lies
    nearest to its depth. `detail` says how long the prompt became and where the needle is.
    """
    assert item.window is not None
    built = yield from _filled(item, item.window.length - item.decoding.max_tokens - 1)
    reply = yield GenerateRequest(Prompt(built.text), item.decoding, reference=item.reference)
    detail = {"prompt_tokens": built.tokens, "depth": built.depth, "offset": built.offset}
    how = {"tokens_are": built.how} if built.how else {}
    score = read(reply.text, item)
    return replace(score, detail=detail | how)


def _filled(item: Item, room: int) -> Generator[Request, Response, _Built]:
    """The longest prompt of at most `room` tokens, give or take SLACK, by regula falsi over the
    letters of the haystack."""
    assert item.hidden is not None
    best = empty = yield from _counted(_build(item, 0))
    if empty.tokens > room:
        raise ValueError(
            f"needle and question take {empty.tokens} tokens, there is room for {room}"
        )
    fits, over = 0, len(item.hidden.haystack) + 1
    letters = 4 * (room - empty.tokens)
    for _ in range(ROUNDS):
        letters = min(max(letters, fits + 1), over - 1)
        if letters <= fits:
            break
        built = yield from _counted(_build(item, letters))
        if built.tokens <= room:
            fits, best = letters, built
            if room - built.tokens <= SLACK:
                break
        else:
            over = letters
        a_token = letters / max(built.tokens - empty.tokens, 1)
        letters += round((room - SLACK // 2 - built.tokens) * a_token)
    return best


def _counted(built: _Built) -> Generator[Request, Response, _Built]:
    reply = yield CountRequest((built.text,))
    return replace(built, tokens=reply.token_counts[0], how=reply.text)


def _build(item: Item, letters: int) -> _Built:
    """The prompt with so many letters of the haystack, less the word that is begun at their end."""
    hidden = item.hidden
    assert hidden is not None
    begun = _BEGUN.search(hidden.haystack[max(letters - WORD, 0) : letters])
    hay = hidden.haystack[: letters - len(begun[0] if begun else "")]
    ends = [0, *(match.end() for match in _SENTENCE.finditer(hay)), len(hay)]
    wanted = hidden.depth * len(hay)
    place = bisect_left(ends, wanted)
    at = min(ends[max(place - 1, 0) : place + 1], key=lambda end: abs(end - wanted))
    before = item.prompt.prefix + hay[:at]
    text = before + hidden.needle + hay[at:] + item.prompt.text
    return _Built(text, len(before), at / len(hay) if hay else hidden.depth)
