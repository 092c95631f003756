"""A document and the files it comes from: JSON lines, plain text, HTML.

Knows nothing of filters or stages: what a file holds is said, never judged, but for files that are
no text at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl, text_hash

Format = Literal["text", "html", "instruction"]
JSON_LINES = (".jsonl", ".jsonl.gz")
ENDINGS = (*JSON_LINES, ".txt", ".html", ".htm")
# How sets of instructions name a question, what belongs to it, and its answer.
QUESTION, MATTER, ANSWER = ("instruction", "prompt"), ("input", "context"), ("output", "response")
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE)


@dataclass(slots=True)
class Document:
    """One text. `id` is a hash of where it stood, `lang` is empty until it is known."""

    id: str
    text: str
    source: str
    lang: str = ""
    metadata: dict[str, Any] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """The document as an object of a JSON line."""
        return {
            "id": self.id,
            "text": self.text,
            "source": self.source,
            "lang": self.lang,
            "metadata": self.metadata,
        }


@dataclass(frozen=True)
class Raw:
    """What a file holds before it is read as text: a string, or bytes of unknown encoding."""

    origin: str
    content: str | bytes
    is_html: bool = False
    lang: str = ""


def read_raw(path: Path, name: str, format: Format) -> Iterator[Raw]:
    """The raw texts of one file; `name` is what their origin says of the file.

    Raises UserError for an ending that is not known, and naming file, line and key for a row
    without its text.
    """
    if path.name.endswith(JSON_LINES):
        for number, row in enumerate(read_jsonl(path), 1):
            text = _text_of(row, format, f"{path}, row {number}")
            lang = row.get("lang")
            yield Raw(
                f"{name}#{number}", text, format == "html", lang if isinstance(lang, str) else ""
            )
        return
    if not path.name.lower().endswith(ENDINGS) or format == "instruction":
        raise UserError(f"{path}: {format} cannot be read from this; use {', '.join(ENDINGS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    yield Raw(name, data, path.suffix.lower() != ".txt")


def identity(origin: str) -> str:
    """A document's id: 16 hex digits that depend on where it stood, not on what it says."""
    return text_hash(origin)


def declared_encoding(data: bytes) -> str:
    """The encoding that an HTML page names for itself in its first 4 KiB, or nothing."""
    found = _CHARSET.search(data[:4096])
    return found[1].decode("ascii") if found else ""


def _text_of(row: dict[str, Any], format: Format, where: str) -> str:
    if format != "instruction":
        return _string(row, format, where)
    if "messages" in row:
        turns = row["messages"]
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise UserError(f"{where}: messages is not a list of turns")
        return "\n\n".join(_string(turn, "content", where) for turn in turns)
    question = next((name for name in QUESTION if name in row), None)
    answer = next((name for name in ANSWER if name in row), None)
    if question is None or answer is None:
        raise UserError(f"{where}: an instruction needs {QUESTION[0]} and {ANSWER[0]}, or messages")
    matter = [row[name] for name in MATTER if isinstance(row.get(name), str) and row[name].strip()]
    head = "\n".join([_string(row, question, where), *matter])
    return f"{head}\n\n{_string(row, answer, where)}"


def _string(row: dict[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} is missing or no text")
    return value
