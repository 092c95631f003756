"""The words by which an answer tells who wrote it, hidden. Which these are: identities.py.

Letters are looked at in compatibility form (full-width ones as plain ones), without invisible
characters, entities resolved: what a reader would see. Letters of other alphabets that only look
alike are not seen through.
"""

from __future__ import annotations

import html
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, groupby
from unicodedata import normalize

from .characters import INVISIBLE
from .identities import ALWAYS, MAKER, MAKERS, PRODUCT, PRODUCTS, SELF, versioned

MASK = "[已隐去]"
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z]{2,24});")
_UNSEEN = re.compile(f"[{INVISIBLE}]+")
_SENTENCE_END = re.compile(r"[。!?\n]|\.(?=\s)")


@dataclass(frozen=True)
class Masked:
    """A text with `count` words hidden."""

    text: str
    count: int


@dataclass(frozen=True)
class _Word:
    start: int
    end: int
    stem: str  # without version or size
    sign: str = MASK  # what stands for it in SELF


def mask(
    text: str, names: Iterable[str] = (), *, words: Iterable[str] = (), asked: str = ""
) -> Masked:
    """The text with each word that tells its writer replaced by MASK. `names`: of the study's
    systems, hidden wherever they stand as words (but not single characters, nor what MASK holds);
    `words`: such that also mean something else, hidden where a sentence says who speaks, as names
    of products are. `asked`: the instruction; a word in it tells nothing and stays, whatever
    version follows it.

    Masking what was masked changes nothing.
    """
    own = _own(names), _own(words, versioned)
    known = _Folded(asked).text
    count = 0
    while True:  # a hidden word may show that another is told
        folded = _Folded(text)
        told = [word for word in _told(folded.text, own) if not _contains(known, word.stem)]
        if not told:
            return Masked(text, count)
        count += len(told)
        pieces, at = [], 0
        for word in told:
            pieces += [text[at : folded.starts[word.start]], MASK]
            at = folded.ends[word.end - 1]
        text = "".join([*pieces, text[at:]])


class _Folded:
    """A text as it is looked at, and where each character of it begins and ends in the source."""

    def __init__(self, source: str) -> None:
        entities = {found.start(): found for found in _ENTITY.finditer(source)}
        forms = {each: _UNSEEN.sub("", normalize("NFKC", each)) for each in set(source)}
        pieces: list[str] = []
        self.starts: list[int] = []
        self.ends: list[int] = []
        at = 0
        while at < len(source):
            entity = entities.get(at)
            end = entity.end() if entity else at + 1
            piece = html.unescape(entity[0]) if entity else source[at]
            form = forms.get(piece)
            form = _UNSEEN.sub("", normalize("NFKC", piece)) if form is None else form
            pieces.append(form)
            self.starts += [at] * len(form)
            self.ends += [end] * len(form)
            at = end
        self.text = "".join(pieces)


def _told(folded: str, own: tuple[tuple[str, ...], tuple[str, ...]]) -> list[_Word]:
    """Words that tell the writer, in order, none within another. `own`: patterns for the study's
    certain and doubtful names."""
    certain = [*_words(own[0], folded), *_words(ALWAYS, folded)]
    certain.sort(key=lambda word: (word.start, -word.end))
    taken = bytearray(len(folded))
    words: list[_Word] = []
    doubtful = (_words((*own[1], *PRODUCTS), folded, PRODUCT), _words(MAKERS, folded, MAKER))
    for word in chain(certain, *doubtful):
        if not any(taken[word.start : word.end]):
            taken[word.start : word.end] = b"\1" * (word.end - word.start)
            words.append(word)
    words.sort(key=lambda word: word.start)
    return list(_in_context(folded, words))


def _in_context(folded: str, words: list[_Word]) -> Iterator[_Word]:
    """The certain words, and the doubtful ones of sentences that speak of their own writer."""
    ends = [*(found.end() for found in _SENTENCE_END.finditer(folded)), len(folded)]
    for number, group in groupby(words, key=lambda word: bisect_left(ends, word.end)):
        inside = list(group)
        pieces, at = [], ends[number - 1] if number else 0
        for word in inside:
            pieces += [folded[at : word.start], word.sign]
            at = word.end
        sentence = "".join([*pieces, folded[at : ends[number]]])
        doubtful = any(word.sign != MASK for word in inside)
        own = doubtful and any(re.search(each, sentence, re.IGNORECASE) for each in SELF)
        yield from (word for word in inside if own or word.sign == MASK)


def _words(patterns: tuple[str, ...], folded: str, sign: str = MASK) -> Iterator[_Word]:
    if patterns:
        for found in _any(patterns).finditer(folded):
            yield _Word(found.start(), found.end(), found[found.lastindex or 0], sign)


def _contains(known: str, stem: str) -> bool:
    """Whether an instruction has a word, with other separators or none."""
    letters = [re.escape(each) for each in stem if each.isalnum()]
    if not known or not letters:
        return False
    return re.search(_bounded(r"[\W_]{0,3}".join(letters), stem), known, re.IGNORECASE) is not None


def _bounded(pattern: str, word: str) -> str:
    """A pattern for whole words: where an end of the word is a Latin letter, no other follows."""
    before = "(?<![a-z0-9])" if word[:1].isascii() else ""
    after = "(?![a-z])" if word[-1:].isascii() and word[-1:].isalpha() else ""
    return f"{before}{pattern}{after}"


def _own(names: Iterable[str], whole: Callable[[str], str] = "({})".format) -> tuple[str, ...]:
    """Patterns for the study's names, whatever separators they are written with, the longest first.
    `whole`: what makes a pattern with its one group of that of a name."""
    own = []
    usable = {name for name in names if len(name.strip()) > 1}
    for name in sorted(usable, key=lambda name: (-len(name), name)):
        parts = filter(None, re.split(r"[-_ ./:]+", normalize("NFKC", name)))
        joined = r"[-_ ./:]*".join(re.escape(part) for part in parts)
        if joined and not re.search(joined, MASK + MASK):  # which would be hidden for ever
            own.append(whole(_bounded(joined, name.strip())))
    return tuple(own)


@lru_cache(maxsize=16)
def _any(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)
