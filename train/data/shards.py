"""Files of documents and of arrays between two stages: written whole or not at all.

The same documents make the same bytes. Knows nothing of what a stage does.
"""

from __future__ import annotations

import gzip
import os
import secrets
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, read_jsonl

from ..documents import Document
from .pace import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENDING = ".jsonl.gz"
# Stages read what the stage before wrote once or twice; the fastest level saves the most time.
_LEVEL = 1


@contextmanager
def atomic(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes its name only once it is whole and on the disk.

    Raises UserError where it cannot be written; what was there before stays.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space and repeat the same "
            "command, what is finished is kept"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def shard_writer(path: Path) -> Iterator[ShardWriter]:
    """A shard to add records to; it appears when the block ends without an error."""
    # Neither a name nor a time inside, so equal documents make equal files.
    with atomic(path) as file, gzip.GzipFile("", "wb", _LEVEL, file, mtime=0) as packed:
        yield ShardWriter(packed)


class ShardWriter:
    """Adds records to one shard."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self._file = file

    def add(self, record: dict[str, Any]) -> None:
        """One record as one line."""
        self._file.write(canonical_json(record).encode("utf-8", "surrogatepass") + b"\n")


def read_shard(path: Path) -> Iterator[Document]:
    """The documents of a shard. Raises UserError naming the file for one that is not whole."""
    if path.stat().st_size == 0:  # gzip takes it for an empty file
        raise UserError(f"{path}: empty, which no shard is; remove the file's folder")
    for record in read_jsonl(path, watch=counted):
        try:
            yield Document(**{key: record[key] for key in Document.__slots__})
        except KeyError as error:
            raise UserError(f"{path}: {error} is missing; remove the file's folder") from error


def beside(stem: Path, ending: str) -> Path:
    """A file named like the stem, dots in it and all, with an ending."""
    return stem.with_name(stem.name + ending)


def save_array(path: Path, array: NDArray[Any]) -> None:
    """An array as .npy, whole or not at all."""
    import numpy as np

    with atomic(path) as file:
        np.save(file, array, allow_pickle=False)


def load_array(path: Path, *, mapped: bool = False) -> NDArray[Any]:
    """An array back; `mapped` leaves it on the disk. Raises UserError for a broken file."""
    import numpy as np

    try:
        loaded: NDArray[Any] = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: no array ({error}); remove the file's folder") from error
    return loaded
