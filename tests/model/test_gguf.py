"""GGUF files: tiny ones made here of known weights; the real SmolLM2 against transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from torch import Tensor

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.gguf_import import GgufFile
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model, save_model

CONFIG = ModelConfig(
    family="llama",
    vocab_size=40,
    hidden_size=64,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    ffn_size=32,
    rope_base=5000.0,
    norm_eps=1e-5,
    max_length=128,
    trained_length=128,
)
THEIR_NAMES = {
    "embedding": "token_embd",
    "norm": "output_norm",
    "head": "output",
    "attention_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "q_norm": "attn_q_norm",
    "k_norm": "attn_k_norm",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
}
IDS = torch.tensor([1, 39, 7, 7, 0, 22, 13])


def random_model(**changes: Any) -> Transformer:
    generator = torch.Generator().manual_seed(0)
    model = Transformer(ModelConfig(**(vars(CONFIG) | changes)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


def permuted(weight: Tensor, heads: int) -> Tensor:
    """llama.cpp's order for Llama's q and k, row by row: the halves of a head interleaved."""
    size = weight.shape[0] // heads
    rows = [
        head * size + half * (size // 2) + i
        for head in range(heads)
        for i in range(size // 2)
        for half in range(2)
    ]
    return weight[rows]


Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def write(
    path: Path,
    model: Transformer,
    kind: str = "F32",
    architecture: str | None = None,
    change: Change = lambda tensors: tensors,
    **fields: Any,
) -> None:
    """A GGUF file of a model, its matrices stored as `kind`."""
    config = model.config
    architecture = architecture or config.family
    writer = gguf.GGUFWriter(str(path), architecture)
    settings = {
        "vocab_size": config.vocab_size,
        "context_length": config.max_length,
        "embedding_length": config.hidden_size,
        "block_count": config.num_layers,
        "feed_forward_length": config.ffn_size,
        "attention.head_count": config.num_heads,
        "attention.head_count_kv": config.num_kv_heads,
        "rope.dimension_count": config.head_dim,
    }
    if config.family == "qwen3" or config.head_dim * config.num_heads != config.hidden_size:
        settings["attention.key_length"] = config.head_dim
    for key, value in (settings | fields).items():
        if isinstance(value, str):
            writer.add_string(f"{architecture}.{key}", value)
        elif isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif value is not None:
            writer.add_uint32(f"{architecture}.{key}", value)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_freq_base(config.rope_base)
    named: dict[str, Tensor] = {}
    for name, tensor in model.named_parameters():
        pieces = name.split(".")
        block = f"blk.{pieces[1]}." if pieces[0] == "blocks" else ""
        held: Tensor = tensor.detach()
        if config.family == "llama" and pieces[-2] in ("q_proj", "k_proj"):
            heads = config.num_heads if pieces[-2] == "q_proj" else config.num_kv_heads
            held = permuted(held, heads)
        named[f"{block}{THEIR_NAMES[pieces[-2]]}.{pieces[-1]}"] = held
    for name, stored_tensor in change(named).items():
        quantised = stored_tensor.dim() == 2 and kind != "F32"
        stored = getattr(gguf.GGMLQuantizationType, kind if quantised else "F32")
        data = gguf.quants.quantize(stored_tensor.numpy(), stored)
        writer.add_tensor(name, data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def rounded(tensor: Tensor, kind: str) -> Tensor:
    """What storing as `kind` leaves, computed here from the formats' definitions."""
    blocks = tensor.numpy().astype(np.float32).reshape(-1, 32)
    if kind == "F16":
        return tensor.half().float()
    if kind == "Q8_0":
        scale = np.abs(blocks).max(1, keepdims=True) / 127
        codes = np.rint(blocks / scale)
        low = np.float32(0)
    else:  # Q4_1: sixteen steps from the block's least to its greatest value
        low = blocks.min(1, keepdims=True)
        scale = (blocks.max(1, keepdims=True) - low) / 15
        codes = np.rint((blocks - low) / scale).clip(0, 15)
        low = low.astype(np.float16).astype(np.float32)
    back = codes * scale.astype(np.float16).astype(np.float32) + low
    return torch.tensor(back.astype(np.float32)).reshape(tensor.shape)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tied": True},
        {"num_heads": 3, "num_kv_heads": 3, "head_dim": 10},
        {"num_heads": 5, "num_kv_heads": 1, "head_dim": 12},
        {"family": "qwen2", "qkv_bias": True},
        {"family": "qwen2", "qkv_bias": True, "tied": True},
        {"family": "qwen3", "qk_norm": True, "head_dim": 24},
        {"family": "llama", "qkv_bias": True},
    ],
)
def test_weights_and_config_come_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = random_model(**changes)
    write(tmp_path / "toy.gguf", model)
    file = GgufFile(tmp_path / "toy.gguf")
    loaded = file.model()
    assert loaded.config == model.config
    for name, parameter in model.named_parameters():
        assert torch.equal(loaded.get_parameter(name), parameter), name
    assert torch.equal(loaded([IDS])[0], model([IDS])[0])
    assert not loaded.training
    assert file.quantisation() == "F32"
    assert file.model(torch.bfloat16).embedding.weight.dtype == torch.bfloat16
    if not model.config.qkv_bias or model.config.family != "llama":
        save_model(loaded, tmp_path / "folder")
        assert torch.equal(load_model(tmp_path / "folder")([IDS])[0], model([IDS])[0])


