"""Where a function ends in a language with braces: JavaScript, Java, C++, Go, Rust.

Braces in comments and literals count for nothing. What a literal is, is read as far as it decides
about braces; no preprocessor is run, and a template in a template is not looked into.
"""

from __future__ import annotations

import re

# What is begun and not closed goes on to the end: nothing is looked for twice.
_COMMENT = r"//[^\n]*|/\*.*?(?:\*/|\Z)"
_QUOTED = r'"(?:\\.|[^"\\])*+(?:"|\\?\Z)'
# A slash divides what stands before it, so after one of these it begins a pattern.
_CLASS = r"\[(?:\\.|[^\]\\\n]){0,100}\]"
_PATTERN = rf"(?:(?<=[(,=:\[!&|?{{}};])|(?<=return))\s*/(?:\\.|{_CLASS}|[^/\\\n\[]){{1,200}}+/"
_JAVASCRIPT = rf"{_COMMENT}|{_QUOTED}|'(?:\\.|[^'\\\n])*+'?|`(?:\\.|[^`\\])*+(?:`|\\?\Z)|{_PATTERN}"
# Raw strings of C++ and Rust, blocks of Java, raw strings of Go. Elsewhere an apostrophe stands
# around one character, in a number (C++) or before a lifetime (Rust).
_RAW = (
    r'R"(?P<mark>[^\s()\\"]{0,16})\(.*?(?:\)(?P=mark)"|\Z)|r(?P<fence>#++)".*?(?:"(?P=fence)|\Z)'
    r'|""".*?(?:"""|\Z)|`[^`]*+(?:`|\Z)'
)
_OTHERS = rf"{_COMMENT}|{_RAW}|{_QUOTED}|'(?:\\.[^\n']{{0,10}}|[^'\\\n])'"


def braces(head: str, reply: str, name: str) -> str:
    """Up to the brace that closes the function, which `head` or the reply opened, and the braces
    that close what is around it (Java's class); all of a reply that does not close it."""
    script = re.search(rf"\b(?:const|let|var|function)\s+{re.escape(name)}\b", head)
    literal = _JAVASCRIPT if script else _OTHERS
    text, depth, floor = head + reply, 0, None
    for found in re.finditer(rf"(?P<brace>[{{}}])|{literal}", text, re.DOTALL):
        if floor is None and found.start() >= len(head):
            floor = max(depth, 1)
        if found["brace"]:
            depth += 1 if found[0] == "{" else -1
            if floor is not None and depth < floor and found[0] == "}":
                return reply[: found.end() - len(head)] + "\n}" * depth
    return reply
