"""Short answers held against several accepted ones: exact match, and F1 over shared words.

A target is the accepted answers, one a line; the best of them counts.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections import Counter

from qwen_eval.types import Score

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_LM_EVAL_IGNORED = re.compile(r"\b(?:The |the |An |A |The |a |an )")
# What the scorer of CMRC 2018 leaves out (its list, version 4), and what it takes sign by sign.
_CMRC_SIGNS = frozenset("-:_*^/\\~`+=，。：？！“”；’《》·、「」（）－～『』")
_CMRC_SEGMENT = re.compile(r"[\u4e00-\u9fa5]|[^\W\u4e00-\u9fa5]+|[^\w\s]")


def squad_words(text: str) -> list[str]:
    """SQuAD's normalisation (Rajpurkar et al. 2016, arXiv 1606.05250): lower case, no punctuation
    and no articles; the words that are left."""
    text = unicodedata.normalize("NFKC", text).lower().translate(_PUNCTUATION)
    return [word for word in text.split() if word not in ("a", "an", "the")]


def short_answer(text: str, target: str, metric: str) -> Score:
    """`metric` is 1 if the reply's first line is one of the accepted answers after SQuAD's
    normalisation; `f1` is the overlap of its words with those of the nearest one."""
    answer = _first_line(text)
    words = squad_words(answer)
    golds = [squad_words(gold) for gold in target.split("\n")]
    if not words:
        return Score({metric: 0.0, "f1": 0.0}, status="no_answer")
    overlap = max(_f1(sum((Counter(words) & Counter(g)).values()), words, g) for g in golds)
    return Score({metric: float(words in golds), "f1": overlap}, answer=answer)


def lm_eval_short_answer(text: str, target: str, metric: str) -> Score:
    """lm-evaluation-harness, nq_open, exact_match: its articles taken out before the case is, the
    punctuation after it, so that `The` at the beginning of a reply goes and `THE` stays."""
    answer = text.strip()
    if not answer:
        return Score({metric: 0.0}, status="no_answer")
    golds = {_lm_eval_normal(gold) for gold in target.split("\n")}
    return Score({metric: float(_lm_eval_normal(answer) in golds)}, answer=answer)


def _lm_eval_normal(text: str) -> str:
    return _LM_EVAL_IGNORED.sub("", text).lower().translate(_PUNCTUATION)


def without_signs(text: str) -> str:
    """In lower case, without the signs that CMRC 2018 leaves out."""
    return "".join(sign for sign in text.lower().strip() if sign not in _CMRC_SIGNS)


def cmrc_segments(text: str) -> list[str]:
    """Every Chinese character by itself, other scripts by words and signs, without those that the
    benchmark leaves out (Cui et al. 2019, arXiv 1810.07366)."""
    return _CMRC_SEGMENT.findall(without_signs(text))


def chinese_span(text: str, target: str, metric: str) -> Score:
    """`metric` is the F1 of the reply's first line over the longest run of segments that it shares
    with an accepted answer, `exact_match` whether it is one but for signs. The official scorer does
    the same, but splits what is no Chinese by NLTK."""
    answer = re.sub(r"^(?:答案|答|回答)\s*(?:是|为)?\s*[:：]?\s*", "", _first_line(text))
    segments = cmrc_segments(answer)
    if not segments:
        return Score({metric: 0.0, "exact_match": 0.0}, status="no_answer")
    golds = [cmrc_segments(gold) for gold in target.split("\n")]
    shares = [_f1(longest_run(gold, segments), segments, gold) for gold in golds]
    exact = without_signs(answer) in map(without_signs, target.split("\n"))
    return Score({metric: max(shares), "exact_match": float(exact)}, answer=answer)


def longest_run(some: list[str], others: list[str]) -> int:
    """The length of the longest run of segments that stands in both."""
    letters = {segment: chr(code) for code, segment in enumerate({*some, *others})}
    one, other = ("".join(letters[s] for s in segments) for segments in (some, others))
    longest = 0
    for start in range(len(one)):
        while start + longest < len(one) and one[start : start + longest + 1] in other:
            longest += 1
    return longest


def _f1(shared: int, found: list[str], gold: list[str]) -> float:
    return 2 * shared / (len(found) + len(gold)) if shared else 0.0


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0].strip()
