"""Text that came from a model or a file, made harmless for terminals, XML and annotations.

Control characters, escape sequences and characters that reorder a line are shown as symbols
instead of acting.
"""

from __future__ import annotations

import re

# Controls but for tab and line feed; C1; what reverses or hides text; what XML 1.0 forbids.
_ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ufff9-\ufffb\ufffe\uffff\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The same text with every acting character as a symbol: ␛ for escape, ⟨U+202E⟩ for others."""
    return _ACTING.sub(_symbol, text)


def one_line(text: str, most: int = 500) -> str:
    """visible(), on one line and cut to a length."""
    line = " ".join(visible(text).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _symbol(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "␡" if code == 0x7F else f"⟨U+{code:04X}⟩"
