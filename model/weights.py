"""Checkpoints of the Qwen and Llama families as our model, and back.

Reads and writes safetensors, one file or sharded by an index; never pickle, never remote code.
Names are the adapter's whole business: each family's tensor name maps to ours by rule. Qwen v1
fuses q, k and v into c_attn and calls gate and up w2 and w1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from qwen_eval.errors import UserError

from .config import ModelConfig, config_to_hf, load_config
from .delta import add_delta, base_of
from .transformer import Transformer

HF_NAMES = {
    "embedding": "model.embed_tokens",
    "norm": "model.norm",
    "head": "lm_head",
    "blocks.{}.attention_norm": "model.layers.{}.input_layernorm",
    "blocks.{}.ffn_norm": "model.layers.{}.post_attention_layernorm",
    **{
        f"blocks.{{}}.attention.{part}": f"model.layers.{{}}.self_attn.{part}"
        for part in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
    },
    **{
        f"blocks.{{}}.ffn.{part}": f"model.layers.{{}}.mlp.{part}"
        for part in ("gate_proj", "up_proj", "down_proj")
    },
}

QWEN1_NAMES = {
    "embedding": "transformer.wte",
    "norm": "transformer.ln_f",
    "head": "lm_head",
    "blocks.{}.attention_norm": "transformer.h.{}.ln_1",
    "blocks.{}.ffn_norm": "transformer.h.{}.ln_2",
    # c_attn holds q, k and v one below another; _to_ours cuts it.
    "blocks.{}.attention.o_proj": "transformer.h.{}.attn.c_proj",
    "blocks.{}.ffn.gate_proj": "transformer.h.{}.mlp.w2",
    "blocks.{}.ffn.up_proj": "transformer.h.{}.mlp.w1",
    "blocks.{}.ffn.down_proj": "transformer.h.{}.mlp.c_proj",
}

SHARD_BYTES = 4 * 2**30


def load_model(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    config: ModelConfig | None = None,
) -> Transformer:
    """The model of a checkpoint folder, in evaluation mode; `config` replaces the folder's own
    where context switches differ (NTK, LogN, windows, length).

    A folder with a delta is its base and what the delta adds. Raises UserError for a missing,
    damaged, surplus or wrongly shaped tensor, naming it.
    """
    config = config or load_config(folder)
    if base := base_of(folder):
        # Added in fp32 and rounded once.
        model = load_model(base, torch.float32, device, config)
        add_delta(model, folder)
        return model.to(dtype)
    with torch.device("meta"):
        model = Transformer(config)
    expected = {name: p.shape for name, p in model.named_parameters()}
    state: dict[str, Tensor] = {}
    for theirs, tensor in _read_tensors(folder):
        parts = list(_to_ours(theirs, tensor, config))
        for ours, part in parts:
            if ours == "head.weight" and config.tied:
                continue  # some tied checkpoints store the same matrix twice
            if ours not in expected:
                raise UserError(
                    f"{folder}: tensor {theirs} has no place in a {config.family} model"
                )
            if part.shape != expected[ours]:
                asked = [len(parts) * expected[ours][0], *expected[ours][1:]]
                raise UserError(
                    f"{folder}: tensor {theirs} has shape {list(tensor.shape)}, config.json asks "
                    f"for {asked}; the folder mixes two models"
                )
            state[ours] = part.to(device=device, dtype=dtype)
    missing = [_to_theirs(name, config) for name in expected if name not in state]
    missing = list(dict.fromkeys(re.sub(r"c_attn\.[qkv]\.", "c_attn.", name) for name in missing))
    if missing:
        raise UserError(f"{folder}: {len(missing)} tensors are missing, first {missing[0]}")
    model.load_state_dict(state, strict=not config.tied, assign=True)
    if config.tied:
        model.head.weight = model.embedding.weight
    return model.eval().requires_grad_(False)


def save_model(model: Transformer, folder: Path) -> None:
    """Write config.json and safetensors under the family's own names, sharded past 4 GiB."""
    config = model.config
    settings = config_to_hf(config)
    folder.mkdir(parents=True, exist_ok=True)
    # What an earlier checkpoint left here would be read in place of the new files.
    old = {folder / "model.safetensors", *folder.glob("model-?????-of-?????.safetensors")}
    (folder / "model.safetensors.index.json").unlink(missing_ok=True)
    tensors: dict[str, Tensor] = {
        _to_theirs(name, config): p for name, p in model.named_parameters()
    }
    if config.family == "qwen":
        tensors = _fuse(tensors, config)
    shards: list[dict[str, Tensor]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if size and size + tensor.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = tensor.detach().contiguous()
        size += tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], folder / "model.safetensors", metadata={"format": "pt"})
        old.discard(folder / "model.safetensors")
    else:
        index: dict[str, str] = {}
        for number, shard in enumerate(shards, 1):
            file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
            save_file(shard, folder / file, metadata={"format": "pt"})
            old.discard(folder / file)
            index |= dict.fromkeys(shard, file)
        total = sum(t.nbytes for t in tensors.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": total}, "weight_map": index}, indent=1)
        )
    for file_left in old:
        file_left.unlink(missing_ok=True)
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    (folder / "config.json").write_text(
        json.dumps(settings | {"torch_dtype": dtype}, indent=2) + "\n"
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, in order. Raises UserError if one is missing."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
            files = [folder / name for name in names]
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(f"{index}: not a weight index ({error})") from error
    else:
        files = [folder / "model.safetensors"]
    for file in files:
        if not file.exists():
            pickled = any(folder.glob("*.bin"))
            hint = " (.bin files are pickle and are never loaded: convert them)" if pickled else ""
            raise UserError(f"{file}: weights file is missing{hint}")
    return files


def _read_tensors(folder: Path) -> Iterator[tuple[str, Tensor]]:
    for file in weight_files(folder):
        try:
            with safe_open(file, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - safe_open is no mapping
                    yield name, opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{file}: truncated or not safetensors ({error})") from error


def _to_ours(theirs: str, tensor: Tensor, config: ModelConfig) -> Iterator[tuple[str, Tensor]]:
    if theirs.endswith(("rotary_emb.inv_freq", ".attn.masked_bias", ".attn.bias")):
        return  # buffers that old checkpoints carry along
    stem, _, kind = theirs.rpartition(".")
    names = QWEN1_NAMES if config.family == "qwen" else HF_NAMES
    layer = next((piece for piece in stem.split(".") if piece.isdigit()), "")
    if config.family == "qwen" and stem == f"transformer.h.{layer}.attn.c_attn":
        fused = tensor if tensor.dim() else tensor[None]
        for part, piece in zip("qkv", fused.tensor_split(3), strict=True):
            yield f"blocks.{layer}.attention.{part}_proj.{kind}", piece
        return
    for ours, pattern in names.items():
        if pattern.format(layer) == stem:
            yield f"{ours.format(layer)}.{kind}", tensor
            return
    yield theirs, tensor


def _to_theirs(ours: str, config: ModelConfig) -> str:
    stem, _, kind = ours.rpartition(".")
    pieces = stem.split(".")
    layer = pieces[1] if pieces[0] == "blocks" else ""
    key = stem.replace(f"blocks.{layer}.", "blocks.{}.", 1) if layer else stem
    names = QWEN1_NAMES if config.family == "qwen" else HF_NAMES
    if key in names:
        return f"{names[key].format(layer)}.{kind}"
    return f"transformer.h.{layer}.attn.c_attn.{key[-6]}.{kind}"  # one third, fused by _fuse


def _fuse(tensors: dict[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    fused = {name: t for name, t in tensors.items() if ".c_attn." not in name}
    for layer in range(config.num_layers):
        stem = f"transformer.h.{layer}.attn.c_attn"
        for kind in ("weight", "bias"):
            fused[f"{stem}.{kind}"] = torch.cat([tensors[f"{stem}.{p}.{kind}"] for p in "qkv"])
    return fused
