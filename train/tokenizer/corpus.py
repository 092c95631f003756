"""Documents of text files: JSON lines with a column `text`, and plain text.

Reads one document at a time, so that a corpus may be larger than memory. Knows nothing of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from qwen_eval.errors import UserError
from qwen_eval.fileio import read_jsonl

SUFFIXES = (".jsonl", ".jsonl.gz", ".txt")
# A plain text file is read in blocks of whole lines, each of at least so many bytes.
BLOCK_BYTES = 1 << 20


@dataclass(frozen=True)
class Document:
    """A text and where it comes from.

    `source` is what a row's `source` says before its first `/` or `#`, else the file's name
    without suffixes; `lang` is the row's `lang`, else "?".
    """

    text: str
    source: str
    lang: str


def text_files(paths: Sequence[Path]) -> list[Path]:
    """The files named, and those of known kinds in the folders named, each once.

    Raises UserError for what is missing, of another kind, or holds no such file.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and _known(p))
            if not inside:
                raise UserError(f"--text {path}: no {', '.join(SUFFIXES)} in this folder")
            found |= dict.fromkeys(inside)
        elif not path.is_file():
            raise UserError(f"--text {path}: no such file or folder")
        elif not _known(path):
            raise UserError(f"--text {path}: of no known kind; give {', '.join(SUFFIXES)}")
        else:
            found[path] = None
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
    """All documents of all files, in order.

    limit: about so many bytes of text, taken from the beginning of every file in proportion to
    its size. Raises UserError naming the file and the row or byte for what is no text.
    """
    whole = sum(map(size, files))
    for path in files:
        budget = None if limit is None else limit * size(path) / max(whole, 1)
        taken = 0
        for document in _rows(path) if path.suffix != ".txt" else _blocks(path):
            yield document
            taken += len(document.text.encode("utf-8", "surrogatepass"))
            if budget is not None and taken >= budget:
                break


def _known(path: Path) -> bool:
    return path.name.endswith(SUFFIXES)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name


def _collection(source: str) -> str:
    return source.partition("/")[0].partition("#")[0] or source


def _rows(path: Path) -> Iterator[Document]:
    for number, row in enumerate(read_jsonl(path), 1):
        text, source, lang = row.get("text"), row.get("source"), row.get("lang")
        if not isinstance(text, str):
            raise UserError(f"{path}, row {number}: no column `text` with a string in it")
        yield Document(
            text,
            _collection(source) if isinstance(source, str) and source else _stem(path),
            lang if isinstance(lang, str) and lang else "?",
        )


def _blocks(path: Path) -> Iterator[Document]:
    done = 0
    try:
        with path.open("rb") as file:
            while lines := file.readlines(BLOCK_BYTES):
                block = b"".join(lines)
                yield Document(block.decode(), _stem(path), "?")
                done += len(block)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, byte {done + error.start}: not UTF-8; convert the file, or leave it out"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
