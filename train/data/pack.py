"""Documents as tokens, and tokens as sequences of one length in shards with a manifest.

A document's tokens are followed by the end-of-text token; documents are laid one after the other
and cut into sequences of `length` tokens ("shuffle and merge the documents, and then truncate them
to the specified context lengths", the paper). Where documents begin is kept beside every shard, for
masks that keep them apart. The manifest is written last: without it there is no corpus, and what
does not match it is refused. Knows nothing of filters and sources.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from qwen_eval.errors import UserError
from qwen_eval.fileio import canonical_json, file_hash, write_atomic

from .pace import counted
from .shards import atomic, beside, load_array, save_array

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

VERSION = 1
TOKENS, TABLE = ".tokens.npy", ".table.npy"
MANIFEST = "manifest.json"
TOKENIZER = "tokenizer"
# A tokenised document: its tokens in the shard's file (end of text included), id, source number.
TABLE_TYPE = [("start", "<u8"), ("length", "<u8"), ("id", "<u8"), ("source", "<u2")]


class Encoder(Protocol):
    """What packing needs of a tokenizer (`qwen_eval.model.tokenizer.Tokenizer` has it)."""

    vocab_size: int
    eos_id: int
    fingerprint: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without bos."""
        ...


class ByteTokenizer:
    """UTF-8 bytes as tokens and an end of text: for trials before a tokenizer is trained."""

    vocab_size = 257
    eos_id = 256
    fingerprint = "bytes"

    def encode(self, text: str) -> list[int]:
        """A text's bytes."""
        return list(text.encode("utf-8", "replace"))


def open_encoder(name: str) -> Encoder:
    """`bytes`, or the tokenizer of a folder. Raises UserError for a folder without one."""
    if name == "bytes":
        return ByteTokenizer()
    from qwen_eval.model.tokenizer import load_tokenizer

    return load_tokenizer(Path(name))


def copy_tokenizer(name: str, folder: Path) -> None:
    """Put the files of a tokenizer's folder beside the shards, so that what is trained on them
    can be read without asking where its tokenizer was."""
    from qwen_eval.model.tokenizer import tokenizer_files

    if name != "bytes":
        target = folder / TOKENIZER
        target.mkdir(exist_ok=True)
        for path in tokenizer_files(Path(name)):
            shutil.copyfile(path, target / path.name)


def token_type(vocab_size: int) -> str:
    """The smallest little-endian type that holds every id."""
    return "<u2" if vocab_size <= 1 << 16 else "<u4"


def tokenise(stem: Path, texts: Iterator[tuple[int, str, int]], encoder: Encoder) -> None:
    """Write the tokens of (id, text, source number) and a table of TABLE_TYPE; the table last."""
    import numpy as np

    kind = token_type(encoder.vocab_size)
    parts, rows, start = [np.empty(0, kind)], [], 0
    for id_, text, source in texts:
        tokens = np.array([*encoder.encode(text), encoder.eos_id], kind)
        parts.append(tokens)
        rows.append((start, len(tokens), id_, source))
        start += len(tokens)
    save_array(beside(stem, TOKENS), np.concatenate(parts))
    save_array(beside(stem, TABLE), np.array(rows, TABLE_TYPE))


def pack(
    folder: Path,
    stems: Sequence[Path],
    ordered: Iterator[tuple[NDArray[Any], NDArray[Any]]],
    encoder: Encoder,
    length: int,
    shard_sequences: int,
) -> dict[str, Any]:
    """Lay tokenised documents out in their order; return what the manifest says of the shards.

    Shards that are there from an earlier start are left as they are. A last part shorter than a
    sequence is left out and counted.
    """
    import numpy as np

    tables = [load_array(beside(stem, TABLE), mapped=True) for stem in stems]
    tokens = [load_array(beside(stem, TOKENS), mapped=True) for stem in stems]
    size = length * shard_sequences
    buffer = np.empty(size, token_type(encoder.vocab_size))
    filled = 0
    starts: list[int] = []
    shards: list[dict[str, Any]] = []

    def flush(used: int) -> None:
        counted(buffer[:used].nbytes)
        name = f"{len(shards):05}"
        begins = np.array([start for start in starts if start < used], np.int64)
        shards.append(_write_shard(folder, name, buffer[:used], begins, length))

    for shard_of, rows in ordered:
        for shard, row in zip(shard_of.tolist(), rows.tolist(), strict=True):
            start, count = int(tables[shard]["start"][row]), int(tables[shard]["length"][row])
            done = 0
            starts.append(filled)
            while done < count:
                taken = min(count - done, size - filled)
                at = start + done
                buffer[filled : filled + taken] = tokens[shard][at : at + taken]
                filled, done = filled + taken, done + taken
                if filled == size:
                    flush(size)
                    filled = 0
                    starts.clear()
    whole = filled // length * length
    if whole:
        flush(whole)
    return {
        "sequences": sum(shard["sequences"] for shard in shards),
        "left_out_tokens": filled - whole,
        "shards": shards,
    }


