"""Characters that cannot be seen or that steer their neighbours, taken out. Knows no Markdown."""

from __future__ import annotations

import re

# Controls but tab and line ends, soft hyphens, direction marks and overrides, fillers, tags.
_DROPPED = (
    "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"
    "\u200b\u200c\u200e\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0d\ufeff\uffa0\ufff0-\ufffb"
    "\U000e0000-\U000e0fff"
)
INVISIBLE = _DROPPED + "\u200d\ufe0e\ufe0f"
# Symbols whose look a variation selector sets and that joiners make one picture of.
_EMOJI = (
    "\u00a9\u00ae\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u23ff\u24c2\u25a0-\u27bf"
    "\u2900-\u297f\u2b00-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
)
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor
    r"|(?:\x1b\]|\x9d)[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)"  # titles, links
)
_CONTROLS = re.compile(f"[{_DROPPED}]+")
_STRAY = re.compile(
    f"(?<![{_EMOJI}])(?<![{_EMOJI}]\ufe0f)\u200d+|\u200d(?![{_EMOJI}])"
    f"|(?<![{_EMOJI}0-9#*])[\ufe0e\ufe0f]|(?<=[0-9#*])(?:\ufe0e|\ufe0f(?!\u20e3))"
)
_LINE_ENDS = re.compile("\r\n|[\r\v\f\x85\u2028\u2029]")
_UNPAIRED = re.compile("[\ud800-\udfff\ufffe\uffff]")


def visible(text: str) -> str:
    """The text without terminal escapes and invisible characters; every line end is `\\n`, and half
    of a surrogate pair shows as U+FFFD. Emoji keep what makes them one picture. Idempotent."""
    for pattern in (_ESCAPES, _CONTROLS, _STRAY):
        text = pattern.sub("", text)
    return _UNPAIRED.sub("\ufffd", _LINE_ENDS.sub("\n", text))
