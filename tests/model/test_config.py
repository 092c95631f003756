"""ModelConfig against the families' own config.json, and every way such a file can be wrong."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.config import (
    ModelConfig,
    config_from_hf,
    config_to_hf,
    family_of,
    load_config,
)
from qwen_eval.model.transformer import Transformer

QWEN_7B: dict[str, Any] = {
    "architectures": ["QWenLMHeadModel"],
    "auto_map": {"AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel"},
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 22016,
    "kv_channels": 128,
    "layer_norm_epsilon": 1e-6,
    "max_position_embeddings": 32768,
    "model_type": "qwen",
    "no_bias": True,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 10000,
    "seq_length": 8192,
    "tie_word_embeddings": False,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "vocab_size": 151936,
}
QWEN2: dict[str, Any] = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 896,
    "intermediate_size": 4864,
    "max_position_embeddings": 32768,
    "num_attention_heads": 14,
    "num_hidden_layers": 24,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
LLAMA = QWEN2 | {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
QWEN3 = QWEN2 | {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}


def test_qwen1_intermediate_size_is_halved_and_context_switches_are_read() -> None:
    config = config_from_hf(QWEN_7B)
    assert config == ModelConfig(
        family="qwen",
        vocab_size=151936,
        hidden_size=4096,
        num_layers=32,
        num_heads=32,
        num_kv_heads=32,
        head_dim=128,
        ffn_size=11008,
        max_length=32768,
        trained_length=8192,
        qkv_bias=True,
        ntk=True,
        logn=True,
    )


@pytest.mark.parametrize(
    ("hidden", "layers", "heads", "doubled", "vocab", "billions"),
    [
        (2048, 24, 16, 11008, 151936, 1.8368),
        (4096, 32, 32, 22016, 151936, 7.7213),
        (5120, 40, 40, 27392, 152064, 14.1673),
        (8192, 80, 64, 49152, 152064, 72.2879),
    ],
)
def test_parameter_counts_of_the_paper(
    *, hidden: int, layers: int, heads: int, doubled: int, vocab: int, billions: float
) -> None:
    raw = QWEN_7B | {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "intermediate_size": doubled,
        "vocab_size": vocab,
    }
    assert config_from_hf(raw).parameters / 1e9 == pytest.approx(billions, abs=6e-5)


@pytest.mark.parametrize("raw", [QWEN_7B, QWEN2, QWEN3, LLAMA, LLAMA | {"attention_bias": True}])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("extra", [{}, {"mlp_bias": True, "no_bias": False}])
def test_parameter_count_is_that_of_the_module(
    raw: dict[str, Any], tied: bool, extra: dict[str, Any]
) -> None:
    config = config_from_hf(raw | {"tie_word_embeddings": tied, "num_hidden_layers": 2} | extra)
    with torch.device("meta"):
        model = Transformer(config)
    assert sum(p.numel() for p in model.parameters()) == config.parameters


def test_old_and_new_places_of_the_rope_base() -> None:
    old = config_from_hf(QWEN2)
    new = {key: value for key, value in QWEN2.items() if key != "rope_theta"}
    new["rope_parameters"] = {"rope_theta": 1000000.0, "rope_type": "default"}
    assert old.rope_base == 1e6
    assert config_from_hf(new) == old
    assert config_from_hf(QWEN2 | {"rope_scaling": None}) == old


def test_what_each_family_adds() -> None:
    qwen2, qwen3, llama = (config_from_hf(raw) for raw in (QWEN2, QWEN3, LLAMA))
    assert (qwen2.qkv_bias, qwen2.out_bias, qwen2.qk_norm, qwen2.head_dim) == (
        True,
        False,
        False,
        64,
    )
    assert (qwen3.qkv_bias, qwen3.out_bias, qwen3.qk_norm, qwen3.head_dim) == (
        False,
        False,
        True,
        128,
    )
    assert (llama.qkv_bias, llama.out_bias, llama.mlp_bias, llama.qk_norm) == (False,) * 4
    biased = config_from_hf(LLAMA | {"attention_bias": True, "mlp_bias": True})
    assert (biased.qkv_bias, biased.out_bias, biased.mlp_bias) == (True,) * 3
    assert config_from_hf(LLAMA | {"head_dim": 32}).head_dim == 32
    assert config_from_hf(LLAMA | {"num_key_value_heads": None}).num_kv_heads == 14


def test_windows_lie_in_the_upper_layers_of_qwen2() -> None:
    raw = QWEN2 | {"use_sliding_window": True, "sliding_window": 512, "num_hidden_layers": 4}
    assert config_from_hf(raw | {"max_window_layers": 3}).windows == (None, None, None, 512)
    # transformers' default, 28, leaves a model of four layers without any.
    assert not any(config_from_hf(raw).windows)
    assert config_from_hf(raw | {"use_sliding_window": False}).windows == ()
    explicit = raw | {
        "layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"]
    }
    assert config_from_hf(explicit).windows == (512, None, None, None)
    llama = LLAMA | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    assert config_from_hf(llama).windows == ()


def test_window_per_layer() -> None:
    config = replace(config_from_hf(QWEN2), num_layers=2, windows=(None, 7))
    assert [config.window(layer) for layer in range(2)] == [None, 7]
    assert replace(config, windows=()).window(1) is None


def test_context_switches_keep_what_is_none() -> None:
    config = config_from_hf(QWEN_7B)
    off = config.with_context(ntk=False, logn=None)
    assert (off.ntk, off.logn) == (False, True)
    assert off.with_context(ntk=True, logn=None) == config


def test_family_by_architecture_or_model_type() -> None:
    assert family_of({"architectures": ["Unknown", "Qwen3ForCausalLM"]}) == "qwen3"
    assert family_of({"model_type": "qwen"}) == "qwen"
    assert family_of({"architectures": None, "model_type": "gpt2"}) is None


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.data())
def test_configs_survive_the_round_trip(data: st.DataObject) -> None:
    family = data.draw(st.sampled_from(["qwen", "qwen2", "qwen3", "llama"]))
    kv_heads, group = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    layers = data.draw(st.integers(1, 5))
    flag = st.booleans()
    raw: dict[str, Any] = {
        "family": family,
        "vocab_size": data.draw(st.integers(1, 1000)),
        "hidden_size": data.draw(st.integers(1, 64)) * 8,
        "num_layers": layers,
        "num_heads": kv_heads * group,
        "num_kv_heads": kv_heads * group if family == "qwen" else kv_heads,
        "head_dim": data.draw(st.integers(1, 64)) * 2,
        "ffn_size": data.draw(st.integers(1, 999)),
        "rope_base": data.draw(st.sampled_from([1e4, 1e6, 12345.5])),
        "norm_eps": data.draw(st.sampled_from([1e-6, 1e-5])),
        "max_length": 4096,
        "trained_length": 4096,
        "tied": data.draw(flag),
        "init_std": data.draw(st.sampled_from([0.02, 0.01])),
    }
    bias = data.draw(flag)
    if family == "qwen":
        raw |= {"qkv_bias": True, "out_bias": bias, "mlp_bias": bias, "trained_length": 2048}
        raw |= {"ntk": data.draw(flag), "logn": data.draw(flag)}
    elif family == "qwen2":
        raw |= {"qkv_bias": True}
    else:
        raw |= {"qkv_bias": bias, "out_bias": bias, "qk_norm": family == "qwen3"}
        raw |= {"mlp_bias": data.draw(flag)} if family == "llama" else {}
    if family in ("qwen2", "qwen3"):
        windowed = data.draw(st.lists(flag, min_size=layers, max_size=layers))
        raw["windows"] = tuple(9 if w else None for w in windowed) if any(windowed) else ()
    config = ModelConfig(**raw)
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config)))) == config


@pytest.mark.parametrize(
    ("family", "windows"),
    [("qwen2", (4, 8)), ("qwen", (4, None)), ("llama", (4, 4))],
)
def test_windows_that_a_config_json_cannot_hold_are_refused(
    family: Any, windows: tuple[int | None, ...]
) -> None:
    config = replace(config_from_hf(QWEN2), family=family, num_layers=2, windows=windows)
    with pytest.raises(UserError, match="windows"):
        config_to_hf(config)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"architectures": ["MistralForCausalLM"], "model_type": "mistral"}, "MistralForCausalLM"),
    ({"architectures": None, "model_type": "gpt2"}, "gpt2"),
    ({"architectures": [], "model_type": None}, "None"),
    ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
    ({"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 4.0}}, "dynamic"),
    ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "llama3"),
    ({"hidden_act": "gelu"}, "gelu"),
    ({"num_key_value_heads": 3}, "14 heads cannot share 3"),
    ({"head_dim": 63}, "head_dim must be even"),
    ({"num_hidden_layers": 0}, "num_layers must be a positive whole number"),
    ({"num_attention_heads": 0}, "num_attention_heads must not be zero"),
    ({"vocab_size": "many"}, "vocab_size must be a positive whole number"),
    ({"vocab_size": 10.5}, "vocab_size"),
    ({"rms_norm_eps": "tiny"}, "tiny"),
    ({"layer_types": ["sliding_attention"], "use_sliding_window": True, "sliding_window": 4}, "24"),
]


@pytest.mark.parametrize(("change", "named"), BROKEN)
def test_a_wrong_config_is_one_line_naming_the_file(
    tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(QWEN2 | change))
    with pytest.raises(UserError) as caught:
        load_config(tmp_path)
    message = str(caught.value)
    assert named in message
    assert str(tmp_path / "config.json") in message
    assert "\n" not in message


@pytest.mark.parametrize("key", ["hidden_size", "num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("raw", [QWEN2, QWEN_7B])
def test_a_missing_key_is_named(raw: dict[str, Any], key: str) -> None:
    with pytest.raises(UserError, match=f"here: {key} is missing"):
        config_from_hf({k: v for k, v in raw.items() if k != key}, where="here")


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"text"', "null", "\x00"])
def test_a_file_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError) as caught:
        load_config(tmp_path)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_folders_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(UserError, match="not JSON"):
        load_config(tmp_path)
    for folder in (tmp_path / "absent", tmp_path / "config.json"):
        with pytest.raises(UserError, match=r"no config\.json"):
            load_config(folder)