def write_manifest(folder: Path, encoder: Encoder, length: int, content: dict[str, Any]) -> None:
    """Say that the corpus is whole."""
    manifest = {
        "version": VERSION,
        "length": length,
        "dtype": token_type(encoder.vocab_size),
        "vocab_size": encoder.vocab_size,
        "eos_id": encoder.eos_id,
        "tokenizer": encoder.fingerprint,
        **content,
    }
    write_atomic(folder / MANIFEST, canonical_json(manifest) + "\n")


@dataclass(frozen=True)
class PackedCorpus:
    """A packed corpus, read where it lies.

    Raises UserError if the manifest is missing or says other than the files; `verify` reads every
    byte, which takes a second a gigabyte.
    """

    folder: Path
    verify: bool = False

    def __post_init__(self) -> None:
        for shard in self._shards:
            path = self.folder / f"{shard['name']}.bin"
            wanted = shard["sequences"] * self.length * self._type.itemsize
            if not path.is_file() or path.stat().st_size != wanted:
                there = f"{path.stat().st_size} bytes" if path.is_file() else "missing"
                raise UserError(f"{path}: {there}, the manifest says {wanted} bytes; pack it again")
            for ending in ("bin", "starts.npy") if self.verify else ():
                path = self.folder / f"{shard['name']}.{ending}"
                if not path.is_file() or file_hash(path) != shard[ending]:
                    raise UserError(f"{path}: not the bytes of the manifest; pack it again")

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """All that packing said of the corpus."""
        path = self.folder / MANIFEST
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{path}: missing; packing was not finished, repeat `qwen-eval train data`"
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no manifest ({error}); pack it again") from error
        wanted = {"version", "length", "dtype", "eos_id", "sequences", "shards", "vocab_size"}
        if not isinstance(manifest, dict) or not wanted <= manifest.keys():
            raise UserError(f"{path}: no manifest; pack it again")
        if manifest["version"] != VERSION:
            raise UserError(f"{path}: version {manifest['version']}, {VERSION} can be read")
        return manifest

    @property
    def length(self) -> int:
        """Tokens of a sequence."""
        return int(self.manifest["length"])

    def __len__(self) -> int:
        return int(self.manifest["sequences"])

    def __getitem__(self, index: int) -> NDArray[Any]:
        """The tokens of a sequence (length,). Raises IndexError."""
        shard, row = self._place(index)
        return self._tokens[shard][row * self.length : (row + 1) * self.length]

    def starts(self, index: int) -> NDArray[np.int64]:
        """Where documents begin in a sequence, from 0; its first part may belong to an earlier
        one."""
        shard, row = self._place(index)
        begins = self._starts[shard]
        low, high = begins.searchsorted([row * self.length, (row + 1) * self.length])
        return begins[low:high] - row * self.length

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        shard = int(self._offsets.searchsorted(index, side="right")) - 1
        return shard, index - int(self._offsets[shard])

    @cached_property
    def _shards(self) -> list[dict[str, Any]]:
        return list(self.manifest["shards"])

    @cached_property
    def _type(self) -> np.dtype[Any]:
        import numpy as np

        kind: np.dtype[Any] = np.dtype(self.manifest["dtype"])
        return kind

    @cached_property
    def _offsets(self) -> NDArray[np.int64]:
        import numpy as np

        return np.cumsum([0, *(shard["sequences"] for shard in self._shards)])

    @cached_property
    def _tokens(self) -> list[NDArray[Any]]:
        import numpy as np

        return [np.memmap(self.folder / f"{s['name']}.bin", self._type, "r") for s in self._shards]

    @cached_property
    def _starts(self) -> list[NDArray[np.int64]]:
        return [load_array(self.folder / f"{s['name']}.starts.npy") for s in self._shards]


def _write_shard(
    folder: Path, name: str, tokens: NDArray[Any], starts: NDArray[Any], length: int
) -> dict[str, Any]:
    binary, begins = folder / f"{name}.bin", folder / f"{name}.starts.npy"
    if not (binary.exists() and begins.exists()):
        save_array(begins, starts)
        with atomic(binary) as file:
            file.write(tokens.tobytes())
    return {
        "name": name,
        "sequences": len(tokens) // length,
        "bin": file_hash(binary),
        "starts.npy": file_hash(begins),
    }
