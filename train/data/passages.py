"""The texts of a corpus with the place of each, for whoever looks for something in them.

A corpus is any files of JSON lines or plain text, or the folder that `qwen-eval train data` made:
of that, what was packed. A file may be larger than memory, a row of it may not. Knows nothing of
what is looked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from qwen_eval.errors import UserError
from qwen_eval.fileio import Watch, open_watched, read_jsonl
from qwen_eval.ngrams import words

from ..documents import BLOCK_BYTES, text_files
from .decontaminate import texts_of
from .pipeline import PACKED, STAGES


def corpus_files(paths: Sequence[Path], flag: str) -> list[Path]:
    """The files of a corpus, each once. Raises UserError, with the flag that named it, for what is
    missing or of another kind."""
    return text_files([part for path in paths for part in _packed_from(path)], flag)


def _packed_from(path: Path) -> list[Path]:
    """The folders whose documents were packed, where `train data` made this one; else the path."""
    if not (path / PACKED / "manifest.json").is_file():
        return [path]
    *texts, instructions = [path / stage / "kept" for stage in STAGES]
    return [[folder for folder in texts if folder.is_dir()][-1]] + (
        [instructions] if instructions.is_dir() else []
    )


def passages(path: Path, overlap: int, watch: Watch | None = None) -> Iterator[tuple[str, str]]:
    """(where, text) of all texts of a file.

    JSON lines: the `text` of each row, where it is one, else all strings of the row in their order,
    a line each. Plain text: blocks of lines, each of which begins with lines of the one before that
    hold at least `overlap` words, so that nothing is cut. watch: is told of the bytes as they are
    read. Raises UserError naming file and line for what is no text, and for a file without any.
    """
    empty = True
    for where, text in (
        _blocks(path, overlap, watch) if path.suffix == ".txt" else _rows(path, watch)
    ):
        if text.strip():
            empty = False
            yield where, text
    if empty:
        raise UserError(f"--corpus {path}: there is no text in it; leave it out")


def _rows(path: Path, watch: Watch | None) -> Iterator[tuple[str, str]]:
    for number, row in enumerate(read_jsonl(path, watch=watch), 1):
        text = row.get("text")
        yield f"{path}, row {number}", text if isinstance(text, str) else "\n".join(texts_of(row))


def _blocks(path: Path, overlap: int, watch: Watch | None) -> Iterator[tuple[str, str]]:
    before: list[bytes] = []
    done = 0
    try:
        with open_watched(path, watch) as file:
            while fresh := file.readlines(BLOCK_BYTES):
                lines = [*before, *fresh]
                text = b"".join(lines).decode()
                yield f"{path}, line {done - len(before) + 1}", text
                done += len(fresh)
                before, held = [], 0
                while held < overlap and len(before) < len(lines):
                    before.insert(0, lines[-1 - len(before)])
                    held += len(words(before[0].decode()))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, in the lines from {done + 1} on: not UTF-8; convert the file, or leave it out"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
