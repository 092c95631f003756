"""Attention for training is the model's own attention, there and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qwen_eval.model.attention import Span, pack
from qwen_eval.model.transformer import Transformer
from qwen_eval.train.batch import QUERY_BLOCK, batch_of
from tests.train.toy_training import family

# Under, at, and beyond a block of queries, and no multiple of it.
LENGTHS = [1, 2, 37, QUERY_BLOCK, QUERY_BLOCK + 1, 2 * QUERY_BLOCK + 45]


def heads(length: int, sequences: int, kv: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Queries of 4 heads, keys and values of `kv`, fp64."""
    draw = torch.Generator().manual_seed(seed)
    tokens = sequences * length

    def some(count: int) -> Tensor:
        x = torch.randn((tokens, count, 8), generator=draw, dtype=torch.float64)
        return x.requires_grad_()

    return some(4), some(kv), some(kv)


def dense(q: Tensor, k: Tensor, v: Tensor, shown_TT: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(D)) v of every head by itself, with what is not shown left out."""
    out = []
    for head in range(q.shape[1]):
        shared = head * k.shape[1] // q.shape[1]
        scores = q[:, head] @ k[:, shared].T / q.shape[2] ** 0.5
        weights = torch.where(shown_TT, scores.exp(), torch.zeros(()))
        out.append(weights @ v[:, shared] / weights.sum(1, keepdim=True))
    return torch.stack(out, 1)


def gradients(out: Tensor, of: tuple[Tensor, ...]) -> list[Tensor]:
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(7), dtype=out.dtype)
    return list(torch.autograd.grad((out * weights).sum(), of))


@pytest.mark.parametrize("kv", [4, 2, 1])
@pytest.mark.parametrize("length", LENGTHS)
def test_as_the_models_own_attention(length: int, kv: int) -> None:
    qkv = heads(length, 2, kv)
    config = family("llama")
    ids = torch.zeros(2, length, dtype=torch.int64)
    ours = batch_of(config, ids).attend(*qkv, 0, None)
    whole = pack(config, ids.flatten(), (Span(length), Span(length)))
    theirs = whole.attend(*qkv, 0, None)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients(ours, qkv), gradients(theirs, qkv), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("length", [37, 2 * QUERY_BLOCK + 45])
def test_documents_do_not_see_one_another(length: int) -> None:
    sequences = 2
    qkv = heads(length, sequences, 2)
    draw = torch.Generator().manual_seed(3)
    begins = torch.rand((sequences, length), generator=draw) < 0.1
    documents = begins.long().cumsum(1)
    batch = batch_of(family("llama"), torch.zeros(sequences, length).long(), documents)
    ours = batch.attend(*qkv, 0, None)
    of_sequence = torch.arange(sequences).repeat_interleave(length)
    number = of_sequence * length + documents.flatten()
    at = torch.arange(sequences * length)
    shown = (number[:, None] == number) & (at <= at[:, None])
    theirs = dense(*qkv, shown)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    for a, b in zip(gradients(ours, qkv), gradients(theirs, qkv), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


def test_a_document_is_as_if_it_were_alone() -> None:
    """Positions go on through the sequence; RoPE sees differences only."""
    config = family("qwen3")
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(1))
    ids = torch.randint(0, 257, (1, 50), generator=torch.Generator().manual_seed(2))
    documents = torch.zeros(1, 50, dtype=torch.int64)
    documents[:, 20:] = 1
    together = model.hidden(batch_of(config, ids, documents))
    alone = [model.hidden(batch_of(config, part)) for part in (ids[:, :20], ids[:, 20:])]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=2e-6)
    apart = model.hidden(batch_of(config, ids))
    assert (apart[20:] - together[20:]).abs().max() > 1e-3, "the mask changes nothing"


@pytest.mark.parametrize("name", ["qwen", "qwen2", "qwen3", "llama"])
def test_the_whole_model_is_that_of_the_reference_pass(name: str) -> None:
    config = family(name)
    model = Transformer(config)
    model.init_weights(torch.Generator().manual_seed(1))
    ids = torch.randint(0, 257, (3, 41), generator=torch.Generator().manual_seed(2))
    ours = model.logits(model.hidden(batch_of(config, ids)))
    theirs = torch.cat(model(list(ids)))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_in_bf16_within_its_rounding() -> None:
    q, k, v = (x.detach().bfloat16() for x in heads(200, 2, 4))
    batch = batch_of(family("qwen"), torch.zeros(2, 200).long())
    ours = batch.attend(q, k, v, 0, None).double()
    theirs = batch.attend(q.double(), k.double(), v.double(), 0, None)
    # Scores and weights are rounded to 8 bits once each.
    assert (ours - theirs).norm() < 2**-7 * theirs.norm()
