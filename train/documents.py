"""Documents and the files they come from: JSON lines, plain text, HTML.

A file may be larger than memory, but for a page or text that is one document. Knows nothing of
filters, stages or tokens: what a file holds is said, never judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from qwen_eval.errors import UserError
from qwen_eval.fileio import Watch, open_watched, read_jsonl, text_hash

Format = Literal["text", "html", "instruction"]
JSON_LINES = (".jsonl", ".jsonl.gz")
ENDINGS = (*JSON_LINES, ".txt", ".html", ".htm")
PLAIN_ENDINGS = (*JSON_LINES, ".txt")
# A plain text file is read in blocks of whole lines, each of at least so many bytes.
BLOCK_BYTES = 1 << 20
# How sets of instructions name a question, what belongs to it, and its answer.
QUESTION, MATTER, ANSWER = ("instruction", "prompt"), ("input", "context"), ("output", "response")


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
        return {key: getattr(self, key) for key in self.__slots__}


@dataclass(frozen=True)
class Raw:
    """What a file holds before it is read as text: a string, or bytes of unknown encoding."""

    origin: str
    content: str | bytes
    is_html: bool = False
    lang: str = ""


def identity(origin: str) -> str:
    """A document's id: 16 hex digits that depend on where it stood, not on what it says."""
    return text_hash(origin)


def string(row: dict[str, Any], key: str, where: str) -> str:
    """A row's text. Raises UserError saying where there is none."""
    value = row.get(key)
    if not isinstance(value, str):
        raise UserError(f"{where}: {key} is missing or no text")
    return value


def rows(
    path: Path, format: str, watch: Watch | None = None
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(number from 1, text, row) of every row of JSON lines. format: `instruction`, or the key of
    the text. Raises UserError naming file, row and key for a row without its text."""
    read = _instruction if format == "instruction" else lambda row, at: string(row, format, at)
    for number, row in enumerate(read_jsonl(path, watch=watch), 1):
        yield number, read(row, f"{path}, row {number}"), row


def read_raw(path: Path, name: str, format: Format, watch: Watch | None = None) -> Iterator[Raw]:
    """The raw texts of one file; `name` is what their origin says of the file.

    watch: is told of the bytes as they are read. Raises UserError for an ending that is not known,
    and for a row without its text.
    """
    if path.name.endswith(JSON_LINES):
        for number, text, row in rows(path, format, watch):
            yield Raw(f"{name}#{number}", text, format == "html", _said(row, "lang"))
        return
    if not path.name.lower().endswith(ENDINGS) or format == "instruction":
        raise UserError(f"{path}: {format} cannot be read from this; use {', '.join(ENDINGS)}")
    try:
        with open_watched(path, watch) as file:
            yield Raw(name, file.read(), path.suffix.lower() != ".txt")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def text_files(paths: Sequence[Path], flag: str = "--text") -> list[Path]:
    """The files named, and those of known kinds in the folders named, each once. `flag`: what they
    are named by.

    Raises UserError for what is missing, of another kind, or holds no such file.
    """
    known = ", ".join(PLAIN_ENDINGS)
    found: dict[Path, None] = {}
    for path in paths:
        inside = [path]
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file())
            inside = [p for p in inside if p.name.endswith(PLAIN_ENDINGS)]
            if not inside:
                raise UserError(f"{flag} {path}: no {known} in this folder")
        elif not path.is_file():
            raise UserError(f"{flag} {path}: no such file or folder")
        elif not path.name.endswith(PLAIN_ENDINGS):
            raise UserError(f"{flag} {path}: of no known kind; give {known}")
        found |= dict.fromkeys(inside)
    return list(found)


def size(path: Path) -> int:
    """Bytes of a file, uncompressed as gzip's trailer says: those modulo 4 GiB, of the last part.

    Good for progress and for dividing a limit. Raises UserError if the file cannot be read.
    """
    try:
        if path.suffix != ".gz":
            return path.stat().st_size
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4))
            return int.from_bytes(file.read(4), "little")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def documents(files: Sequence[Path], limit: int | None = None) -> Iterator[Document]:
    """All documents of JSON lines and plain text, in order; plain text comes in blocks of lines.

    A document's source is what its row's `source` says before the first `/` or `#`, else the file's
    name without endings. limit: about so many bytes of text, taken from the beginning of every file
    in proportion to its size. Raises UserError naming the file and the row or byte for what is no
    text.
    """
    whole = sum(map(size, files))
    for path in files:
        budget = None if limit is None else limit * size(path) / max(whole, 1)
        taken = 0
        for document in _blocks(path) if path.suffix == ".txt" else _rows(path):
            yield document
            taken += len(document.text.encode("utf-8", "surrogatepass"))
            if budget is not None and taken >= budget:
                break


def _rows(path: Path) -> Iterator[Document]:
    for number, text, row in rows(path, "text"):
        source = _said(row, "source")
        collection = source.partition("/")[0].partition("#")[0] or source or _stem(path)
        yield Document(identity(f"{path}#{number}"), text, collection, _said(row, "lang"))


def _blocks(path: Path) -> Iterator[Document]:
    done = 0
    try:
        with path.open("rb") as file:
            while block := b"".join(file.readlines(BLOCK_BYTES)):
                yield Document(identity(f"{path}#{done}"), block.decode(), _stem(path))
                done += len(block)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, byte {done + error.start}: not UTF-8; convert the file, or leave it out"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _said(row: dict[str, Any], key: str) -> str:
    value = row.get(key)
    return value if isinstance(value, str) else ""


def _instruction(row: dict[str, Any], where: str) -> str:
    if "messages" in row:
        turns = row["messages"]
        if not isinstance(turns, list) or not all(isinstance(turn, dict) for turn in turns):
            raise UserError(f"{where}: messages is not a list of turns")
        return "\n\n".join(string(turn, "content", where) for turn in turns)
    question = next((name for name in QUESTION if name in row), None)
    answer = next((name for name in ANSWER if name in row), None)
    if question is None or answer is None:
        raise UserError(f"{where}: an instruction needs {QUESTION[0]} and {ANSWER[0]}, or messages")
    matter = [row[name] for name in MATTER if isinstance(row.get(name), str) and row[name].strip()]
    head = "\n".join([string(row, question, where), *matter])
    return f"{head}\n\n{string(row, answer, where)}"
