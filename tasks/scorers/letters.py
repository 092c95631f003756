"""Reading which option a reply chooses, where the options have letters.

`letter` is ours: it reads a choice that is said, and where none is, it says so. The other two keep
what the released Qwen chat scripts do, which find a letter in any reply.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from qwen_eval.types import Item, Score

LETTERS = "ABCDEFGHIJ"
# What may stand before a letter: quotation marks, brackets, Markdown, the signs of a formula.
_MARK = (
    r"[\s*_`\"'“”‘’「『《<【】\[({:：$]*(?:\\[(\[]\s*)?"
    r"(?:\\(?:boxed|text(?:bf)?|math(?:rm|bf))\{)*[\s(]*"
)
_END = r"(?![A-Za-z0-9]|['’][A-Za-z])"
_IS = r"\s+(?:is|would\s+be|should\s+be|must\s+be)"
_NAMED = r"(?:(?i:(?:the\s+)?(?:option|choice|letter))\s+)?(?:not\s+\(?[A-J]\)?,?\s+but\s+)?"
_ANSWERED = (
    # "the answer is (B)", "Answer: B", "the correct option is B", "答案是B", "故选 B", "\boxed{B}"
    rf"(?i:\banswer(?:{_IS})?\b|\b(?:correct|right|best)\s+(?:option|choice){_IS}\b){_MARK}{_NAMED}"
    rf"([A-J]){_END}",
    rf"(?:答案|(?:不?正确|错误)的?选项|(?:不?正确|错误)的|应选|应该选|故选)(?:不是[A-J][,，]?而?)?"
    rf"(?:应该|应)?(?:是|为)?(?:选择|选项|选)?{_MARK}([A-J]){_END}",
    rf"\\boxed\{{\s*(?:\\text\{{)?\s*\(?([A-J]){_END}",
)
_SAID = (
    # "选项B", "我选B", "option B", "B is correct"
    rf"(?:选项|选择|选)(?:是|为)?{_MARK}([A-J]){_END}",
    rf"\b(?i:choose|select|pick|option|choice){_MARK}([A-J]){_END}",
    r"(?<![A-Za-z])\(?([A-J])\)?(?:选?项)?\s*"
    r"(?:(?i:is\s+(?:the\s+)?(?:correct|right|answer))|(?:是)?正确|符合)",
)
_DENIED = re.compile(r"(?:not|n't|isn[’']t|不|非)\W*$", re.IGNORECASE)
WRONG = (
    r"\)?(?:\s*选?项)?的?(?:说法|叙述|表述|描述)?(?:都|均|是)?"
    r"(?:错|有误|不(?:正确|对|符合|成立|能|可))|\)?\s+(?i:is|are)\s+(?i:wrong|incorrect|false|not)\b"
)
"""What may stand behind letters and says that they are wrong."""
_REJECTED = re.compile(WRONG)
_ALONE = re.compile(r"\W*([A-J])(?:[.)）:：,，。\s*_`]|、(?!\s*[A-J])|$)")
_OPENING = re.compile(r"^[^\w\n]*([A-J])(?![\w'’])", re.MULTILINE)
_LAST_LINE = re.compile(r"(?:\A|\n)[^\w\n]*([A-J])\W*\Z")


def letter(text: str, item: Item) -> Score:
    """Right if the last choice that the reply says in words is the right one's.

    "The answer is (B)", "答案：B", "\\boxed{B}" are such choices. Without one, a reply has chosen
    whose last line is a letter, or that begins with a letter of its own and goes through no others;
    then one that speaks of "option B" or "选项B", and one that is an option's text. Anything else
    is no answer, and so is a letter that is said to be wrong.
    """
    assert item.gold is not None
    found = find_letter(text, [option.strip() for option in item.options])
    if found is None:
        return Score({item.metric: 0.0}, status="no_answer")
    return Score({item.metric: float(LETTERS.index(found) == item.gold)}, answer=found)


def find_letter(text: str, options: Sequence[str]) -> str | None:
    """The letter that a reply chooses among as many as there are options; None for none."""
    reply = unicodedata.normalize("NFKC", text).strip()
    known = LETTERS[: len(options)]
    if said := _last_said(_ANSWERED, reply, known):
        return said
    opening = {match[1] for match in _OPENING.finditer(reply)}
    alone = _LAST_LINE.search(reply) or (_ALONE.match(reply) if len(opening) == 1 else None)
    if alone and alone[1] in known and not re.match(r"\W*A\s+[a-z]", reply):  # an article
        return alone[1]
    if said := _last_said(_SAID, reply, known):
        return said
    same = [i for i, option in enumerate(options) if _plain(option) == _plain(reply)]
    return known[same[0]] if len(same) == 1 else None


def _last_said(patterns: Sequence[str], reply: str, known: str) -> str | None:
    """The last letter that the first of the patterns which finds any finds, and that is not
    denied."""
    for pattern in patterns:
        said = [
            match[1]
            for match in re.finditer(pattern, reply)
            if match[1] in known
            and not _DENIED.search(reply[: match.start()][-12:])
            and not _REJECTED.match(reply, match.end(1))
        ]
        if said:
            return said[-1]
    return None


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).strip().rstrip(".。").casefold()


# The four readings of evaluate_chat_mmlu.py and of evaluate_chat_ceval.py, tried in this order.
_QWEN_EN = (
    r"(?:(?:[Cc]hoose)|(?:(?:[Aa]nswer|[Cc]hoice)(?![^ABCD]{0,20}?(?:n't|not))[^ABCD]{0,10}?"
    r"\b(?:|is|:|be))\b)[^ABCD]{0,20}?\b(A|B|C|D)\b",
    r"\b(A|B|C|D)\b(?![^ABCD]{0,8}?(?:n't|not)[^ABCD]{0,5}?(?:correct|right))[^ABCD]{0,10}?"
    r"\b(?:correct|right)\b",
    r"^(A|B|C|D)(?:\.|,|:|$)",
    r"(?<![a-zA-Z])(A|B|C|D)(?![a-zA-Z=])",
)
_QWEN_ZH = (
    r"(?:(?:选|选择|选定)|(?:(?:答案|选项)(?![^ABCD]{0,10}?(?:不|非)[^ABCD]{0,10}?"
    r"(?:是|为|：|:|】))[^ABCD]{0,10}?(?:是|为|：|:|】))[^ABCD]{0,10}?)"
    r"(A|B|C|D)(?:选项)?(?:\)|。|\.|，|,|．|、|A|B|C|D|$)",
    r"(A|B|C|D)(?:选?项)?(?![^ABCD]{0,4}?(?:不|非)[^ABCD]{0,4}?(?:正确|对|符合))"
    r"[^ABCD]{0,4}?(?:正确|对|符合)",
    r"^(A|B|C|D)(?:。|\.|，|,|．|$)",
    r"(?<![a-zA-Z])(A|B|C|D)(?![a-zA-Z=])",
)


def qwen_chat_mmlu(text: str, item: Item) -> Score:
    """The released evaluate_chat_mmlu.py: options in the reply, the longest first and whatever
    their case, become letters; four patterns are tried; what is left is matched fuzzily, so that
    even an empty reply chooses. An option that stands inside a word is replaced there as well."""
    for key, option in _longest_first(item):
        text = re.sub(re.escape(option.rstrip(".")), key, text, flags=re.IGNORECASE)
    return _qwen(text, _QWEN_EN, item)


def qwen_chat_ceval(text: str, item: Item) -> Score:
    """The released evaluate_chat_ceval.py: the question's last sentence becomes 答案是, options
    become letters, four patterns are tried, and what is left is matched fuzzily."""
    parts = str(item.sample.row["question"]).rstrip("。").split("。")[-1].split("_")
    for part, by in ((parts[0], "答案是"), (parts[-1], "")):
        if len(part.strip()) > 4:
            text = text.replace(part, by)
    for key, option in _longest_first(item):
        text = text.replace(option.rstrip("。"), key)
    return _qwen(text, _QWEN_ZH, item)


def _longest_first(item: Item) -> list[tuple[str, str]]:
    keyed = list(zip(LETTERS, item.options, strict=False))
    return sorted(keyed, key=lambda pair: len(pair[1]), reverse=True)


def _qwen(text: str, patterns: Sequence[str], item: Item) -> Score:
    from thefuzz import process

    assert item.gold is not None
    found = next((match[1] for p in patterns if (match := re.search(p, text))), None)
    if found is None:
        # A reply of no letter or digit is as far from all options; the first one is taken.
        nearest = process.extractOne(text, list(item.options))
        found = LETTERS[item.options.index(nearest[0])]
    return Score({item.metric: float(LETTERS.index(found) == item.gold)}, answer=found)
