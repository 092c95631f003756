"""Reading whether a reply found what was hidden: a number, or a few words.

A reply that holds neither has found nothing: it is wrong and not unreadable.
"""

from __future__ import annotations

import re
import unicodedata

from qwen_eval.types import Score


def first_number(text: str, target: str, metric: str) -> Score:
    """Right if the first run of digits in the reply is the target, digit for digit."""
    found = re.search(r"[0-9]+", unicodedata.normalize("NFKC", text))
    answer = found[0] if found else ""
    return Score({metric: float(answer == target)}, answer=answer)


def inclusion(text: str, target: str, metric: str) -> Score:
    """Right if the target stands in the reply, whatever the case, the width and the signs between
    words. Words are whole ones, save in Chinese, where nothing shows their ends."""
    reply, wanted = _words(text), _words(target)
    assert wanted, f"target {target!r} has no word"
    if wanted.isascii():
        reply, wanted = f" {reply} ", f" {wanted} "
    else:
        reply, wanted = reply.replace(" ", ""), wanted.replace(" ", "")
    return Score({metric: float(wanted in reply)}, answer=text.strip())


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
