"""An answer's Markdown as HTML that can do nothing: a few tags, no attribute that loads, links,
names or styles anything. It is inert by itself, whatever shows it.

Tokens are stripped first and rendered then; nh3 goes over the result as a second lock. Knows
nothing of pages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from .characters import visible
from .parser import markdown, parse

if TYPE_CHECKING:
    from markdown_it.token import Token

TAGS = frozenset(
    {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "s", "code", "pre"}
    | {"blockquote", "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"}
)
ALIGNMENTS = frozenset({"left", "center", "right"})
_CODE = re.compile(
    r"(?:^|\n+)```[^`\n]*\n(?P<block>.*?)\n```[ \t]*(?:\n+|$)|`(?P<span>[^`\n]+)`", re.DOTALL
)


def to_html(text: str) -> str:
    """Markdown as a fragment of TAGS, whose only attributes are `start` of ol and `align` of th and
    td. Raw HTML shows as text, a link as its text with the address behind it, an image as
    `[图片: alt]`; a code block loses its language. A text that `parse` refuses shows as it is.
    """
    import nh3

    tokens = parse(text)
    if tokens is None:
        return f"<p>{plain(text)}</p>".replace("\n", "<br>")
    built = markdown()
    for token in tokens:
        _strip(token)
    # Entities bring back what was taken out of the source: only the result is surely clean.
    html = visible(built.renderer.render(tokens, built.options, {}))
    return nh3.clean(
        html,
        tags=set(TAGS),
        clean_content_tags=set(),
        attributes={"ol": {"start"}},
        tag_attribute_values={tag: {"align": set(ALIGNMENTS)} for tag in ("th", "td")},
        url_schemes=set(),
        link_rel=None,
    )


def plain(text: str) -> str:
    """Text as HTML without a tag, its line ends kept: the page's style sheet shows them."""
    return escape(visible(text))


def with_code(text: str) -> str:
    """Text as HTML like `plain`, but what stands in a fence or between backticks is set as code.
    For instructions, which are to be read as they were asked: nothing else in them is Markdown."""
    parts = []
    read = 0
    text = visible(text)
    for found in _CODE.finditer(text):
        block, span = found["block"], found["span"]
        code = f"<code>{escape(span)}</code>" if span else f"<pre>{escape(block)}</pre>"
        parts += [escape(text[read : found.start()]), code]
        read = found.end()
    return "".join([*parts, escape(text[read:])])


def _strip(token: Token) -> None:
    align = str(token.attrs.get("style", "")).removeprefix("text-align:")
    start = token.attrs.get("start")
    token.attrs = {}
    token.info = ""
    if token.tag in ("th", "td") and align in ALIGNMENTS:
        token.attrs["align"] = align
    if token.tag == "ol" and start is not None:
        token.attrs["start"] = start
    if token.children:
        token.children = list(_inert(token.children))


def _inert(children: list[Token]) -> Iterator[Token]:
    """Inline tokens, links and images turned to text."""
    addresses: list[str] = []
    texts: list[str] = []
    for child in children:
        if child.type == "link_open":
            addresses.append(markdown().normalizeLinkText(str(child.attrs.get("href", ""))))
            texts.append("")
        elif child.type == "link_close":
            address, text = addresses.pop(), texts.pop()
            if text not in (address, address.removeprefix("mailto:")):
                yield _text(f" ({address})" if address else "")
        elif child.type == "image":
            yield _text(f"[图片: {_alt(child)}]")
        else:
            _strip(child)
            if texts:
                texts[-1] += child.content
            yield child


def _alt(image: Token) -> str:
    built = markdown()
    alt = built.renderer.renderInlineAsText(image.children, built.options, {})  # type: ignore[attr-defined]
    return str(alt).replace("\n", " ")


def _text(content: str) -> Token:
    from markdown_it.token import Token

    return Token("text", "", 0, content=content)
