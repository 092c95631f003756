"""Sampling against transformers' logits processors, and draws against their distribution."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from qwen_eval.model.engine.sampling import Sampling, choose, penalised, probabilities


def theirs(logits_V: Tensor, sampling: Sampling, seen: list[int]) -> Tensor:
    """The distribution that transformers' generate draws from."""
    steps = LogitsProcessorList()
    if sampling.repetition_penalty != 1 and seen:
        steps.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    steps.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        steps.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        steps.append(TopPLogitsWarper(sampling.top_p))
    ids = torch.tensor([seen], dtype=torch.long)
    scores: Tensor = steps(ids, logits_V[None].clone())[0]
    return scores.softmax(-1)


@settings(derandomize=True, max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    size=st.integers(1, 40),
    temperature=st.sampled_from([0.01, 0.5, 0.7, 1.0, 1.7, 5.0]),
    top_p=st.sampled_from([1e-6, 0.1, 0.5, 0.8, 0.95, 0.999, 1.0]),
    top_k=st.sampled_from([0, 1, 2, 5, 39, 40, 100]),
    penalty=st.sampled_from([1.0, 1.1, 2.0, 0.5]),
    seen_tokens=st.lists(st.integers(0, 10**6), max_size=12),
    ties=st.booleans(),
)
@example(
    seed=0,
    size=20,
    temperature=0.7,
    top_p=0.8,
    top_k=5,
    penalty=1.1,
    seen_tokens=[3, 3, 7],
    ties=False,
)
def test_the_distribution_is_that_of_transformers(
    *,
    seed: int,
    size: int,
    temperature: float,
    top_p: float,
    top_k: int,
    penalty: float,
    seen_tokens: list[int],
    ties: bool,
) -> None:
    logits_V = 3 * torch.randn(size, generator=torch.Generator().manual_seed(seed))
    if ties and top_p == 1:  # which of two equals top-p keeps is left open by the sort
        logits_V = logits_V.round()
    seen = [token % size for token in seen_tokens]
    sampling = Sampling(
        temperature=temperature, top_p=top_p, top_k=top_k, repetition_penalty=penalty
    )
    before = logits_V.clone()
    ours = probabilities(logits_V, sampling, seen)
    torch.testing.assert_close(ours, theirs(logits_V, sampling, seen), rtol=1e-5, atol=1e-7)
    assert torch.equal(logits_V, before), "the caller's logits must stay as they are"


def test_each_setting_narrows_or_shifts_as_it_says() -> None:
    logits_V = torch.tensor([2.0, 1.0, 0.0, -1.0])
    whole = logits_V.softmax(-1)

    def kept(**values: Any) -> list[int]:
        sampling = Sampling(**{"temperature": 1.0} | values)
        return probabilities(logits_V, sampling, []).nonzero()[:, 0].tolist()

    assert kept() == [0, 1, 2, 3]
    assert kept(top_k=2) == [0, 1]
    assert kept(top_p=float(whole[0]) - 1e-3) == [0]
    assert kept(top_p=float(whole[0]) + 1e-3) == [0, 1]
    assert kept(top_p=1e-9) == [0]
    # Top-k first: of two left, the first holds 0.73, enough for 0.7 though not among all four.
    assert kept(top_p=0.7) == [0, 1]
    assert kept(top_p=0.7, top_k=2) == [0]
    # Temperature comes before top-p.
    assert kept(top_p=0.7, temperature=0.5) == [0]
    cold = probabilities(logits_V, Sampling(temperature=0.5), [])
    torch.testing.assert_close(cold, (2 * logits_V).softmax(-1))


def test_the_penalty_pushes_both_signs_down_once() -> None:
    logits_V = torch.tensor([2.0, -2.0, 0.0, 1.0])
    sampling = Sampling(repetition_penalty=2.0)
    changed = penalised(logits_V, sampling, [0, 1, 1, 2, 0])
    assert changed.tolist() == [1.0, -4.0, 0.0, 1.0]
    assert penalised(logits_V, sampling, []) is logits_V
    assert penalised(logits_V, Sampling(), [0]) is logits_V


def test_greedy_takes_the_best_after_the_penalty() -> None:
    logits_V = torch.tensor([2.0, 1.9, -1.0])
    assert choose(logits_V, Sampling(), [0], None) == 0
    assert choose(logits_V, Sampling(repetition_penalty=1.1), [0], None) == 1
    assert choose(logits_V, Sampling(repetition_penalty=1.1), [], None) == 0
    assert choose(logits_V, Sampling(top_k=1, top_p=0.1), [], None) == 0


def test_draws_follow_the_distribution_and_the_seed() -> None:
    logits_V = torch.tensor([1.0, 0.0, -1.0, 0.5, -9.0])
    sampling = Sampling(temperature=0.8, top_k=3)

    def draws(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [choose(logits_V, sampling, [], generator) for _ in range(4000)]

    first = draws(1)
    assert first == draws(1) != draws(2)
    counts = torch.bincount(torch.tensor(first), minlength=5) / len(first)
    expected = probabilities(logits_V, sampling, [])
    assert counts[expected == 0].sum() == 0
    # Four standard errors of a share among 4000 draws are at most 0.032.
    assert float((counts - expected).abs().max()) < 0.032


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("top_k", -1),
        ("seed", 2**64),
        ("seed", -(2**63) - 1),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", float("nan")),
        ("repetition_penalty", float("inf")),
    ],
)
def test_values_out_of_range_are_named(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=field):
        Sampling(**{field: value})


def test_a_tiny_temperature_is_greedy_not_broken() -> None:
    logits_V = torch.tensor([30.0, 29.0, -50.0])
    for temperature in (1e-6, 1e-30, 1e-300):
        generator = torch.Generator().manual_seed(0)
        assert choose(logits_V, Sampling(temperature=temperature), [], generator) == 0
