"""Prompts to ids, without reading a shared prefix again for every sample.

Byte-level tokenizers first cut a text into words; between an ASCII letter and a space that begins
the next word there is always such a cut, whatever stands around it. So a text may be encoded in
two parts there, and the part that samples share is encoded once. Tokenizers that do not work so
(`splits_at_spaces` false) get every text whole.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

from qwen_eval.types import CountRequest, PerplexityRequest, Response

_CUT = re.compile(r"(?<=[A-Za-z])(?= [A-Za-z])")
_TEXTS = 128  # texts whose ids are kept: a book is read in many parts
_TAIL = 300  # characters searched for a cut; one is nearly always found within a few words


class TextEncoder(Protocol):
    """The part of a tokenizer that is needed here."""

    splits_at_spaces: bool

    def encode(self, text: str) -> list[int]:
        """Text to ids."""
        ...


class PromptEncoder:
    """Encodes prefix + text (+ continuation) exactly as one text would be encoded."""

    def __init__(self, tokenizer: TextEncoder) -> None:
        self._tokenizer = tokenizer
        self._stable = lru_cache(maxsize=4096)(self._encode_stable)
        self.length = lru_cache(maxsize=4096)(self._length)
        self._text_ids = lru_cache(_TEXTS)(lambda text: array("i", tokenizer.encode(text)))

    def part(self, request: PerplexityRequest) -> array[int]:
        """The ids of the part of a text that is to be read; the whole text is encoded once."""
        end = None if request.length is None else request.first + request.length
        return self._text_ids(request.text)[request.first : end]

    def count(self, request: CountRequest) -> Response:
        """How many ids each text has."""
        return Response(token_counts=tuple(len(self._text_ids(text)) for text in request.texts))

    def encode(self, prefix: str, text: str) -> list[int]:
        """Ids of prefix + text."""
        ids, rest = self._stable(prefix)
        return ids + self._tokenizer.encode(rest + text)

    def encode_options(
        self, prefix: str, text: str, options: Sequence[str]
    ) -> tuple[list[int], list[list[int]]]:
        """Ids of the prompt, and of each continuation behind it.

        The seam is lm-evaluation-harness's: trailing spaces of the prompt move to the continuation,
        both are encoded joined, and cut at the length of the prompt encoded alone.
        """
        stripped = (prefix + text).rstrip()
        moved = (prefix + text)[len(stripped) :]
        if len(moved) > len(text):
            prefix, text = stripped, ""
        else:
            text = text[: len(text) - len(moved)]
        head, rest = self._stable(prefix)
        body, tail = self._encode_stable(rest + text)
        head = head + body
        prompt = head + self._tokenizer.encode(tail)
        joined = [head + self._tokenizer.encode(tail + moved + option) for option in options]
        return prompt, [ids[len(prompt) :] for ids in joined]

    def _length(self, prefix: str) -> int:
        """How many ids a prefix has, give or take the one at its seam."""
        ids, rest = self._stable(prefix)
        return len(ids) + len(self._tokenizer.encode(rest))

    def _encode_stable(self, text: str) -> tuple[list[int], str]:
        """Ids up to the last cut, and the text behind it; no ids if there is no cut."""
        if not self._tokenizer.splits_at_spaces:
            return [], text
        start = max(0, len(text) - _TAIL)
        cuts = [match.start() for match in _CUT.finditer(text, start)]
        if not cuts:
            return [], text
        return self._tokenizer.encode(text[: cuts[-1]]), text[cuts[-1] :]
