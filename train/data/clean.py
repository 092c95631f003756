"""Bytes to text, and text to clean text: encodings, mojibake, control characters, NFC.

Pure functions. Knows nothing of documents or of whether a text is any good.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

from qwen_eval.model.tokenizer import without_surrogates

# UTF-8 once read as Latin-1 or Windows-1252: a lead byte's letter and a continuation's sign.
_MOJIBAKE = re.compile(
    "[\xc2-\xf4][\x80-\xbf\u0152\u0153\u0160\u0161\u0178\u017d\u017e\u0192\u02c6"
    "\u02dc\u2013-\u201e\u2020-\u2022\u2026\u2030\u2039\u203a\u20ac\u2122]"
)
# Controls but tab and line feed, C1, soft hyphen, byte-order marks, what Unicode calls no
# characters. Joiners stay: emoji and several scripts are written with them.
_JUNK = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\u2060\ufeff\ufff9-\ufffb\ufdd0-\ufdef"
    "\ufffe\uffff]"
)
_NEWLINES = re.compile("\r\n?|\x85|\u2028|\u2029")
_TRAILING = re.compile(r"[ \t\u3000]+$", re.MULTILINE)
_GAPS = re.compile(r"\n{4,}")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE)
# Controls that no text file has; form feed and escape do occur in old text files.
_BINARY = re.compile(rb"[\x00-\x06\x0e-\x1a\x1c-\x1f]")


def decode(data: bytes, declared: str = "") -> str | None:
    """The text of bytes, or None if they are none.

    In this order: a byte-order mark, UTF-8, the declared encoding, and what charset-normalizer
    takes for the likeliest. A text may have one control byte in a thousand.
    """
    for mark, name in _BOMS:
        if data.startswith(mark):
            try:
                return data[len(mark) :].decode(name)
            except UnicodeDecodeError:
                return None
    if len(_BINARY.findall(data)) * 1000 > len(data):
        return None
    for name in filter(None, ("utf-8", _wider(declared))):
        try:
            return data.decode(name)
        except (UnicodeDecodeError, LookupError):
            continue
    from charset_normalizer import from_bytes

    best = from_bytes(data).best()
    return None if best is None else str(best)


def declared_encoding(data: bytes) -> str:
    """The encoding that an HTML page names for itself in its first 4 KiB, or nothing."""
    found = _CHARSET.search(data[:4096])
    return found[1].decode("ascii") if found else ""


def clean(text: str) -> str:
    """NFC text with repaired encoding, line feeds only, no control characters, no trailing blanks.

    clean(clean(text)) == clean(text).
    """
    if not text.isascii():
        text = without_surrogates(text)
        if _MOJIBAKE.search(text):
            from ftfy import fix_encoding

            text = fix_encoding(text)
    text = _NEWLINES.sub("\n", text)
    text = _JUNK.sub("", text)
    text = _GAPS.sub("\n\n\n", _TRAILING.sub("", text)).strip()
    return unicodedata.normalize("NFC", text)


def _wider(name: str) -> str:
    """Pages that say GB2312 are written in its superset, and Latin-1 means Windows-1252.
    (WHATWG Encoding Standard, section 4.2.)"""
    lower = name.lower()
    if lower in ("gb2312", "gbk", "gb_2312-80", "x-gbk"):
        return "gb18030"
    return "cp1252" if lower in ("iso-8859-1", "latin1", "ascii", "us-ascii") else lower
