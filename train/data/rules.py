"""Rules that a text must keep: measures of it, and the bounds that a recipe sets on them.

A measure is a pure function of a text; a rule is a measure's name with a least or a most. Which
bounds hold for which language is said in the recipe, so nothing here is a threshold. Knows nothing
of documents, languages or files.

Sources of the measures: Rae et al. 2021 (Gopher, arXiv 2112.11446, table A1 and section A.1.1);
Raffel et al. 2020 (C4, arXiv 1910.10683, section 2.2); Penedo et al. 2024 (FineWeb, arXiv
2406.17557, section 3.6). Ours are: a Han letter is a word, Chinese punctuation ends a sentence,
Chinese function words and phrases of page frames, and `han_share`, `replacement_share`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

from pydantic import model_validator

from qwen_eval.schema import Closed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HAN = "\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
_WORD = re.compile(f"[{HAN}]|[^\\s{HAN}]+")
_HAN = re.compile(f"[{HAN}]")
_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCE_END = re.compile(r"[.!?。！？…]+[\"'”’」』)）】]*(?=\s|$)|[。！？]")
_LINE_ENDS = tuple(".!?\"'”’。！？…；」』）)：:")
_BULLETS = tuple("-*•·●○▪■‣◦–—")
_ELLIPSES = ("...", "…", "。。。")
# Gopher, section A.1.1: the eight words. The Chinese ones, modern and classical, are ours.
_STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"]) | frozenset(
    "的了是在和有不我他这那也就都之其而以于所者為为曰無无"
)
# What stands around a text on a page. C4: "javascript", "lorem ipsum", policies; the rest is ours.
_FRAMES = (
    "javascript",
    "lorem ipsum",
    "cookie policy",
    "privacy policy",
    "terms of use",
    "terms of service",
    "all rights reserved",
    "sign up for our newsletter",
    "add to cart",
    "click here",
    "share on facebook",
    "版权所有",
    "隐私政策",
    "用户协议",
    "上一篇",
    "下一篇",
    "上一页",
    "下一页",
    "点击这里",
    "点击查看",
    "登录注册",
    "icp备",
    "扫码关注",
    "免责声明",
    "转载请注明",
)


class Bound(Closed):
    """The least and the most that a measure may be; one of them may be left out."""

    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Bound:
        if self.min is None and self.max is None:
            raise ValueError("give min or max")
        return self


class Page:
    """A text with its lines, words and repeated words, each computed once."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def lines(self) -> list[str]:
        """Lines that say something, without blanks around them."""
        return [line for line in map(str.strip, self.text.split("\n")) if line]

    @cached_property
    def paragraphs(self) -> list[str]:
        """Parts between empty lines."""
        return [part for part in map(str.strip, _PARAGRAPHS.split(self.text)) if part]

    @cached_property
    def words(self) -> list[str]:
        """Han letters one by one, and what else stands between blanks."""
        return self.text.split() if self.text.isascii() else _WORD.findall(self.text)

    @cached_property
    def vocabulary(self) -> list[str]:
        """Every word once, in the order of their first places."""
        return list(dict.fromkeys(self.words))

    @cached_property
    def han(self) -> int:
        """Number of Han letters."""
        return 0 if self.text.isascii() else len(_HAN.findall(self.text))

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """The number of every word's place in the vocabulary (words,)."""
        import numpy as np

        number = {word: i for i, word in enumerate(self.vocabulary)}
        return np.fromiter(map(number.__getitem__, self.words), np.int64, len(self.words))

    @cached_property
    def lengths(self) -> NDArray[np.int64]:
        """Characters of every word (words,)."""
        import numpy as np

        return np.fromiter(map(len, self.words), np.int64, len(self.words))

    def ngrams(self, n: int) -> NDArray[np.int64]:
        """A number for every n-gram of words (words - n + 1,), equal for equal n-grams."""
        import numpy as np

        for length in range(len(self._ngrams) + 1, n + 1):
            shorter = self._ngrams[-1]
            if len(shorter) < 2:
                self._ngrams.append(shorter[:0])
            elif self.distinct(length - 1):
                self._ngrams.append(np.arange(len(shorter) - 1))
            else:
                # Numbered anew at every length, so the numbers are exact and never overflow.
                joined = shorter[:-1] * (len(self.ids) + 1) + self.ids[length - 1 :]
                self._ngrams.append(np.unique(joined, return_inverse=True)[1])
        return self._ngrams[n - 1]

    def distinct(self, n: int) -> bool:
        """Whether no n-gram stands in the text twice; then no longer one does."""
        grams = self.ngrams(n)
        return len(grams) == 0 or int(grams.max()) == len(grams) - 1

    @cached_property
    def _ngrams(self) -> list[NDArray[np.int64]]:
        return [self.ids]


