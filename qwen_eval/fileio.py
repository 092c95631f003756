"""Files that survive a kill: atomic writes, an append-only journal, hashes.

Knows nothing of what the files mean.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import json
import os
import secrets
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from qwen_eval.errors import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

SYNC_SECONDS = 1.0
# Told how many bytes were just read.
Watch = Callable[[int], object]
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def canonical_json(value: Any) -> str:
    """One text per value: sorted keys, no spaces, UTF-8 kept, NaN refused."""
    return json.dumps(
        value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False
    )


def text_hash(text: str, length: int = 16) -> str:
    """First `length` hex digits of the SHA-256 of the text (lone surrogates kept apart)."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:length]


def encodable(text: str) -> str:
    """Half characters (lone surrogates), as a model may leave them and UTF-8 cannot hold them, the
    way that JSON escapes them."""
    return text.encode("utf-8", "backslashreplace").decode()


def file_hash(path: Path, watch: Watch | None = None) -> str:
    """SHA-256 of a file's bytes, hex. watch: is told of the bytes as they are read."""
    with open_watched(path, watch) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a whole file or nothing: temporary file, fsync, rename. UserError if it cannot be."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", errors="surrogatepass") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a file is what a kill during write_atomic left behind."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


class Journal:
    """Append-only JSON lines. Every line is handed to the kernel at once, so it outlives the
    process; it is forced to the disk at most a second later, so it outlives the machine.

    Opening an existing journal cuts a torn last line off. Raises UserError when the disk is full:
    what was appended before stays readable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.exists():
                _cut_torn_line(path)
            self._file: IO[bytes] = path.open("ab", buffering=0)
        except OSError as error:
            raise _cannot_write(path, error) from error
        self._synced = time.monotonic()

    def append(self, record: Any) -> None:
        """Add one record as one line."""
        line = (json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n").encode(
            "utf-8", "surrogatepass"
        )
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        if time.monotonic() - self._synced > SYNC_SECONDS:
            self.sync()

    def sync(self) -> None:
        """Force what was appended to the disk."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        self._synced = time.monotonic()

    def close(self) -> None:
        """Sync and close."""
        if not self._file.closed:
            self.sync()
            self._file.close()


def _cannot_write(path: Path, error: OSError) -> UserError:
    way_out = "; free some space and repeat the same command, finished samples are kept"
    return UserError(
        f"cannot write {path}: {error.strerror}{way_out if error.errno in _FULL else ''}"
    )


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        size = end = file.seek(0, os.SEEK_END)
        while end > 0:
            start = max(0, end - 65536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                end = start + newline + 1
                break
            end = start
        if end < size:
            file.truncate(end)


class _Watched(io.FileIO):
    def __init__(self, path: Path, watch: Watch) -> None:
        super().__init__(path)
        self._watch = watch

    def readinto(self, buffer: WriteableBuffer) -> int:
        count = super().readinto(buffer)
        self._watch(count)
        return count

    def readall(self) -> bytes:
        data = super().readall()
        self._watch(len(data))
        return data


def open_watched(path: Path, watch: Watch | None = None) -> io.BufferedReader:
    """A file to read; `watch` is told of its bytes as they are read."""
    return path.open("rb") if watch is None else io.BufferedReader(_Watched(path, watch))


def read_jsonl(
    path: Path, *, torn_end: bool = False, watch: Watch | None = None
) -> Iterator[dict[str, Any]]:
    """Objects of a JSON-lines file, gzip-compressed if its name ends in .gz.

    torn_end: a last line without a newline is what a kill leaves behind, and is skipped.
    watch: is told of the file's bytes as they are read.
    Raises UserError naming file and line for anything else that is not a JSON object (NaN and
    Infinity, which Python would read, are not JSON either).
    """
    try:
        raw = open_watched(path, watch)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    number = 0
    try:
        with raw, gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw as file:
            for number, line in enumerate(file, 1):
                if torn_end and not line.endswith(b"\n"):
                    return
                if not line.strip():
                    continue
                record = json.loads(line, parse_constant=_refuse_constant)
                if not isinstance(record, dict):
                    raise UserError(f"{path}, line {number}: expected a JSON object")
                yield record
    except (ValueError, RecursionError, EOFError, OSError, zlib.error) as error:
        read = isinstance(error, ValueError | RecursionError)  # so the line is the last one read
        raise UserError(
            f"{path}, line {number + (not read)}: {'not JSON' if read else error}; mend or "
            "replace the file"
        ) from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
