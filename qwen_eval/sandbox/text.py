"""Text that a program wrote, made harmless for terminals, files and pages."""

from __future__ import annotations

import re

LINE_LIMIT = 300
# Escape sequences as terminals know them: CSI, OSC up to its end, and the two-letter ones.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])")


def one_line(text: str, limit: int = LINE_LIMIT) -> str:
    """The beginning of a text as one printable line; what cannot be printed becomes a space."""
    text = _ESCAPES.sub("", text[: 4 * limit])
    return "".join(letter if letter.isprintable() else " " for letter in text)[:limit].strip()


def printable(text: str) -> str:
    """A text with its lines and tabs; what else cannot be printed becomes U+FFFD.

    Escape sequences go, carriage returns begin the line anew, lone surrogates and characters that
    turn the direction of writing are among what cannot be printed.
    """
    text = _ESCAPES.sub("", text.replace("\r\n", "\n"))
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\n" if letter == "\r" else "\ufffd"
        for letter in text
    )
