"""GGUF files as our model, and once converted, as an ordinary checkpoint folder.

Through the `gguf` library, which also undoes the quantisation. llama.cpp stores the rows of
Llama's q and k projections permuted (pairs side by side, not in halves); they are put back.
The tokenizer's part is gguf_tokenizer.py.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qwen_eval.errors import UserError

from .config import Family, ModelConfig
from .transformer import Transformer

FAMILIES: dict[str, Family] = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}

NAMES = {
    "token_embd": "embedding",
    "output_norm": "norm",
    "output": "head",
    "attn_norm": "attention_norm",
    "ffn_norm": "ffn_norm",
    "attn_q": "attention.q_proj",
    "attn_k": "attention.k_proj",
    "attn_v": "attention.v_proj",
    "attn_output": "attention.o_proj",
    "attn_q_norm": "attention.q_norm",
    "attn_k_norm": "attention.k_norm",
    "ffn_gate": "ffn.gate_proj",
    "ffn_up": "ffn.up_proj",
    "ffn_down": "ffn.down_proj",
}


class GgufFile:
    """An opened GGUF file. Raises UserError if it is not one or its family is not ours."""

    def __init__(self, path: Path) -> None:
        from gguf import GGUFReader

        self.path = path
        try:
            self._reader = GGUFReader(str(path))
        except FileNotFoundError:
            raise UserError(f"{path}: no such file") from None
        except (ValueError, OSError, LookupError) as error:
            raise UserError(f"{path}: truncated or not GGUF ({error})") from error
        self.architecture = str(self.field("general.architecture"))
        if self.architecture not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise UserError(f"{path}: architecture {self.architecture}; supported: {known}")

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value, `default` where the file has none."""
        entry = self._reader.fields.get(key)
        return default if entry is None else entry.contents()

    def quantisation(self) -> str:
        """The storage type of most weights, such as Q4_1 or F16."""
        sizes: Counter[str] = Counter()
        for tensor in self._reader.tensors:
            sizes[tensor.tensor_type.name] += int(tensor.n_elements)
        return sizes.most_common(1)[0][0]

    def config(self) -> ModelConfig:
        """The model's shape from the metadata and the tensors present.

        Raises UserError for what is missing, and for a RoPE that the model does not have.
        """
        heads, hidden = self._size("attention.head_count"), self._size("embedding_length")
        head_dim = self._size("attention.key_length", hidden // max(heads, 1))
        length = self._size("context_length")
        shapes = {tensor.name: tensor.shape for tensor in self._reader.tensors}
        if len(shapes.get("token_embd.weight", ())) != 2:
            raise UserError(f"{self.path}: tensor token_embd.weight is missing or no matrix")
        scaling = self._own("rope.scaling.type", "none")
        if scaling != "none" or self._size("rope.dimension_count", head_dim) != head_dim:
            raise UserError(f"{self.path}: RoPE scaled ({scaling}) or partial is not supported")
        try:
            return ModelConfig(
                family=FAMILIES[self.architecture],
                vocab_size=int(shapes["token_embd.weight"][1]),
                hidden_size=hidden,
                num_layers=self._size("block_count"),
                num_heads=heads,
                num_kv_heads=self._size("attention.head_count_kv", heads),
                head_dim=head_dim,
                ffn_size=self._size("feed_forward_length"),
                rope_base=float(self._own("rope.freq_base", 10000.0)),
                # Stored as fp32: 1e-5 comes back as 9.999999747e-06.
                norm_eps=float(f"{self._own('attention.layer_norm_rms_epsilon', 1e-6):.6g}"),
                max_length=length,
                trained_length=length,
                qkv_bias="blk.0.attn_q.bias" in shapes,
                qk_norm="blk.0.attn_q_norm.weight" in shapes,
                tied="output.weight" not in shapes,
            )
        except UserError as error:
            raise UserError(f"{self.path}: {str(error).removeprefix('config: ')}") from error

    def model(self, dtype: torch.dtype = torch.float32) -> Transformer:
        """The dequantised weights as a model in evaluation mode."""
        config = self.config()
        with torch.device("meta"):
            model = Transformer(config)
        expected = {name: p.shape for name, p in model.named_parameters()}
        state = {name: t.to(dtype) for name, t in self._tensors(config, expected).items()}
        missing, surplus = model.load_state_dict(state, strict=False, assign=True)
        missing = [name for name in missing if not (config.tied and name == "head.weight")]
        if missing or surplus:
            raise UserError(f"{self.path}: tensors missing {missing[:3]}, unknown {surplus[:3]}")
        if config.tied:
            model.head.weight = model.embedding.weight
        return model.eval().requires_grad_(False)

    def _tensors(self, config: ModelConfig, expected: dict[str, torch.Size]) -> dict[str, Tensor]:
        from gguf.quants import dequantize

        state = {}
        for entry in self._reader.tensors:
            pieces = ["", *str(entry.name).split(".")]
            *front, stem, kind = pieces
            block = f"blocks.{front[2]}." if front[1:2] == ["blk"] and len(front) == 3 else ""
            if stem not in NAMES:  # rope_freqs is among those: a scaled RoPE
                raise UserError(f"{self.path}: tensor {entry.name} is not supported")
            name = f"{block}{NAMES[stem]}.{kind}"
            try:
                tensor = torch.tensor(dequantize(entry.data, entry.tensor_type))
            except (ValueError, NotImplementedError) as error:
                raise UserError(f"{self.path}: tensor {entry.name}: {error}") from error
            if name in expected and tensor.shape != expected[name]:
                raise UserError(
                    f"{self.path}: tensor {entry.name} has shape {list(tensor.shape)}, the "
                    f"metadata asks for {list(expected[name])}"
                )
            if self.architecture == "llama" and stem in ("attn_q", "attn_k"):
                heads = config.num_heads if stem == "attn_q" else config.num_kv_heads
                tensor = _unpermute(tensor, heads)
            state[name] = tensor
        return state

    def _own(self, key: str, default: Any = None) -> Any:
        return self.field(f"{self.architecture}.{key}", default)

    def _size(self, key: str, default: int | None = None) -> int:
        value = self._own(key, default)
        if value is None:
            raise UserError(f"{self.path}: {self.architecture}.{key} is missing")
        if not isinstance(value, int):
            raise UserError(f"{self.path}: {self.architecture}.{key} is {value}, not one number")
        return value


def _unpermute(weight: Tensor, heads: int) -> Tensor:
    rows = weight.shape[0] // heads
    pairs = weight.reshape(heads, rows // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)
