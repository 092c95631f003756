"""Text to ids and back, for the two forms in which these models ship a tokenizer.

`qwen.tiktoken` (Qwen v1; technical report §2.2) and `tokenizer.json` (everything later). Control
tokens written out in a text stay text: only `allow_special=True` reads them as control tokens, so
that nobody's data can end a turn. Knows nothing of chats (chatml.py) or of models.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from qwen_eval.errors import UserError

# paper.md B; Qwen's own tokenization_qwen.py: cl100k's pattern with single digits.
QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    *(f"<|extra_{i}|>" for i in range(205)),
)
_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
DEFAULT_SYSTEM = "You are a helpful assistant."
END_OF_TURN = ("<|endoftext|>", "<|im_end|>")


class Tokenizer(Protocol):
    """What models, chats and the engine's callers need of a tokenizer.

    `bos_id` is put before every text by models that were trained so, None for the others.
    `start_id` stands before the first token when its probability is asked. `stop_ids` end a reply.
    `splits_at_spaces`: a text may be encoded in two parts between a letter and a following space.
    `default_system` is the system message the model's own chat template adds; None for none.
    `fingerprint` is a hash of the files it was read from.
    """

    vocab_size: int
    eos_id: int
    bos_id: int | None
    start_id: int
    stop_ids: frozenset[int]
    splits_at_spaces: bool
    default_system: str | None
    fingerprint: str

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of a text, without bos."""
        ...

    def decode(self, ids: Sequence[int], *, show_special: bool = False) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD, control tokens are left out."""
        ...

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids, so that half a character can be looked at. Control tokens are left out."""
        ...

    def special(self, name: str) -> int:
        """Id of a control token. Raises UserError if the tokenizer has none of that name."""
        ...


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a checkpoint folder. Raises UserError for what is missing or broken."""
    if (folder / "tokenizer.json").is_file():
        return FastTokenizer(folder)
    ranks = sorted(folder.glob("*.tiktoken"))
    if ranks:
        return TiktokenTokenizer(ranks[0])
    raise UserError(f"{folder}: neither tokenizer.json nor qwen.tiktoken; copy one of them there")


def tokenizer_files(folder: Path) -> list[Path]:
    """The files of a folder that say what its tokenizer is and how a chat is laid out."""
    names = {*folder.glob("*.tiktoken"), *(folder / name for name in _FILES)}
    return sorted(path for path in names if path.is_file())


class TiktokenTokenizer:
    """`qwen.tiktoken`: byte pairs by rank, NFC, 208 control tokens behind the last rank."""

    splits_at_spaces = True
    default_system: str | None = DEFAULT_SYSTEM
    bos_id: int | None = None

    def __init__(self, path: Path) -> None:
        import tiktoken

        data = path.read_bytes()
        ranks = read_ranks(path, data)
        self._specials = {name: len(ranks) + i for i, name in enumerate(QWEN_SPECIALS)}
        self._names = {id_: name for name, id_ in self._specials.items()}
        self._encoding = tiktoken.Encoding(
            "qwen", pat_str=QWEN_PATTERN, mergeable_ranks=ranks, special_tokens=self._specials
        )
        self.vocab_size = self._encoding.n_vocab
        self.eos_id = self.start_id = self._specials["<|endoftext|>"]
        self.stop_ids = frozenset(self._specials[name] for name in END_OF_TURN)
        self.fingerprint = hashlib.sha256(data).hexdigest()[:16]

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of the NFC form of a text."""
        text = normal_form(text)
        if allow_special:
            return self._encoding.encode(text, allowed_special="all")
        return self._encoding.encode_ordinary(text)

    def decode(self, ids: Sequence[int], *, show_special: bool = False) -> str:
        """Text of ids."""
        kept = ids if show_special else [i for i in ids if i not in self._names]
        return self._encoding.decode(list(kept), errors="replace")

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids."""
        return self._encoding.decode_bytes([i for i in ids if i not in self._names])

    def special(self, name: str) -> int:
        """Id of a control token."""
        return _look_up(self._specials, name)


class FastTokenizer:
    """`tokenizer.json` through the tokenizers library, with tokenizer_config.json beside it."""

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer as Rust

        path = folder / "tokenizer.json"
        data = path.read_bytes()
        try:
            self._rust = Rust.from_str(data.decode("utf-8"))
        except Exception as error:  # the library raises a bare Exception
            raise UserError(f"{path}: not a tokenizer ({error}); replace the file") from error
        self._rust.no_padding()
        self._rust.no_truncation()
        config = _read_json(folder / "tokenizer_config.json")
        layout = json.loads(data)
        added = {t["content"]: t for t in layout.get("added_tokens") or []}
        self._specials = {name: int(t["id"]) for name, t in added.items() if t["special"]}
        self._special_ids = frozenset(self._specials.values())
        self.vocab_size = self._rust.get_vocab_size(with_added_tokens=True)
        self.eos_id = self._end_id(folder, config)
        plain, framed = (self._rust.encode("a", add_special_tokens=f).ids for f in (False, True))
        # A template may also append a token (T5, BERT); only what stands before the text is bos.
        self.bos_id = framed[0] if framed[:1] != plain[:1] else None
        named_start = self._id_of(config.get("bos_token"))
        self.start_id = self.eos_id if named_start is None else named_start
        ends = {self._specials[name] for name in END_OF_TURN if name in self._specials}
        self.stop_ids = frozenset({self.eos_id, *ends, *_generation_ends(folder)})
        self._byte_level = "ByteLevel" in _kinds(layout.get("decoder"))
        self.splits_at_spaces = (
            "ByteLevel" in _kinds(layout.get("pre_tokenizer"))
            and _kinds(layout.get("normalizer")) <= {"NFC", "Sequence"}
            and not any(" " in name for name in added)
        )
        self.default_system = _default_system(_chat_template(folder, config))
        self.fingerprint = hashlib.sha256(data).hexdigest()[:16]

    def encode(self, text: str, *, allow_special: bool = False) -> list[int]:
        """Ids of a text, without bos."""
        self._rust.encode_special_tokens = not allow_special
        ids: list[int] = self._rust.encode(without_surrogates(text), add_special_tokens=False).ids
        return ids

    def decode(self, ids: Sequence[int], *, show_special: bool = False) -> str:
        """Text of ids."""
        return str(self._rust.decode(list(ids), skip_special_tokens=not show_special))

    def decode_bytes(self, ids: Sequence[int]) -> bytes:
        """Bytes of ids; for a tokenizer that is not byte-level, those of the decoded text."""
        kept = [i for i in ids if i not in self._special_ids]
        if not self._byte_level:
            return self.decode(kept).encode()
        table, out = self._byte_of, bytearray()
        for id_ in kept:
            token = self._rust.id_to_token(id_) or ""
            # An added token is stored as plain text, everything else in the byte alphabet.
            known = all(char in table for char in token)
            out += bytes(table[char] for char in token) if known else token.encode()
        return bytes(out)

    def special(self, name: str) -> int:
        """Id of a control token."""
        return _look_up(self._specials, name)

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        # GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 on.
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = [byte for byte in range(256) if byte not in printable]
        table = {chr(byte): byte for byte in printable}
        return table | {chr(256 + i): byte for i, byte in enumerate(others)}

    def _id_of(self, entry: Any) -> int | None:
        name = entry.get("content") if isinstance(entry, dict) else entry
        return self._rust.token_to_id(name) if isinstance(name, str) else None

    def _end_id(self, folder: Path, config: dict[str, Any]) -> int:
        found = self._id_of(config.get("eos_token"))
        if found is not None:
            return found
        of_model = _read_json(folder / "config.json").get("eos_token_id")
        of_model = of_model[0] if isinstance(of_model, list) and of_model else of_model
        if isinstance(of_model, int):
            return of_model
        raise UserError(
            f"{folder}: no end-of-text token; name eos_token in tokenizer_config.json or "
            "eos_token_id in config.json"
        )


def normal_form(text: str) -> str:
    """What Qwen v1 reads instead of a text: NFC, with no half of a surrogate pair in it."""
    return unicodedata.normalize("NFC", without_surrogates(text))


def read_ranks(path: Path, data: bytes) -> dict[bytes, int]:
    """Tokens and their ranks, of the bytes of a tiktoken file in order of rank.

    Raises UserError naming the file and the line that is wrong.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line:
            continue
        try:
            token, rank = line.split()
            if int(rank) != len(ranks):
                raise ValueError
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except ValueError:
            raise UserError(
                f"{path}, line {number}: expected a base64 token and the rank {len(ranks)}; "
                "replace the file"
            ) from None
    if len(ranks) < 256:
        raise UserError(f"{path}: ranks are missing; replace the file")
    return ranks


