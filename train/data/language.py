"""Which language a text is in, with a probability.

Writing decides where it can: Han letters without kana are Chinese (classical, traditional and the
regional forms alike, which statistics confuse), kana is Japanese, Hangul Korean. Everything else
is asked of py3langid, a naive Bayes model over byte n-grams that comes with its package (Lui and
Baldwin 2012). Knows nothing of documents.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import Any

# A language is known long before a text ends.
HEAD = 1000
_HAN = re.compile("[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f]")
_KANA = re.compile("[\u3041-\u30ff]")
_HANGUL = re.compile("[\uac00-\ud7a3]")
_LETTER = re.compile(r"[^\W\d_]")
# A sign of Chinese carries about as much as a word of four letters.
HAN_WEIGHT = 4
_CHINESE = frozenset({"zh", "wuu", "yue"})


def identify(text: str) -> tuple[str, float]:
    """(ISO 639 code, probability) of a text's first 1,000 characters; ("und", 0) without letters.

    By writing, the probability is the share of that writing, a Han letter counted as four.
    """
    head = text[:HEAD]
    letters = len(_LETTER.findall(head))
    if not letters:
        return "und", 0.0
    if not head.isascii():
        han, kana = len(_HAN.findall(head)), len(_KANA.findall(head))
        hangul = len(_HANGUL.findall(head))
        weight = HAN_WEIGHT * (han + kana + hangul)
        share = weight / (weight + letters - han - kana - hangul)
        if share > 0.5:
            if hangul > han + kana:
                return "ko", share
            return ("ja" if kana * 20 > han else "zh"), share
    language, probability = _model().classify(head)
    probability = float(probability)
    name = "zh" if language in _CHINESE else str(language)
    return name, probability if math.isfinite(probability) else 0.0


@cache
def _model() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
