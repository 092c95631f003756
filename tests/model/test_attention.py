"""Packed attention against a dense fp64 reference with an explicit mask; packing; init."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from qwen_eval.model.attention import Span, WholeSequences, pack
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Block, Transformer

CONFIG = ModelConfig(
    family="qwen",
    vocab_size=60,
    hidden_size=24,
    num_layers=2,
    num_heads=3,
    num_kv_heads=3,
    head_dim=8,
    ffn_size=20,
    max_length=256,
    trained_length=8,
    qkv_bias=True,
)
HEADS = [(3, 3), (6, 2), (5, 1)]
WINDOWS = [None, 1, 3, 9]


def dense(q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor, window: int | None) -> Tensor:
    """One whole sequence in fp64: every score, an explicit mask, a softmax."""
    q, k, v = (x.double().transpose(0, 1) for x in (q_THD, k_TKD, v_TKD))
    group = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    for query, key in itertools.product(range(q.shape[1]), repeat=2):
        seen = key <= query and (window is None or query - key < window)
        if not seen:
            scores[:, query, key] = -torch.inf
    return (scores.softmax(-1) @ v).transpose(0, 1)


def whole(lengths: tuple[int, ...]) -> WholeSequences:
    none = torch.empty(0)
    return WholeSequences(torch.zeros(sum(lengths)), tuple(map(Span, lengths)), none, none)


def heads_of(heads: int, kv_heads: int, length: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(length, count, 8, generator=generator) for count in (heads, kv_heads, kv_heads)
    ]


def random_model(config: ModelConfig, seed: int = 0) -> Transformer:
    """Weights far from any default, biases and norms included, so that no term vanishes."""
    generator = torch.Generator().manual_seed(seed)
    model = Transformer(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.4, generator=generator)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("window", WINDOWS)
def test_packed_spans_are_the_dense_sequences(
    heads: int, kv_heads: int, window: int | None
) -> None:
    lengths = (1, 7, 2, 20)
    q, k, v = heads_of(heads, kv_heads, sum(lengths))
    out = whole(lengths).attend(q, k, v, 0, window)
    expected = [
        dense(q_one, k_one, v_one, window)
        for q_one, k_one, v_one in zip(
            *(x.split_with_sizes(lengths) for x in (q, k, v)), strict=True
        )
    ]
    torch.testing.assert_close(out.double(), torch.cat(expected), rtol=0, atol=2e-6)


def test_logn_scales_the_queries() -> None:
    """Against the same model without it, whose query weights and biases are scaled by hand."""
    config = replace(CONFIG, num_layers=1, trained_length=4)
    plain, scaled = random_model(config), random_model(replace(config, logn=True))
    ids = torch.randint(60, (9,), generator=torch.Generator().manual_seed(1))
    out = scaled([ids])[0]
    for position in range(9):
        factor = max(1.0, math.log(position + 1, 4))
        by_hand = random_model(config)
        block = by_hand.blocks[0]
        assert isinstance(block, Block)
        attention = block.attention
        attention.q_proj.weight.mul_(factor)
        attention.q_proj.bias.mul_(factor)
        expected = by_hand([ids])[0][position]
        torch.testing.assert_close(out[position], expected, rtol=0, atol=2e-5)
    assert not torch.allclose(out[8], plain([ids])[0][8], atol=1e-3)


def test_pack_gives_every_span_its_own_positions_and_alpha() -> None:
    config = replace(CONFIG, logn=True)
    spans = (Span(3, 1.0), Span(1, 7.0), Span(21, 3.0), Span(2, 1.0))
    packed = pack(config, torch.arange(27), spans)
    assert packed.logn_T is not None
    offset = 0
    for span in spans:
        part = slice(offset, offset + span.length)
        alone = pack(config, torch.arange(span.length), (span,))
        assert alone.logn_T is not None
        assert torch.equal(packed.cos[part], alone.cos)
        assert torch.equal(packed.sin[part], alone.sin)
        assert torch.equal(packed.logn_T[part], alone.logn_T)
        offset += span.length
    assert packed.logn_T[24] == pytest.approx(math.log(21, 8))
    assert pack(CONFIG, torch.arange(27), spans).logn_T is None


@pytest.mark.parametrize("windows", [(), (4, None), (None, 4)])
@pytest.mark.parametrize("logn", [True, False])
def test_a_packed_forward_is_each_sequence_alone(
    windows: tuple[int | None, ...], logn: bool
) -> None:
    model = random_model(replace(CONFIG, logn=logn, windows=windows))
    generator = torch.Generator().manual_seed(5)
    sequences = [torch.randint(60, (n,), generator=generator) for n in (1, 13, 2, 30)]
    for ids, together in zip(sequences, model(sequences), strict=True):
        torch.testing.assert_close(together, model([ids])[0], rtol=0, atol=2e-5)


def test_logn_and_windows_change_only_what_lies_beyond_their_length() -> None:
    ids = torch.randint(60, (20,), generator=torch.Generator().manual_seed(6))
    plain = random_model(CONFIG)([ids])[0]
    for config in (replace(CONFIG, logn=True), replace(CONFIG, windows=(8, 8))):
        altered = random_model(config)([ids])[0]
        torch.testing.assert_close(altered[:8], plain[:8], rtol=0, atol=1e-5)
        assert float((altered[8:] - plain[8:]).abs().amax(-1).min()) > 1e-3


def test_a_window_reaches_no_further() -> None:
    model = random_model(replace(CONFIG, windows=(3, 3)))
    ids = torch.randint(60, (12,), generator=torch.Generator().manual_seed(7))
    changed = ids.clone()
    changed[0] = (changed[0] + 1) % 60
    difference = (model([ids])[0] - model([changed])[0]).abs().amax(-1)
    # Two layers of a window of 3 see four tokens back: positions 0 to 4.
    assert bool((difference[:5] > 1e-4).all())
    assert float(difference[5:].max()) < 1e-5


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("layers", [2, 8])
def test_initial_weights(tied: bool, layers: int) -> None:
    config = replace(
        CONFIG,
        hidden_size=128,
        num_heads=4,
        num_kv_heads=4,
        head_dim=32,
        ffn_size=256,
        vocab_size=500,
        num_layers=layers,
        tied=tied,
        init_std=0.03,
        out_bias=True,
    )
    model = random_model(config)
    model.init_weights(torch.Generator().manual_seed(0))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "norm" in name:
            assert bool((parameter == 1).all()), name
        else:
            residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            std = 0.03 / math.sqrt(2 * layers) if residual else 0.03
            assert float(parameter.std()) == pytest.approx(std, rel=0.04), name
            assert abs(float(parameter.mean())) < 0.1 * std, name
    again = random_model(config, seed=1)
    again.init_weights(torch.Generator().manual_seed(0))
    assert all(map(torch.equal, model.parameters(), again.parameters()))
