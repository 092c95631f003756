"""Finding what a reply sets in a box: \\boxed{...}, as mathematicians mark an answer."""

from __future__ import annotations

import re

_BOX = re.compile(r"\\(?:boxed|fbox)(?P<space> *)(?P<brace>\{)?")


def last_boxed(text: str) -> str | None:
    """The content of the last box that is closed, None if there is none. `\\boxed 7` holds what
    stands before the next dollar or line end."""
    boxes = list(_BOX.finditer(text))
    closed = _closing_braces(text) if boxes else {}
    for box in reversed(boxes):
        if not box["brace"]:
            bare = re.split(r"[$\n]", text[box.end() : box.end() + 200])[0].strip()
            if box["space"] and bare:
                return bare
        elif box.end() - 1 in closed:
            return text[box.end() : closed[box.end() - 1]]
    return None


def _closing_braces(text: str) -> dict[int, int]:
    """Of every brace that is closed, where."""
    opened, closed = list[int](), dict[int, int]()
    for brace in re.finditer(r"[{}]", text):
        if brace[0] == "{":
            opened.append(brace.start())
        elif opened:
            closed[opened.pop()] = brace.start()
    return closed
