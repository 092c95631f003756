"""YaRN: speeds and logits against transformers, and what the families' config.json say of it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen_eval.errors import UserError
from qwen_eval.model.attention import Span, pack
from qwen_eval.model.config import ModelConfig, config_from_hf, config_to_hf, load_config
from qwen_eval.model.rope import RotationTable, rotation_of, yarn_frequencies
from qwen_eval.model.weights import load_model
from qwen_eval.model.yarn import Yarn
from qwen_eval.train.batch import batch_of
from tests.model.test_config import LLAMA, QWEN2, QWEN3, QWEN_7B
from tests.model.test_parity import SIZES, assert_same_logits, sequences, their_model

README = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768}


def theirs(head_dim: int, base: float, **rope: Any) -> tuple[torch.Tensor, float]:
    from transformers import Qwen2Config
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = Qwen2Config(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=rope["original_max_position_embeddings"],
        rope_theta=base,
        rope_scaling={"rope_type": "yarn", **rope},
    )
    frequencies, scale = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    return frequencies, scale


@settings(derandomize=True, max_examples=150, deadline=None)
@given(st.data())
def test_speeds_and_scale_are_those_of_transformers(data: st.DataObject) -> None:
    head_dim = 2 * data.draw(st.integers(1, 96))
    base = data.draw(st.sampled_from([100.0, 10000.0, 1e6, 1e7]))
    slow = data.draw(st.sampled_from([0.5, 1.0, 2.0]))
    rope: dict[str, Any] = {
        "factor": data.draw(st.floats(1, 64)),
        "original_max_position_embeddings": data.draw(st.integers(1, 65536)),
        "beta_slow": slow,
        "beta_fast": slow + data.draw(st.sampled_from([0.0, 1.0, 31.0])),
        "truncate": data.draw(st.booleans()),
    }
    for name in ("attention_factor", "mscale", "mscale_all_dim"):
        if data.draw(st.booleans()):
            rope[name] = data.draw(st.floats(0.1, 2))
    raw = QWEN2 | {"head_dim": head_dim, "rope_theta": base}
    config = config_from_hf(raw | {"rope_scaling": {"rope_type": "yarn", **rope}})
    assert config.yarn is not None
    expected, scale = theirs(head_dim, base, **rope)
    assert torch.equal(yarn_frequencies(head_dim, base, config.yarn), expected)
    assert config.yarn.scale == scale


def test_the_released_settings_are_theirs() -> None:
    for raw in (QWEN2, QWEN3, LLAMA):
        config = config_from_hf(raw | {"rope_scaling": README})
        assert config.yarn == Yarn(4.0, 32768)
        expected, scale = theirs(
            config.head_dim, 1e6, factor=4.0, original_max_position_embeddings=32768
        )
        assert torch.equal(yarn_frequencies(config.head_dim, 1e6, config.yarn), expected)
        assert config.yarn.scale == scale == pytest.approx(0.1 * math.log(4) + 1)
        assert (config.max_length, config.trained_length) == (131072, 32768)


@pytest.mark.parametrize("family", ["Qwen2", "Qwen3", "Llama"])
@pytest.mark.parametrize(
    "rope",
    [
        {"factor": 4.0},
        {"factor": 4.0, "beta_fast": 2.0, "beta_slow": 0.25},
        {"factor": 2.5, "truncate": False},
        {"factor": 4.0, "attention_factor": 1.7},
        {"factor": 8.0, "mscale": 0.7, "mscale_all_dim": 1.3},
    ],
)
@pytest.mark.parametrize("longest", [16, 64])
def test_logits_beyond_the_original_length(
    tmp_path: Path, family: str, rope: dict[str, Any], longest: int
) -> None:
    """Forty tokens, where sixteen were trained; the files are as transformers writes them."""
    parameters = {"rope_type": "yarn", "rope_theta": 50.0, "original_max_position_embeddings": 16}
    model = their_model(
        family,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=12,
        max_position_embeddings=longest,
        rope_parameters=parameters | rope,
    )
    model.save_pretrained(tmp_path)
    assert load_config(tmp_path).max_length == max(longest, 16 * rope["factor"])
    assert_same_logits(tmp_path, model)
    line = sequences()[-1]
    plain = load_model(tmp_path, config=replace(load_config(tmp_path), yarn=None))([line])[0]
    with torch.no_grad():
        assert float((plain - model(line[None]).logits[0]).abs().max()) > 0.05


def test_logits_of_the_old_spelling(tmp_path: Path) -> None:
    """As the READMEs of Qwen2.5 say: rope_scaling is added to a config.json without it."""
    model = their_model("Qwen2", num_attention_heads=4, num_key_value_heads=2)
    model.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    raw = json.loads(path.read_text())
    del raw["rope_parameters"]
    scaling = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
    raw |= {"rope_theta": 50.0, "rope_scaling": scaling, "max_position_embeddings": 16}
    path.write_text(json.dumps(raw))
    from transformers import Qwen2ForCausalLM

    again = Qwen2ForCausalLM.from_pretrained(tmp_path, attn_implementation="eager").eval()
    assert_same_logits(tmp_path, again)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    st.sampled_from([QWEN2, QWEN3, LLAMA]),
    st.builds(
        Yarn,
        factor=st.sampled_from([1.0, 2.5, 4.0]),
        original_length=st.sampled_from([64, 1000, 32768]),
        beta_fast=st.sampled_from([32.0, 8.0]),
        beta_slow=st.sampled_from([1.0, 0.5]),
        attention_factor=st.sampled_from([None, 1.0, 1.25]),
        mscale=st.sampled_from([None, 0.7]),
        mscale_all_dim=st.sampled_from([None, 1.0]),
        truncate=st.booleans(),
    ),
)
def test_yarn_survives_the_round_trip(raw: dict[str, Any], yarn: Yarn) -> None:
    config = replace(
        config_from_hf(raw),
        yarn=yarn,
        trained_length=yarn.original_length,
        max_length=yarn.length,
    )
    written = json.loads(json.dumps(config_to_hf(config)))
    assert config_from_hf(written) == config
    rope = {k: v for k, v in written["rope_scaling"].items() if k != "rope_type"}
    expected, scale = theirs(config.head_dim, config.rope_base, **rope)
    assert torch.equal(yarn_frequencies(config.head_dim, config.rope_base, yarn), expected)
    assert yarn.scale == scale


def test_a_config_of_qwen1_cannot_hold_it() -> None:
    config = config_from_hf(QWEN_7B).with_context(ntk=False, yarn=2.0)
    with pytest.raises(UserError, match="cannot hold YaRN"):
        config_to_hf(config)


def test_where_the_settings_may_stand() -> None:
    wanted = config_from_hf(QWEN2 | {"rope_scaling": README})
    renamed = {"rope_type": "yarn", **{k: v for k, v in README.items() if k != "type"}}
    assert config_from_hf(QWEN2 | {"rope_scaling": renamed}) == wanted
    new = {key: value for key, value in QWEN2.items() if key != "rope_theta"}
    assert config_from_hf(new | {"rope_parameters": renamed | {"rope_theta": 1e6}}) == wanted
    # Added to a file that transformers 5 wrote: the base stays the one that was trained.
    written = new | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
    assert config_from_hf(written | {"rope_scaling": README}) == wanted
    bare = {"type": "yarn", "factor": 4.0}
    assert config_from_hf(QWEN2 | {"rope_scaling": bare}) == wanted
    outside = QWEN2 | {"original_max_position_embeddings": 8192, "rope_scaling": {"type": "yarn"}}
    assert config_from_hf(outside).yarn == Yarn(4.0, 8192)


@pytest.mark.parametrize(
    ("positions", "factor", "length"),
    [
        (32768, 4.0, 131072),  # Qwen2.5, and its README
        (131072, 4.0, 131072),
        (40960, 4.0, 131072),  # Qwen3: room for 32,768 tokens of output is no stretch
        (262144, 4.0, 262144),
        (32768, 1.1, 36045),
    ],
)
def test_lengths(positions: int, factor: float, length: int) -> None:
    raw = QWEN3 | {"max_position_embeddings": positions}
    config = config_from_hf(raw | {"rope_scaling": README | {"factor": factor}})
    assert (config.max_length, config.trained_length) == (length, 32768)


@pytest.mark.parametrize(
    ("rope", "named"),
    [
        ({}, "YaRN's factor is missing"),
        ({"factor": 0.5}, "YaRN's factor must be a number from 1 on, is 0.5"),
        ({"factor": math.inf}, "from 1 on, is inf"),
        ({"factor": "four"}, "four"),
        ({"factor": 2.0, "original_max_position_embeddings": -1}, "positive whole number, is -1"),
        ({"factor": 2.0, "original_max_position_embeddings": 10.5}, "whole number, is 10.5"),
        ({"factor": 2.0, "beta_fast": 1, "beta_slow": 2}, "beta_fast, 1.0, must be no less"),
        ({"factor": 2.0, "beta_slow": 0}, "both above 0"),
        ({"factor": 2.0, "mscale": []}, "list"),
    ],
)
def test_settings_that_are_none(rope: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match="here: ") as caught:
        config_from_hf(QWEN2 | {"rope_scaling": {"type": "yarn", **rope}}, where="here")
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_acts_in_reference_training_and_engine_alike() -> None:
    config = ModelConfig(
        "qwen2", 9, 16, 1, 2, 2, 8, 8, max_length=4096, trained_length=1024, yarn=Yarn(4.0, 1024)
    )
    positions = torch.arange(1500)
    cos, sin = rotation_of(config, positions)
    assert float((cos**2 + sin**2).mean()) == pytest.approx((0.1 * math.log(4) + 1) ** 2)
    ids = torch.zeros(1500, dtype=torch.long)
    packed, trained = pack(config, ids, (Span(1500),)), batch_of(config, ids[None])
    table = RotationTable(config, torch.device("cpu")).rows(positions.tolist(), [1.0] * 1500)
    for found in ((packed.cos, packed.sin), (trained.cos, trained.sin), table):
        torch.testing.assert_close(found, (cos, sin), rtol=0, atol=1e-6)
    assert SIZES["max_position_embeddings"] < 1500
