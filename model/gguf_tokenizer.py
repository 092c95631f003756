"""The tokenizer inside a GGUF file, written as tokenizer.json and tokenizer_config.json.

A GGUF names its pre-tokenizer (`tokenizer.ggml.pre`) instead of spelling it out; the ones known
here are rebuilt from the tokenizers library's own parts. Any other is refused: a wrong cut into
words changes ids in silence.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qwen_eval.errors import UserError

from .tokenizer import QWEN_PATTERN

if TYPE_CHECKING:
    from .gguf_import import GgufFile

CONTROL, USER_DEFINED = 3, 4  # gguf.TokenType


def write_tokenizer(file: GgufFile, folder: Path) -> None:
    """Write both files into the folder. Raises UserError for a tokenizer that is not known."""
    kind = file.field("tokenizer.ggml.model")
    tokens = file.field("tokenizer.ggml.tokens")
    if kind != "gpt2" or not tokens:
        raise UserError(f"{file.path}: tokenizer {kind} is not supported; byte-level BPE only")
    rust = _byte_level_bpe(file, tokens)
    folder.mkdir(parents=True, exist_ok=True)
    rust.save(str(folder / "tokenizer.json"))

    def named(role: str) -> str | None:
        id_ = file.field(f"tokenizer.ggml.{role}_token_id")
        return tokens[id_] if isinstance(id_, int) and id_ < len(tokens) else None

    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": file.field(f"{file.architecture}.context_length"),
        "clean_up_tokenization_spaces": False,
        "bos_token": named("bos"),
        "eos_token": named("eos"),
        "unk_token": named("unknown"),
        "pad_token": named("padding"),
        "chat_template": file.field("tokenizer.chat_template"),
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


def _byte_level_bpe(file: GgufFile, tokens: list[str]) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
    from tokenizers.models import BPE

    merges = [tuple(merge.split(" ", 1)) for merge in file.field("tokenizer.ggml.merges", [])]
    rust = Tokenizer(BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    match file.field("tokenizer.ggml.pre"):
        case "smollm":
            rust.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
                ]
            )
        case "qwen2":
            rust.normalizer = normalizers.NFC()
            rust.pre_tokenizer = pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Split(Regex(QWEN_PATTERN), behavior="isolated"),
                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
                ]
            )
        case other:
            raise UserError(
                f"{file.path}: pre-tokenizer {other} is not supported; known: smollm, qwen2"
            )
    rust.decoder = decoders.ByteLevel()
    kinds = file.field("tokenizer.ggml.token_type", [])
    control = [t for t, kind in zip(tokens, kinds, strict=False) if kind == CONTROL]
    added = [t for t, kind in zip(tokens, kinds, strict=False) if kind == USER_DEFINED]
    rust.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control]
    )
    rust.add_tokens([AddedToken(token, special=False, normalized=False) for token in added])
    return rust
