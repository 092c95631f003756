"""Words and their n-grams of many texts at a time, against one at a time and a plain reading."""

from __future__ import annotations

import unicodedata

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.ngrams import ngrams, ngrams_of, words, words_of

TEXTS = st.lists(st.text("aΣσ1´'é 　.\n中国𠀀\ud800İ", max_size=12), min_size=1, max_size=6)


def plain_words(text: str) -> list[str]:
    """Runs of letters, marks and digits in lower case; a Han letter is a word of its own."""
    found, run = [], ""
    for letter in text.lower():
        han = unicodedata.name(letter, "").startswith("CJK UNIFIED")
        inside = unicodedata.category(letter)[0] in "LMN" and not han
        if inside:
            run += letter
            continue
        found += [run] * bool(run) + [letter] * han
        run = ""
    return found + [run] * bool(run)


@given(TEXTS)
def test_equal_words_and_only_they_have_equal_hashes(texts: list[str]) -> None:
    hashes, counts = words_of(texts)
    plain = [word for text in texts for word in plain_words(text)]
    assert counts.tolist() == [len(plain_words(text)) for text in texts]
    seen = dict(zip(plain, hashes.tolist(), strict=True))
    assert [seen[word] for word in plain] == hashes.tolist()
    assert len(set(seen.values())) == len(seen)


@given(TEXTS, st.integers(1, 4))
def test_ngrams_of_many_texts_are_those_of_each(texts: list[str], n: int) -> None:
    grams, text_of = ngrams_of(texts, n)
    each = [ngrams(words(text), n) for text in texts]
    assert grams.tolist() == np.concatenate(each).tolist()
    assert text_of.tolist() == [at for at, of in enumerate(each) for _ in of]
