"""The switches of the context: what they do to attention, in fp64 numpy, and which are refused."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from qwen_eval.errors import UserError
from qwen_eval.model.attention import Span, pack
from qwen_eval.model.config import ModelConfig, config_from_hf
from qwen_eval.model.rope import ntk_alpha
from qwen_eval.model.transformer import Attention
from qwen_eval.model.windows import schedule
from qwen_eval.model.yarn import Yarn
from tests.model.test_config import QWEN2, QWEN_7B

Array = NDArray[np.float64]
TINY = ModelConfig(
    family="qwen",
    vocab_size=9,
    hidden_size=24,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    ffn_size=8,
    rope_base=100.0,
    max_length=256,
    trained_length=8,
    qkv_bias=True,
)
PLAIN = config_from_hf(QWEN2)
YARN = config_from_hf(QWEN2 | {"rope_scaling": {"type": "yarn", "factor": 4.0}})
WINDOWED = replace(PLAIN, num_layers=2, windows=(None, 512))
DYNAMIC = config_from_hf(QWEN_7B)


def speeds(config: ModelConfig, alpha: float) -> Array:
    """Of each pair: base'^(-2i / D) under NTK; under YaRN (its equations 17 to 20) a blend."""
    D, base = config.head_dim, config.rope_base * alpha ** (config.head_dim / (config.head_dim - 2))
    plain: Array = base ** (-2 * np.arange(D // 2) / D)
    if (yarn := config.yarn) is None:
        return plain

    def edge(turns: float) -> float:
        return D / 2 * math.log(yarn.original_length / (2 * math.pi * turns), base)

    low = max(math.floor(edge(yarn.beta_fast)), 0)
    high = min(math.ceil(edge(yarn.beta_slow)), D - 1)
    slowed = np.array([min(max((i - low) / (high - low), 0), 1) for i in range(D // 2)])
    return np.asarray(plain * (1 - slowed) + plain / yarn.factor * slowed)


def attended(layer: Attention, x: Array, config: ModelConfig, window: int | None) -> Array:
    """One layer of attention over a whole prompt, straight from the formulas."""
    T, D = len(x), config.head_dim
    alpha = ntk_alpha(T, config.trained_length) if config.ntk else 1.0
    turns = np.exp(1j * np.arange(T)[:, None] * speeds(config, alpha))
    turns *= 0.1 * math.log(config.yarn.factor) + 1 if config.yarn else 1.0
    weights = {name: p.detach().double().numpy() for name, p in layer.named_parameters()}
    out = np.zeros((T, config.num_heads * D))
    q, k, v = (x @ weights[f"{n}_proj.weight"].T + weights[f"{n}_proj.bias"] for n in "qkv")
    for head in range(config.num_heads):
        group = head // (config.num_heads // config.num_kv_heads)
        q_one, k_one = (a[:, i * D : (i + 1) * D] for a, i in ((q, head), (k, group)))
        q_one, k_one = ((a[:, : D // 2] + 1j * a[:, D // 2 :]) * turns for a in (q_one, k_one))
        for t in range(T):
            first = 0 if window is None else max(t - window + 1, 0)
            scores = (q_one[t] * k_one[first : t + 1].conj()).real.sum(-1) / math.sqrt(D)
            if config.logn and t + 1 > config.trained_length:
                scores *= math.log(t + 1, config.trained_length)
            shares = np.exp(scores - scores.max())
            seen = v[first : t + 1, group * D : (group + 1) * D]
            out[t, head * D : (head + 1) * D] = shares / shares.sum() @ seen
    return np.asarray(out @ weights["o_proj.weight"].T)


@pytest.mark.parametrize("window", [None, 1, 5, 12, 40])
@pytest.mark.parametrize(
    "change",
    [
        {},
        {"ntk": True},
        {"logn": True},
        {"ntk": True, "logn": True},
        {"yarn": Yarn(4.0, 8, beta_fast=1.0, beta_slow=0.05)},
        {"yarn": Yarn(4.0, 8), "logn": True},
    ],
)
@pytest.mark.parametrize("length", [7, 33])
def test_attention_is_the_formulas(change: dict[str, Any], window: int | None, length: int) -> None:
    config = replace(TINY, **change)
    generator = torch.Generator().manual_seed(length)
    layer = Attention(config)
    for parameter in layer.parameters():
        parameter.data.normal_(0.0, 0.4, generator=generator)
    x_TE = torch.randn(length, config.hidden_size, generator=generator)
    alpha = ntk_alpha(length, config.trained_length) if config.ntk else 1.0
    with torch.no_grad():
        batch = pack(config, torch.zeros(length, dtype=torch.long), (Span(length, alpha),))
        ours = layer(x_TE, batch, 0, window).double().numpy()
    wanted = attended(layer, x_TE.double().numpy(), config, window)
    assert wanted.std() > 0.3
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=3e-5)


def test_logn_has_no_table_that_ends() -> None:
    """The released table stops at 32,767 tokens."""
    config = replace(TINY, logn=True, trained_length=2048)
    factors = pack(config, torch.zeros(40000, dtype=torch.long), (Span(40000),)).logn_T
    assert factors is not None
    for position in (0, 2047, 2048, 32766, 32767, 32768, 39999):
        wanted = max(1.0, math.log(position + 1) / math.log(2048))
        assert float(factors[position]) == pytest.approx(wanted, rel=1e-7)


def test_switches_in_combination() -> None:
    chunks = PLAIN.with_context(ntk=True, ntk_chunks=True, logn=True, max_length=10**6)
    assert (chunks.ntk, chunks.ntk_chunks, chunks.logn, chunks.max_length) == (
        True,
        True,
        True,
        10**6,
    )
    assert DYNAMIC.with_context(ntk_chunks=True).ntk_chunks
    assert not chunks.with_context(ntk=False).ntk_chunks
    assert chunks.with_context().ntk_chunks
    assert not chunks.with_context(ntk_chunks=False).ntk_chunks
    assert chunks.with_context(ntk_chunks=False).ntk


def test_yarn_by_flag() -> None:
    stretched = PLAIN.with_context(yarn=4.0)
    assert stretched == YARN
    assert (stretched.max_length, stretched.trained_length) == (131072, 32768)
    assert PLAIN.with_context(yarn=4.0, max_length=40000).max_length == 40000
    assert PLAIN.with_context(yarn=1.0).max_length == 32768
    with_ntk_off = DYNAMIC.with_context(ntk=False, yarn=8.0)
    assert (with_ntk_off.yarn, with_ntk_off.max_length) == (Yarn(8.0, 8192), 65536)
    assert YARN.with_context(ntk=False, logn=True, max_length=131072).logn


def test_the_bare_model_beyond_its_length() -> None:
    bare = PLAIN.with_context(ntk=False, max_length=65536)
    assert (bare.max_length, bare.ntk, bare.yarn) == (65536, False, None)


def test_window_takes_the_models_own_or_the_schedule() -> None:
    assert WINDOWED.with_context(window=True).windows == (None, 512)
    assert WINDOWED.with_context().windows == (None, 512)
    assert WINDOWED.with_context(window=False).windows == ()
    assert PLAIN.with_context().windows == ()
    long = PLAIN.with_context(window=True, ntk=True, max_length=131072)
    assert long.windows == schedule(24, 32768)
    # What reaches over the whole context is none.
    short = PLAIN.with_context(window=True)
    assert short.windows == tuple(w if w < 32768 else None for w in schedule(24, 32768))
    assert (short.sinks, WINDOWED.with_context(window=True).sinks) == (4, 0)
    assert PLAIN.with_context(window=True, max_length=100).windows == ()


def test_window_sizes() -> None:
    three = replace(PLAIN, num_layers=3)
    assert three.with_context(window_sizes="512").windows == (512,) * 3
    assert three.with_context(window_sizes="4,512,full", window=True).windows == (4, 512, None)
    assert three.with_context(window_sizes="32768,full").windows == ()
    assert (
        three.with_context(window_sizes="40000", ntk=True, max_length=65536).windows == (40000,) * 3
    )


REFUSED: list[tuple[ModelConfig, dict[str, Any], str]] = [
    (YARN, {"ntk": True}, "--ntk: config.json stretches RoPE by YaRN already; leave it out"),
    (YARN, {"yarn": 2.0}, "--yarn 2: config.json stretches RoPE by YaRN already; leave it out"),
    (DYNAMIC, {"yarn": 2.0}, "--yarn 2: config.json stretches RoPE by NTK already; add --no-ntk"),
    (PLAIN, {"yarn": 2.0, "ntk": True}, "--yarn 2: --ntk stretches RoPE as well; leave one out"),
    (PLAIN, {"yarn": 0.5}, "--yarn 0.5: give a factor from 1 on, such as 4"),
    (PLAIN, {"yarn": math.nan}, "--yarn nan: give a factor from 1 on, such as 4"),
    (PLAIN, {"yarn": math.inf}, "--yarn inf: give a factor from 1 on, such as 4"),
    (PLAIN, {"ntk_chunks": True}, "--ntk-chunks: says when NTK acts, and NTK is off; add --ntk"),
    (DYNAMIC, {"ntk_chunks": True, "ntk": False}, "--ntk-chunks: says when NTK acts, and NTK is"),
    (YARN, {"ntk_chunks": True}, "--ntk-chunks: config.json stretches RoPE by YaRN already; leave"),
    (PLAIN, {"ntk_chunks": True, "yarn": 2.0}, "--ntk-chunks: --yarn stretches RoPE by YaRN alre"),
    (
        PLAIN,
        {"max_length": 32769},
        "--max-length 32769: this model's context is 32768 tokens; take less, stretch it with "
        "--ntk or --yarn, or run the bare model beyond it with --no-ntk",
    ),
    (
        YARN,
        {"max_length": 131073, "ntk": False},
        "--max-length 131073: YaRN stretches this model's context to 131072 tokens; take less",
    ),
    (
        PLAIN,
        {"max_length": 65537, "yarn": 2.0},
        "--max-length 65537: YaRN stretches this model's context to 65536 tokens; take less, or a "
        "larger --yarn",
    ),
    (PLAIN, {"window_sizes": "0"}, "--window-sizes 0: give tokens from 1 on or the word full"),
    (PLAIN, {"window_sizes": "-512"}, "--window-sizes -512: give tokens from 1 on"),
    (PLAIN, {"window_sizes": "few"}, "--window-sizes few: give tokens from 1 on"),
    (PLAIN, {"window_sizes": "4," * 24 + "full"}, "25 windows for 24 layers; give at most one"),
    (
        PLAIN,
        {"window_sizes": "40000"},
        "--window-sizes 40000: 40000 is more than the context of 32768 tokens; say full, or raise "
        "--max-length",
    ),
    (PLAIN, {"window_sizes": "512", "max_length": 256}, "more than the context of 256 tokens"),
    (
        WINDOWED,
        {"window_sizes": "512"},
        "--window-sizes 512: config.json names the windows that this model was trained with; "
        "leave it out",
    ),
    (
        PLAIN,
        {"window_sizes": "512", "window": False},
        "--window-sizes 512: --no-window says otherwise; leave one out",
    ),
]


@pytest.mark.parametrize(("config", "switches", "said"), REFUSED)
def test_what_does_not_go_together(
    config: ModelConfig, switches: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError) as caught:
        config.with_context(**switches)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change", [{"ntk_chunks": True}, {"ntk": True, "yarn": Yarn(2.0, 8)}], ids=str
)
def test_a_config_that_contradicts_itself(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="config: "):
        replace(TINY, **change)
