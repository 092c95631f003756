"""Checkpoints both ways, and every way a checkpoint can be wrong: one line, naming what."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from qwen_eval.errors import UserError
from qwen_eval.model import weights
from qwen_eval.model.config import ModelConfig, load_config
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model, save_model, weight_files

BASE = ModelConfig(
    family="qwen2",
    vocab_size=41,
    hidden_size=24,
    num_layers=3,
    num_heads=6,
    num_kv_heads=2,
    head_dim=4,
    ffn_size=20,
    rope_base=321.0,
    norm_eps=1e-3,
    max_length=64,
    trained_length=64,
    qkv_bias=True,
)
CONFIGS = {
    "qwen": replace(BASE, family="qwen", num_kv_heads=6, trained_length=16, ntk=True, logn=True),
    "qwen_biased": replace(BASE, family="qwen", num_kv_heads=6, out_bias=True, mlp_bias=True),
    "qwen_tied": replace(BASE, family="qwen", num_kv_heads=6, tied=True),
    "qwen2": BASE,
    "qwen2_tied": replace(BASE, tied=True),
    "qwen2_windows": replace(BASE, windows=(None, 5, 5)),
    "qwen3": replace(BASE, family="qwen3", qkv_bias=False, qk_norm=True, head_dim=10),
    "qwen3_tied_bias": replace(BASE, family="qwen3", out_bias=True, qk_norm=True, tied=True),
    "llama": replace(BASE, family="llama", qkv_bias=False),
    "llama_biased": replace(BASE, family="llama", out_bias=True, mlp_bias=True, tied=True),
}
IDS = torch.tensor([3, 40, 0, 17, 17, 5, 22, 9, 9, 1])


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3, generator=generator)
    return model.eval().requires_grad_(False)


def assert_bit_equal(one: Transformer, other: Transformer) -> None:
    assert one.config == other.config
    a, b = one.state_dict(), other.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.fixture(params=list(CONFIGS))
def model(request: pytest.FixtureRequest) -> Transformer:
    return random_model(CONFIGS[request.param])


@pytest.mark.parametrize("shard_bytes", [4 * 2**30, 4000, 1])
def test_the_round_trip_is_bit_equal(
    tmp_path: Path, model: Transformer, shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "SHARD_BYTES", shard_bytes)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    assert_bit_equal(loaded, model)
    assert not loaded.training
    if model.config.tied:
        assert loaded.head.weight is loaded.embedding.weight
    assert torch.equal(loaded([IDS])[0], model([IDS])[0])
    count = len(list(tmp_path.glob("*.safetensors")))
    assert count == len(weight_files(tmp_path))
    assert (count == 1) == (shard_bytes > 4000)
    if count > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        files = {file: load_file(tmp_path / file) for file in set(index["weight_map"].values())}
        stored = {name: file for file, held in files.items() for name in held}
        assert stored == index["weight_map"]
        sizes = [sum(t.nbytes for t in held.values()) for held in files.values()]
        assert sum(sizes) == index["metadata"]["total_size"]
        assert all(
            s <= shard_bytes or len(h) == 1 for s, h in zip(sizes, files.values(), strict=True)
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_dtypes_are_kept_and_converted(tmp_path: Path, dtype: torch.dtype) -> None:
    model = random_model(CONFIGS["qwen"]).to(dtype)
    save_model(model, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] in str(dtype)
    assert_bit_equal(load_model(tmp_path, dtype), model)
    assert_bit_equal(load_model(tmp_path), model.float())


@pytest.mark.parametrize("name", [n for n, config in CONFIGS.items() if config.family != "qwen"])
@pytest.mark.parametrize("shard_bytes", [4 * 2**30, 4000])
def test_transformers_reads_what_we_write(
    tmp_path: Path, name: str, shard_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    config = CONFIGS[name]
    monkeypatch.setattr(weights, "SHARD_BYTES", shard_bytes)
    model = random_model(config)
    save_model(model, tmp_path)
    theirs, info = transformers.AutoModelForCausalLM.from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert type(theirs).__name__.lower().startswith(config.family)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert sum(p.numel() for p in theirs.parameters()) == config.parameters
    with torch.no_grad():
        expected = theirs(IDS[None]).logits[0]
    torch.testing.assert_close(model([IDS])[0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Llama"])
@pytest.mark.parametrize("shard_size", ["4KB", "5GB"])
@pytest.mark.parametrize("tied", [True, False])
def test_we_read_what_transformers_writes(
    tmp_path: Path, family: str, shard_size: str, tied: bool
) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=41,
        hidden_size=24,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=3,
        head_dim=4,
        tie_word_embeddings=tied,
    )
    theirs = getattr(transformers, f"{family}ForCausalLM")(config)
    theirs.save_pretrained(tmp_path, max_shard_size=shard_size)
    assert (len(weight_files(tmp_path)) > 1) == (shard_size == "4KB")
    loaded, state = load_model(tmp_path), theirs.state_dict()
    assert loaded.config.tied == tied
    assert torch.equal(loaded.embedding.weight, state["model.embed_tokens.weight"])
    assert torch.equal(loaded.head.weight, state["lm_head.weight"])
    for layer in range(2):
        for ours, name in (
            ("attention.o_proj", "self_attn.o_proj"),
            ("attention_norm", "input_layernorm"),
            ("ffn_norm", "post_attention_layernorm"),
            ("ffn.gate_proj", "mlp.gate_proj"),
            ("ffn.up_proj", "mlp.up_proj"),
        ):
            mine = loaded.get_submodule(f"blocks.{layer}.{ours}").weight
            assert torch.equal(torch.as_tensor(mine), state[f"model.layers.{layer}.{name}.weight"])
    again = tmp_path / "again"
    save_model(loaded, again)
    assert {k: v.shape for k, v in load_file(again / "model.safetensors").items()} == {
        k: v.shape for k, v in state.items() if not (tied and k == "lm_head.weight")
    }


def test_a_tied_checkpoint_may_store_the_matrix_twice(tmp_path: Path) -> None:
    model = random_model(CONFIGS["qwen2_tied"])
    save_model(model, tmp_path)
    edit(tmp_path, lambda t: t | {"lm_head.weight": t["model.embed_tokens.weight"].clone()})
    assert_bit_equal(load_model(tmp_path), model)


def test_a_checkpoint_replaced_by_one_with_fewer_or_more_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    for seed, shard_bytes in enumerate((2000, 2**20, 6000, 2000, 2**20)):
        monkeypatch.setattr(weights, "SHARD_BYTES", shard_bytes)
        model = random_model(CONFIGS["qwen2"], seed)
        save_model(model, tmp_path)
        assert_bit_equal(load_model(tmp_path), model)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
        assert torch.equal(theirs.lm_head.weight, model.head.weight)
        assert sorted(tmp_path.glob("*.safetensors")) == weight_files(tmp_path)


def test_a_model_can_be_saved_over_the_files_it_came_from(tmp_path: Path) -> None:
    model = random_model(CONFIGS["qwen3"])
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    save_model(loaded, tmp_path)
    assert_bit_equal(loaded, model)
    assert_bit_equal(load_model(tmp_path), model)


# --- what can be wrong -----------------------------------------------------------------------


def edit(folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)


def refused(folder: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_model(folder)
    message = str(caught.value)
    assert "\n" not in message
    assert str(folder) in message
    return message


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model(random_model(BASE), tmp_path)
    return tmp_path


@pytest.fixture
def folder1(tmp_path: Path) -> Path:
    save_model(random_model(CONFIGS["qwen"]), tmp_path)
    return tmp_path


def test_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    message = refused(folder)
    assert "model.safetensors: weights file is missing" in message
    assert ".bin" not in message


@pytest.mark.parametrize("keep", [0, 5, 300, -1, -2000])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    assert f"{path}: truncated or not safetensors" in refused(folder)


def test_a_folder_in_place_of_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    assert "model.safetensors" in refused(folder)


@pytest.mark.parametrize(
    "name",
    ["model.layers.1.mlp.up_proj.weight", "model.layers.2.self_attn.k_proj.bias", "lm_head.weight"],
)
def test_a_missing_tensor(folder: Path, name: str) -> None:
    edit(folder, lambda t: {k: v for k, v in t.items() if k != name})
    assert f"1 tensors are missing, first {name}" in refused(folder)


def test_a_missing_tensor_of_qwen1(folder1: Path) -> None:
    name = "transformer.h.1.attn.c_attn.bias"
    edit(folder1, lambda t: {k: v for k, v in t.items() if k != name})
    assert f"1 tensors are missing, first {name}" in refused(folder1)


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.3.mlp.up_proj.weight",
        "model.layers.0.self_attn.o_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.mlp.experts.0.up_proj.weight",
        "transformer.h.0.attn.c_attn.weight",
        "weight",
        "attn.c_attn",
        "",
    ],
)
def test_a_surplus_tensor(folder: Path, name: str) -> None:
    edit(folder, lambda t: t | {name: torch.ones(3)})
    assert f"tensor {name} has no place in a qwen2 model" in refused(folder)


@pytest.mark.parametrize(
    "name", ["attn.c_attn.weight", "transformer.h.7.attn.c_attn.weight", "h.0.attn.c_attn.bias"]
)
def test_a_surplus_tensor_of_qwen1(folder1: Path, name: str) -> None:
    edit(folder1, lambda t: t | {name: torch.ones(72, 24)})
    assert f"tensor {name} has no place in a qwen model" in refused(folder1)


def test_a_wrong_shape(folder: Path) -> None:
    name = "model.layers.1.self_attn.k_proj.weight"
    edit(folder, lambda t: t | {name: t[name].T.contiguous()})
    message = refused(folder)
    assert f"tensor {name} has shape [24, 8]" in message
    assert "[8, 24]" in message


@pytest.mark.parametrize("shape", [(72, 25), (48, 24), (96, 24), (71, 24), (24,), ()])
def test_a_wrong_shape_of_qwen1s_fused_matrix(folder1: Path, shape: tuple[int, ...]) -> None:
    name = "transformer.h.1.attn.c_attn.weight"
    edit(folder1, lambda t: t | {name: torch.zeros(shape)})
    assert f"tensor {name} has shape {list(shape)}" in refused(folder1)


def test_config_and_weights_of_two_models(folder: Path) -> None:
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"num_hidden_layers": 4}))
    assert "model.layers.3." in refused(folder)
    (folder / "config.json").write_text(json.dumps(raw | {"num_hidden_layers": 2}))
    assert "model.layers.2." in refused(folder)
    (folder / "config.json").write_text(json.dumps(raw | {"vocab_size": 42}))
    assert "[42, 24]" in refused(folder)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 5}}', '{"weight_map": {"a": []}}'],
)
def test_a_broken_index(folder: Path, text: str) -> None:
    (folder / "model.safetensors.index.json").write_text(text)
    assert "model.safetensors.index.json: not a weight index" in refused(folder)


def test_a_missing_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "SHARD_BYTES", 3000)
    save_model(random_model(BASE), folder)
    shard = weight_files(folder)[1]
    shard.unlink()
    assert f"{shard}: weights file is missing" in refused(folder)


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def test_pickle_is_never_opened(folder: Path) -> None:
    marker = folder / "executed"
    payload = pickle.dumps(Evil(marker))
    (folder / "modeling_evil.py").write_text(f"open({str(marker)!r}, 'w')")
    raw = json.loads((folder / "config.json").read_text())
    raw["auto_map"] = {"AutoModelForCausalLM": "modeling_evil.Evil"}
    (folder / "config.json").write_text(json.dumps(raw))

    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(payload)
    message = refused(folder)
    assert ".bin files are pickle and are never loaded" in message
    torch.save(Evil(marker), folder / "pytorch_model.bin")
    assert ".bin files are pickle" in refused(folder)

    (folder / "model.safetensors").write_bytes(payload)
    assert "not safetensors" in refused(folder)
    torch.save(Evil(marker), folder / "model.safetensors")
    assert "not safetensors" in refused(folder)
    (folder / "config.json").write_bytes(payload)
    assert "config.json: not JSON" in refused(folder)
    assert not marker.exists()

    pickle.loads(payload)
    assert marker.exists(), "the payload would have shown"


def test_a_config_that_names_no_family_of_ours(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["FalconForCausalLM"]}')
    assert "FalconForCausalLM" in refused(folder)
    (folder / "config.json").unlink()
    assert "no config.json" in refused(folder)


def test_context_settings_are_written(tmp_path: Path) -> None:
    save_model(random_model(CONFIGS["qwen"]), tmp_path)
    config = load_config(tmp_path)
    assert (config.ntk, config.logn, config.trained_length, config.max_length) == (
        True,
        True,
        16,
        64,
    )
    raw = json.loads((tmp_path / "config.json").read_text())
    assert raw["intermediate_size"] == 40
    names = set(load_file(tmp_path / "model.safetensors"))
    assert {"transformer.h.2.attn.c_attn.bias", "transformer.h.0.mlp.w2.weight"} <= names
