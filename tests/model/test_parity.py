"""Logits against transformers' own Qwen2, Qwen3 and Llama; Qwen v1 through its map to Qwen2."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from qwen_eval.model.engine import Engine, ScoreTokens
from qwen_eval.model.weights import load_model

LENGTHS = (1, 2, 7, 40)
SIZES: dict[str, Any] = {
    "vocab_size": 67,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3,
    "attn_implementation": "eager",
}
# Query heads, key-value heads, and where the family lets it differ from hidden / heads, head_dim.
HEADS = [(4, 2, None), (3, 1, None), (3, 3, None), (6, 3, 10), (5, 5, 6), (5, 1, 16)]


def their_model(family: str, seed: int = 0, **settings: Any) -> Any:
    """A toy model of transformers whose every parameter is random, biases and norms included."""
    import transformers

    config = getattr(transformers, f"{family}Config")(**SIZES | settings)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    randomise(model.named_parameters(), seed)
    return model


def randomise(parameters: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in parameters:
            mean = 1.0 if "norm" in name else 0.0
            parameter.normal_(mean, 0.25, generator=generator)


def sequences(seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(SIZES["vocab_size"], (n,), generator=generator) for n in LENGTHS]


def assert_same_logits(folder: Path, theirs: Any) -> None:
    """Packed, cached and in one piece, ours are theirs; and no logit is trivially small."""
    model, ids = load_model(folder), sequences()
    packed = model(ids)
    engine = Engine(model, token_budget=9)
    scored = engine.run([ScoreTokens(tuple(s.tolist())) for s in ids])
    for line, ours, logprobs in zip(ids, packed, scored, strict=True):
        with torch.no_grad():
            expected = theirs(line[None]).logits[0]
        assert float(expected.std()) > 0.2
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
        wanted = expected.log_softmax(-1)[:-1].gather(1, line[1:, None])[:, 0]
        torch.testing.assert_close(torch.tensor(logprobs), wanted, rtol=0, atol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), HEADS)
@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Llama"])
def test_logits_are_those_of_transformers(
    *, tmp_path: Path, family: str, heads: int, kv_heads: int, head_dim: int | None, tied: bool
) -> None:
    settings: dict[str, Any] = {"num_attention_heads": heads, "num_key_value_heads": kv_heads}
    if 48 % heads:  # transformers' Llama refuses it, whatever head_dim says
        settings["hidden_size"] = heads * 10
    if head_dim is not None and family != "Qwen2":
        settings["head_dim"] = head_dim
    if family == "Qwen3":
        settings.setdefault("head_dim", 12)
    theirs = their_model(family, tie_word_embeddings=tied, seed=heads, **settings)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, theirs)


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("Llama", {"attention_bias": True}),
        ("Llama", {"mlp_bias": True}),
        ("Llama", {"attention_bias": True, "mlp_bias": True, "hidden_size": 60, "head_dim": 14}),
        ("Qwen3", {"attention_bias": True, "head_dim": 8}),
        ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
        ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 50.0}}),
        ("Qwen2", {"rms_norm_eps": 0.5}),
    ],
)
def test_biases_bases_and_eps(tmp_path: Path, family: str, settings: dict[str, Any]) -> None:
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    theirs = their_model(family, **heads | settings)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, theirs)


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3"])
@pytest.mark.parametrize(("window", "first"), [(5, 1), (1, 0), (6, 2), (40, 0), (5, 3)])
def test_sliding_windows(tmp_path: Path, family: str, window: int, first: int) -> None:
    theirs = their_model(
        family,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        use_sliding_window=True,
        sliding_window=window,
        max_window_layers=first,
    )
    theirs.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, theirs)


def test_windows_in_chosen_layers(tmp_path: Path) -> None:
    theirs = their_model(
        "Qwen2",
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    )
    theirs.save_pretrained(tmp_path)
    assert_same_logits(tmp_path, theirs)


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Llama"])
def test_old_style_config_json(tmp_path: Path, family: str) -> None:
    theirs = their_model(
        family,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_parameters={"rope_type": "default", "rope_theta": 77.0},
        head_dim=12,
    )
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    assert raw.pop("rope_parameters")["rope_theta"] == 77.0
    for key in ("layer_types", "dtype"):
        raw.pop(key, None)
    path.write_text(json.dumps(raw | {"rope_theta": 77.0, "rope_scaling": None}))
    assert_same_logits(tmp_path, theirs)


def write_qwen1(folder: Path, theirs: Any, **settings: Any) -> None:
    """The weights of transformers' Qwen2 under the names and shapes of Qwen v1."""
    state = dict(theirs.state_dict())
    config = theirs.config
    named = {
        "transformer.wte.weight": state["model.embed_tokens.weight"],
        "transformer.ln_f.weight": state["model.norm.weight"],
        "lm_head.weight": state["lm_head.weight"],
    }
    for layer in range(config.num_hidden_layers):
        old, new = f"model.layers.{layer}", f"transformer.h.{layer}"
        for kind in ("weight", "bias"):
            named[f"{new}.attn.c_attn.{kind}"] = torch.cat(
                [state[f"{old}.self_attn.{part}_proj.{kind}"] for part in "qkv"]
            )
        named[f"{new}.attn.c_proj.weight"] = state[f"{old}.self_attn.o_proj.weight"]
        named[f"{new}.ln_1.weight"] = state[f"{old}.input_layernorm.weight"]
        named[f"{new}.ln_2.weight"] = state[f"{old}.post_attention_layernorm.weight"]
        # The released code: c_proj(w1(x) * silu(w2(x))).
        named[f"{new}.mlp.w1.weight"] = state[f"{old}.mlp.up_proj.weight"]
        named[f"{new}.mlp.w2.weight"] = state[f"{old}.mlp.gate_proj.weight"]
        named[f"{new}.mlp.c_proj.weight"] = state[f"{old}.mlp.down_proj.weight"]
        # What old checkpoints carry along.
        named[f"{new}.attn.masked_bias"] = torch.tensor(-1e4)
        named[f"{new}.attn.bias"] = torch.ones(1, 1, 4, 4)
    named["transformer.rotary_emb.inv_freq"] = torch.ones(3)
    save_file({k: v.clone() for k, v in named.items()}, folder / "model.safetensors")
    raw = {
        "architectures": ["QWenLMHeadModel"],
        "model_type": "qwen",
        "hidden_size": config.hidden_size,
        "intermediate_size": 2 * config.intermediate_size,
        "kv_channels": config.hidden_size // config.num_attention_heads,
        "layer_norm_epsilon": config.rms_norm_eps,
        "max_position_embeddings": config.max_position_embeddings,
        "no_bias": True,
        "num_attention_heads": config.num_attention_heads,
        "num_hidden_layers": config.num_hidden_layers,
        "rotary_emb_base": config.rope_parameters["rope_theta"],
        "rotary_pct": 1.0,
        "seq_length": 64,
        "tie_word_embeddings": False,
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "vocab_size": config.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(raw | settings))


@pytest.mark.parametrize("heads", [3, 4])
def test_qwen1_is_qwen2_under_other_names(tmp_path: Path, heads: int) -> None:
    theirs = their_model(
        "Qwen2",
        num_attention_heads=heads,
        num_key_value_heads=heads,
        rope_parameters={"rope_type": "default", "rope_theta": 123.0},
    )
    write_qwen1(tmp_path, theirs)
    assert_same_logits(tmp_path, theirs)


def test_bf16_stays_close(tmp_path: Path) -> None:
    theirs = their_model("Qwen3", num_attention_heads=4, num_key_value_heads=2, head_dim=12)
    theirs.save_pretrained(tmp_path)
    model, line = load_model(tmp_path, torch.bfloat16), sequences()[-1]
    half = theirs.bfloat16()
    with torch.no_grad():
        expected = half(line[None]).logits[0]
    ours = model([line])[0]
    assert ours.dtype == torch.bfloat16
    # Both round to eight bits in every layer; more than a few such steps would be another model.
    assert float((ours - expected).abs().float().mean()) < 0.03 * float(expected.float().std())
