"""A whole checkpoint folder of toy size: bytes as tokens, random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import save_model

CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def toy_tokenizer(folder: Path, **parts: Any) -> Path:
    """A folder with a byte-level tokenizer.json and a tokenizer_config.json."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    rust = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = decoders.ByteLevel()
    rust.add_special_tokens(parts.pop("specials", ["<s>", "</s>"]))
    if post := parts.pop("post_processor", None):
        rust.post_processor = post
    if normalizer := parts.pop("normalizer", None):
        rust.normalizer = normalizer
    rust.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"} | parts))
    return folder


def toy_checkpoint(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    """Qwen2 with 259 tokens (256 bytes and ChatML's), two layers, a context of 256."""
    folder.mkdir(parents=True, exist_ok=True)
    toy_tokenizer(folder, specials=CHATML, eos_token="<|endoftext|>")
    defaults: dict[str, Any] = {
        "family": "qwen2",
        "vocab_size": 259,
        "hidden_size": 32,
        "num_layers": 2,
        "num_heads": 4,
        "num_kv_heads": 2,
        "head_dim": 8,
        "ffn_size": 48,
        "rope_base": 10000.0,
        "max_length": 256,
        "trained_length": 256,
        "qkv_bias": True,
    }
    config = ModelConfig(**defaults | changes)
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
    save_model(model, folder)
    return folder


def toy_chat(folder: Path, template: str) -> Path:
    """A toy checkpoint that transformers asks in conversation by this template."""
    from transformers import AutoTokenizer

    toy_checkpoint(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder
