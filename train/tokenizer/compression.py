"""How many tokens vocabularies need for the same text (technical report, Figure 3).

The paper does not print its formula; here it is tokens per byte of UTF-8, and the ratio of tokens
to those of a reference. Lower is better. Knows nothing of training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from qwen_eval.errors import UserError
from qwen_eval.model.tokenizer import QWEN_PATTERN, TiktokenTokenizer, normal_form, read_ranks

from ..documents import Document

# cl100k_base of OpenAI, known by its file's hash: three digits a piece where Qwen has one.
CL100K = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
CL100K_PATTERN = QWEN_PATTERN.replace(r"|\p{N}|", r"|\p{N}{1,3}|")

Count = Callable[[str], int]


@dataclass
class Group:
    """Documents of one language or source: bytes of UTF-8, and tokens by vocabulary."""

    documents: int = 0
    bytes: int = 0
    tokens: dict[str, int] = field(default_factory=dict)

    def per_byte(self, name: str) -> float:
        """Tokens of a vocabulary per byte."""
        return self.tokens[name] / self.bytes

    def ratio(self, name: str, reference: str) -> float:
        """Tokens of a vocabulary for one token of the reference."""
        return self.tokens[name] / self.tokens[reference]


def counter(path: Path) -> Count:
    """What counts the tokens of a text under a vocabulary, control tokens taken as text.

    path: a tiktoken file, a tokenizer.json, or a folder with one of them. Raises UserError for
    what is neither.
    """
    if path.is_dir():
        inside = [path / "tokenizer.json", *sorted(path.glob("*.tiktoken"))]
        path = next((p for p in inside if p.is_file()), path / "tokenizer.json")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"--vocab {path}: cannot be read ({error.strerror})") from error
    if path.suffix == ".json":
        return _of_json(path, data)
    if hashlib.sha256(data).hexdigest() == CL100K:
        return _of_cl100k(path, data)
    tokenizer = TiktokenTokenizer(path)
    return lambda text: len(tokenizer.encode(text))


def measure(
    documents: Iterable[Document],
    vocabularies: Mapping[str, Count],
    group_of: Callable[[Document], str],
) -> dict[str, Group]:
    """Tokens of every vocabulary by group, groups in alphabetical order, empty texts left out.

    Raises UserError if there is no text.
    """
    groups: dict[str, Group] = {}
    for document in documents:
        if not document.text:
            continue
        group = groups.setdefault(group_of(document), Group())
        group.documents += 1
        group.bytes += len(document.text.encode("utf-8", "surrogatepass"))
        for name, count in vocabularies.items():
            group.tokens[name] = group.tokens.get(name, 0) + count(document.text)
    if not groups:
        raise UserError("--text: no text in it; nothing can be measured")
    return dict(sorted(groups.items()))


def _of_json(path: Path, data: bytes) -> Count:
    from tokenizers import Tokenizer

    try:
        rust = Tokenizer.from_str(data.decode())
    except Exception as error:  # the library raises a bare Exception
        raise UserError(f"--vocab {path}: not a tokenizer ({error}); replace the file") from error
    rust.no_truncation()
    rust.no_padding()
    rust.encode_special_tokens = True
    return lambda text: len(rust.encode(normal_form(text), add_special_tokens=False).ids)


def _of_cl100k(path: Path, data: bytes) -> Count:
    import tiktoken

    encoding = tiktoken.Encoding(
        "cl100k",
        pat_str=CL100K_PATTERN,
        mergeable_ranks=read_ranks(path, data),
        special_tokens={},
    )
    return lambda text: len(encoding.encode_ordinary(text))