Measure = Callable[[Page], float]


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def _line_share(test: Callable[[str], bool]) -> Measure:
    return lambda page: _share(sum(map(test, page.lines)), len(page.lines))


def _repeated(parts: list[str]) -> float:
    return _share(len(parts) - len(set(parts)), len(parts))


def _repeated_characters(parts: list[str]) -> float:
    total = sum(map(len, parts))
    return _share(total - sum(map(len, set(parts))), total)


def _top_ngram(n: int) -> Measure:
    def measure(page: Page) -> float:
        """Characters of the commonest n-gram, all its places together, as a share of the words'."""
        import numpy as np

        if page.distinct(n):
            return 0.0
        grams = page.ngrams(n)
        counts = np.bincount(grams)
        first = int((grams == counts.argmax()).argmax())
        repeated = page.lengths[first : first + n].sum() * counts.max()
        return float(repeated) / float(page.lengths.sum())

    return measure


def _repeated_ngrams(n: int) -> Measure:
    def measure(page: Page) -> float:
        """Characters inside n-grams that stood in the text before, none counted twice."""
        import numpy as np

        if page.distinct(n):
            return 0.0
        grams = page.ngrams(n)
        again = np.ones(len(grams), np.bool_)
        again[np.unique(grams, return_index=True)[1]] = False
        covered = np.zeros(len(page.ids), np.bool_)
        for offset in range(n):
            covered[offset : offset + len(grams)] |= again
        return float(page.lengths[covered].sum()) / float(page.lengths.sum())

    return measure


def _mean_word_length(page: Page) -> float:
    """Han letters left out: they are words of one letter by definition."""
    others = len(page.words) - page.han
    return _share(sum(map(len, page.words)) - page.han, others)


def _frame_lines(page: Page) -> float:
    """Lines with a phrase that stands around texts, such as `add to cart`."""
    lower = page.text.lower()
    there = [phrase for phrase in _FRAMES if phrase in lower]
    if not there:
        return 0.0
    found = sum(any(phrase in line.lower() for phrase in there) for line in page.lines)
    return _share(found, len(page.lines))


def _letters(page: Page) -> float:
    """Words with at least one letter."""
    import numpy as np

    lettered = np.array([any(map(str.isalpha, word)) for word in page.vocabulary], np.bool_)
    return _share(float(lettered[page.ids].sum()) if len(page.ids) else 0.0, len(page.words))


MEASURES: Mapping[str, Measure] = {
    "characters": lambda page: len(page.text),
    "words": lambda page: len(page.words),
    "mean_word_length": _mean_word_length,
    "symbols_per_word": lambda page: _share(
        page.text.count("#") + page.text.count("...") + page.text.count("…"), len(page.words)
    ),
    "alphabetic_words": _letters,
    "stop_words": lambda page: len(_STOP_WORDS & set(map(str.lower, page.vocabulary))),
    "bullet_lines": _line_share(lambda line: line.startswith(_BULLETS)),
    "ellipsis_lines": _line_share(lambda line: line.endswith(_ELLIPSES)),
    "ended_lines": _line_share(lambda line: line.endswith(_LINE_ENDS)),
    "short_lines": _line_share(lambda line: len(line) <= 30),
    "frame_lines": _frame_lines,
    "sentences": lambda page: len(_SENTENCE_END.findall(page.text)),
    "curly_brackets": lambda page: page.text.count("{"),
    "han_share": lambda page: _share(page.han, len("".join(page.words))),
    "replacement_share": lambda page: _share(page.text.count("\ufffd"), len(page.text)),
    "longest_line": lambda page: max(map(len, page.lines), default=0),
    "repeated_lines": lambda page: _repeated(page.lines),
    "repeated_line_characters": lambda page: _repeated_characters(page.lines),
    "repeated_paragraphs": lambda page: _repeated(page.paragraphs),
    "repeated_paragraph_characters": lambda page: _repeated_characters(page.paragraphs),
    **{f"top_{n}gram": _top_ngram(n) for n in (2, 3, 4)},
    **{f"repeated_{n}grams": _repeated_ngrams(n) for n in range(5, 11)},
}


def broken_rule(text: str, bounds: Mapping[str, Bound]) -> str | None:
    """The first rule that a text breaks, such as `words < 50`, or None if it keeps all of them.

    Rules are tried in the order of MEASURES, cheap ones first, whatever the order of a recipe.
    """
    page = Page(text)
    for name, measure in MEASURES.items():
        bound = bounds.get(name)
        if bound is None:
            continue
        value = measure(page)
        if bound.min is not None and value < bound.min:
            return f"{name} < {bound.min:g}"
        if bound.max is not None and value > bound.max:
            return f"{name} > {bound.max:g}"
    return None