@pytest.mark.parametrize("kind", ["F16", "Q8_0", "Q4_1"])
def test_quantised_matrices_are_undone(tmp_path: Path, kind: str) -> None:
    model = random_model()
    write(tmp_path / "toy.gguf", model, kind)
    file = GgufFile(tmp_path / "toy.gguf")
    assert file.quantisation() == kind
    step = {"F16": 0, "Q8_0": 1e-3, "Q4_1": 1e-2}[kind]
    for name, parameter in model.named_parameters():
        loaded = file.model().get_parameter(name)
        if parameter.dim() == 1:
            assert torch.equal(loaded, parameter), name
            continue
        expected = rounded(parameter, kind)
        # A value halfway between two codes may fall to either side.
        torch.testing.assert_close(loaded, expected, rtol=0, atol=0.2 if step > 2e-3 else step * 20)
        assert float((loaded - expected).abs().mean()) <= step / 10, name


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"family": "qwen2", "qkv_bias": True},
        # transformers reads no key_length: only the default head_dim will do.
        {"family": "qwen3", "qk_norm": True, "head_dim": 128},
    ],
)
def test_transformers_reads_the_same_file_alike(tmp_path: Path, changes: dict[str, Any]) -> None:
    import transformers

    model = random_model(**changes)
    write(tmp_path / "toy.gguf", model, "Q4_1")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file="toy.gguf", dtype=torch.float32
    )
    ours = GgufFile(tmp_path / "toy.gguf").model()
    with torch.no_grad():
        expected = theirs(IDS[None]).logits[0]
    torch.testing.assert_close(ours([IDS])[0], expected, rtol=0, atol=1e-4)


# --- what can be wrong -----------------------------------------------------------------------


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        GgufFile(path).model()
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_truncated_at_any_place(tmp_path: Path) -> None:
    whole, path = tmp_path / "toy.gguf", tmp_path / "cut.gguf"
    write(whole, random_model())
    data = whole.read_bytes()
    for size in [*range(0, 1200, 37), *range(1200, len(data), 4999), len(data) - 1]:
        path.write_bytes(data[:size])
        assert "truncated or not GGUF" in refused(path)


def test_no_file_and_other_formats(tmp_path: Path) -> None:
    assert "no such file" in refused(tmp_path / "absent.gguf")
    (tmp_path / "text.gguf").write_text("hello " * 100)
    assert "not GGUF" in refused(tmp_path / "text.gguf")
    assert "not GGUF" in refused(tmp_path)


def test_a_foreign_architecture(tmp_path: Path) -> None:
    path = tmp_path / "toy.gguf"
    write(path, random_model(), architecture="gemma2")
    assert "architecture gemma2; supported: llama, qwen2, qwen3" in refused(path)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"block_count": 3}, "blocks.2."),
        ({"block_count": 1}, "blocks.1."),
        ({"block_count": None}, "llama.block_count is missing"),
        ({"feed_forward_length": 31}, "ffn_gate.weight has shape [32, 64]"),
        ({"attention.head_count_kv": 4}, "attn_k.weight has shape [32, 64]"),
        ({"attention.head_count_kv": [2, 2]}, "attention.head_count_kv is [2, 2]"),
        ({"attention.head_count": 0, "rope.dimension_count": None}, "num_heads must be"),
        ({"attention.head_count_kv": 3}, "4 heads cannot share 3"),
        ({"rope.scaling.type": "yarn"}, "yarn"),
        ({"rope.dimension_count": 8}, "partial"),
    ],
)
def test_metadata_that_does_not_fit(tmp_path: Path, fields: dict[str, Any], named: str) -> None:
    path = tmp_path / "toy.gguf"
    write(path, random_model(), **fields)
    assert named in refused(path)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t | {"rope_freqs.weight": torch.ones(8)}, "rope_freqs.weight"),
        (lambda t: t | {"blk.0.ffn_gate_exps.weight": torch.ones(8)}, "ffn_gate_exps"),
        (lambda t: t | {"blk.0.attn_output.bias": torch.ones(64)}, "attention.o_proj.bias"),
        (lambda t: t | {"alone": torch.ones(8)}, "alone"),
        (lambda t: t | {"blk.weight": torch.ones(8)}, "blk.weight"),
        (lambda t: {k: v for k, v in t.items() if "blk.1.attn_k" not in k}, "blocks.1.attention.k"),
        (lambda t: {k: v for k, v in t.items() if "token_embd" not in k}, "token_embd.weight"),
        (
            lambda t: t | {"blk.0.attn_v.weight": torch.ones(64, 32)},
            "blk.0.attn_v.weight has shape",
        ),
        (
            lambda t: t | {"blk.0.attn_q.weight": torch.ones(63, 64)},
            "blk.0.attn_q.weight has shape",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, change: Change, named: str) -> None:
    path = tmp_path / "toy.gguf"
    write(path, random_model(), change=change)
    assert named in refused(path)


# --- the real model --------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.smollm2
def test_smollm2_is_bit_equal_to_what_transformers_reads(smollm2_gguf: Path) -> None:
    import transformers

    ours = GgufFile(smollm2_gguf)
    assert ours.quantisation() == "Q4_1"
    model = ours.model()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2_gguf.parent, gguf_file=smollm2_gguf.name, dtype=torch.float32
    )
    state = theirs.state_dict()
    compared = 0
    places = {"attention_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    for name, parameter in model.named_parameters():
        stem = name.replace("blocks.", "layers.").replace("embedding", "embed_tokens")
        stem = stem.replace("attention.", "self_attn.").replace("ffn.", "mlp.")
        for mine, their in places.items():
            stem = stem.replace(mine, their)
        assert torch.equal(parameter, state[f"model.{stem}"]), name
        compared += 1
    assert compared == 1 + 30 * 9 + 1
    ids = torch.randint(49152, (64,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(ids[None]).logits[0]
    torch.testing.assert_close(model([ids])[0], expected, rtol=0, atol=1e-4)
