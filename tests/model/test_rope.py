"""RoPE, dynamic NTK and LogN against golden values, complex numbers and fp64 formulas."""

from __future__ import annotations

import math

import pytest
import torch

from qwen_eval.model.rope import (
    inverse_frequencies,
    logn_scale,
    ntk_alpha,
    rotate,
    rotation,
)


@pytest.mark.parametrize(
    ("alpha", "base"), [(1.0, 10000.0), (3.0, 30527.7), (7.0, 72195.9), (15.0, 156588.3)]
)
def test_stretched_bases_of_the_paper(alpha: float, base: float) -> None:
    frequencies = inverse_frequencies(128, 10000.0, alpha).double()
    exponents = torch.arange(0, 128, 2, dtype=torch.float64) / 128
    torch.testing.assert_close(frequencies, base**-exponents, rtol=3e-6, atol=0)
    assert float(frequencies[1] ** -64) == pytest.approx(base, rel=1e-4)


@pytest.mark.parametrize("trained", [8, 2048, 8192, 1000])
def test_alpha_steps_with_the_prompt(trained: int) -> None:
    assert ntk_alpha(1, trained) == ntk_alpha(trained, trained) == 1
    for lower, alpha in ((1, 3), (2, 7), (4, 15), (8, 31)):
        assert ntk_alpha(lower * trained + 1, trained) == alpha
        assert ntk_alpha(2 * lower * trained, trained) == alpha


@pytest.mark.parametrize("head_dim", [4, 64, 128])
def test_rotation_is_multiplication_by_a_complex_number(head_dim: int) -> None:
    torch.manual_seed(0)
    x_THD = torch.randn(6, 3, head_dim)
    positions = torch.tensor([0, 1, 5, 5, 300, 4095])
    frequencies = inverse_frequencies(head_dim, 10000.0)
    turned = rotate(x_THD, *rotation(positions, frequencies)).double()

    half = head_dim // 2
    number = torch.complex(x_THD[..., :half].double(), x_THD[..., half:].double())
    angles = positions.double()[:, None] * frequencies.double()
    expected = number * torch.polar(torch.ones_like(angles), angles)[:, None]
    # The angle itself is an fp32 product: 4095 radians are exact to 2.5e-4.
    torch.testing.assert_close(turned[..., :half], expected.real, rtol=0, atol=2e-3)
    torch.testing.assert_close(turned[..., half:], expected.imag, rtol=0, atol=2e-3)
    torch.testing.assert_close(turned[:4, :, :half], expected.real[:4], rtol=0, atol=3e-6)
    assert torch.equal(turned[0], x_THD[0].double())


def test_scores_depend_on_the_distance_alone() -> None:
    torch.manual_seed(1)
    q, k = torch.randn(2, 1, 1, 64).unbind()
    frequencies = inverse_frequencies(64, 10000.0)

    def score(query: int, key: int) -> float:
        turned = [
            rotate(x, *rotation(torch.tensor([position]), frequencies))
            for x, position in ((q, query), (k, key))
        ]
        return float((turned[0] * turned[1]).sum())

    assert score(12, 5) == pytest.approx(score(107, 100), abs=1e-4)
    assert abs(score(12, 5) - score(5, 12)) > 1e-2


def test_one_frequency_table_per_token() -> None:
    torch.manual_seed(2)
    x_THD, positions = torch.randn(4, 2, 8), torch.arange(4)
    one, three = inverse_frequencies(8, 100.0), inverse_frequencies(8, 100.0, 3.0)
    mixed = rotate(x_THD, *rotation(positions, torch.stack([one, three, three, one])))
    for frequencies, rows in ((one, [0, 3]), (three, [1, 2])):
        whole = rotate(x_THD, *rotation(positions, frequencies))
        assert torch.equal(mixed[rows], whole[rows])
    assert not torch.allclose(mixed[1], rotate(x_THD, *rotation(positions, one))[1])


def test_rotation_keeps_the_dtype_but_computes_in_fp32() -> None:
    torch.manual_seed(3)
    x = torch.randn(5, 2, 16).bfloat16()
    tables = rotation(torch.arange(5) + 1000, inverse_frequencies(16, 10000.0))
    turned = rotate(x, *tables)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), *tables).bfloat16())


@pytest.mark.parametrize("trained", [2, 2048, 8192])
def test_logn_follows_the_formula_beyond_the_released_table(trained: int) -> None:
    positions = [
        0,
        1,
        2,
        trained - 2,
        trained - 1,
        trained,
        trained + 1,
        32766,
        32767,
        32768,
        10**6,
    ]
    factors = logn_scale(torch.tensor(positions), trained)
    for position, factor in zip(positions, factors.tolist(), strict=True):
        # modeling_qwen.py: math.log(i, seq_length) if i > seq_length else 1, i counting from 1.
        count = position + 1
        expected = math.log(count, trained) if count > trained else 1.0
        assert factor == pytest.approx(expected, rel=1e-7)
    assert factors.dtype == torch.float32
    assert factors[3] == factors[4] == 1
    assert factors[5] > 1