def _look_up(specials: dict[str, int], name: str) -> int:
    if name not in specials:
        raise UserError(f"this model's tokenizer has no {name}; it cannot be talked to in ChatML")
    return specials[name]


def without_surrogates(text: str) -> str:
    """Surrogate pairs joined, lone ones replaced: no tokenizer has a token for half of UTF-16."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); replace the file") from error
    return value if isinstance(value, dict) else {}


def _generation_ends(folder: Path) -> set[int]:
    ends = _read_json(folder / "generation_config.json").get("eos_token_id")
    return {e for e in (ends if isinstance(ends, list) else [ends]) if isinstance(e, int)}


def _kinds(part: Any) -> set[str]:
    """Types of a component of tokenizer.json and of everything inside it."""
    if isinstance(part, list):
        return set().union(*map(_kinds, part))
    if not isinstance(part, dict):
        return set()
    inner = set().union(*map(_kinds, part.values()))
    return inner | ({part["type"]} if isinstance(part.get("type"), str) else set())


def _chat_template(folder: Path, config: dict[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    return template if isinstance(template, str) else ""


def _default_system(template: str) -> str | None:
    """What the template says before a lone user's turn; the paper's sentence without a template."""
    if not template:
        return DEFAULT_SYSTEM
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    turn = {"role": "user", "content": "?"}
    try:
        rendered = environment.from_string(template).render(messages=[turn])
    except (TemplateError, TypeError, ValueError):
        return DEFAULT_SYSTEM
    found = re.match(r"<\|im_start\|>system\n(.*?)<\|im_end\|>", rendered, re.DOTALL)
    return found[1] if found else None
