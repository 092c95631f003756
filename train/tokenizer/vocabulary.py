"""A byte-pair vocabulary as a tiktoken file, with a manifest that says how it came about.

Knows nothing of how text is counted or merges are found.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from qwen_eval.errors import UserError
from qwen_eval.fileio import write_atomic
from qwen_eval.model.tokenizer import QWEN_PATTERN, QWEN_SPECIALS, read_ranks

from .merges import Merge

# What Qwen v1's own loaders look for in a checkpoint.
FILE, MANIFEST = "qwen.tiktoken", "manifest.json"
BYTES = tuple(bytes([value]) for value in range(256))


def read_base(path: Path) -> list[bytes]:
    """Tokens of a tiktoken file by rank, as a base to learn on.

    Raises UserError for a broken line, a byte that is missing, and a token that merging by rank
    never yields: encoders would disagree about text that holds it.
    """
    try:
        ranks = read_ranks(path, path.read_bytes())
    except OSError as error:
        raise UserError(f"--base {path}: cannot be read ({error.strerror})") from error
    for byte in BYTES:
        if byte not in ranks:
            raise UserError(f"--base {path}: no token for the byte {byte!r}; replace the file")
    for token, rank in ranks.items():
        if len(token) > 1 and len(merged(token, ranks, rank)) != 2:
            raise UserError(
                f"--base {path}, line {rank + 1}: {token!r} comes of no merge of earlier tokens; "
                "replace the file"
            )
    return list(ranks)


def without_numbers(tokens: Iterable[bytes]) -> list[bytes]:
    """The tokens that are not several digits, which the pattern never lets together.

    Qwen's own vocabulary begins with cl100k's tokens but for these 1,100, in their order.
    """
    return [token for token in tokens if len(token) == 1 or not token.isdigit()]


def merged(text: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """A piece merged by the tokens of ranks under `below`: always the lowest rank, from the left.

    What tiktoken does, written plainly.
    """
    parts = [text[i : i + 1] for i in range(len(text))]
    while len(parts) > 1:
        found = [ranks.get(a + b, below) for a, b in pairwise(parts)]
        lowest = min(found)
        if lowest >= below:
            break
        at = found.index(lowest)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts


def extended(base: Sequence[bytes], merges: Iterable[Merge]) -> list[bytes]:
    """The base's tokens and behind them those of the merges."""
    tokens = list(base)
    for merge in merges:
        tokens.append(tokens[merge.left] + tokens[merge.right])
    assert len(set(tokens)) == len(tokens), "a token was learnt twice"
    return tokens


def open_folder(folder: Path) -> None:
    """Make the folder of a vocabulary. Raises UserError if it cannot be, or holds one already."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be made ({error.strerror})") from error
    if (folder / FILE).exists():
        raise UserError(f"--out {folder}: holds a {FILE} already; name another folder")


def write_vocabulary(folder: Path, tokens: Sequence[bytes], history: Mapping[str, Any]) -> Path:
    """Write `qwen.tiktoken` and, around `history`, `manifest.json`; the path of the first.

    Raises UserError if the folder cannot be written.
    """
    text = "".join(f"{base64.b64encode(t).decode()} {rank}\n" for rank, t in enumerate(tokens))
    manifest = {
        "vocabulary": FILE,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "tokens": len(tokens),
        "control_tokens": {name: len(tokens) + i for i, name in enumerate(QWEN_SPECIALS)},
        "vocab_size": len(tokens) + len(QWEN_SPECIALS),
        "normal_form": "NFC",
        "pattern": QWEN_PATTERN,
        **history,
    }
    write_atomic(folder / FILE, text)
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return folder / FILE
