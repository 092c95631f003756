"""The loss in blocks is the loss, its gradients are the gradients, and no table of logits lives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qwen_eval.train import cross_entropy as module
from qwen_eval.train.cross_entropy import IGNORED, cross_entropy

VOCABULARY, SIZE = 257, 32


def drawn(rows: int, ignored: float = 0.2) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(rows)
    hidden = torch.randn((rows, SIZE), generator=draw)
    head = torch.randn((VOCABULARY, SIZE), generator=draw)
    targets = torch.randint(0, VOCABULARY, (rows,), generator=draw)
    targets[torch.rand(rows, generator=draw) < ignored] = IGNORED
    return hidden, head, targets


def exactly(hidden: Tensor, head: Tensor, targets: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Loss and both gradients by PyTorch, in fp64."""
    a, b = (x.double().requires_grad_() for x in (hidden, head))
    loss = scale * F.cross_entropy(a @ b.T, targets, ignore_index=IGNORED, reduction="sum")
    return loss.detach(), *torch.autograd.grad(loss, (a, b))


def ours(
    hidden: Tensor, head: Tensor, targets: Tensor, scale: float, compiled: bool = False
) -> tuple[Tensor, ...]:
    a, b = (x.clone().requires_grad_() for x in (hidden, head))
    loss = cross_entropy(a, b, targets, scale, compiled)
    assert loss.dtype == torch.float32
    return loss.detach(), *torch.autograd.grad(loss, (a, b))


def near(found: tuple[Tensor, ...], wanted: tuple[Tensor, ...], share: float) -> None:
    for a, b in zip(found, wanted, strict=True):
        assert (a.double() - b).abs().max() <= share * b.abs().max().clamp(min=1e-30)


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 50])
def test_as_in_fp64(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.ROWS, "cpu", 8)
    batch = drawn(rows)
    near(ours(*batch, 1 / 37), exactly(*batch, 1 / 37), 2e-6)


def test_nothing_asked_is_nothing() -> None:
    hidden, head, targets = drawn(9, ignored=1.1)
    loss, to_hidden, to_head = ours(hidden, head, targets, 0.5)
    assert loss == 0
    assert not to_hidden.any()
    assert not to_head.any()


def test_large_logits_do_not_overflow() -> None:
    hidden, head, targets = drawn(20)
    batch = hidden * 1e3, head * 10, targets
    assert (batch[0] @ batch[1].T).max() > 1e5
    near(ours(*batch, 1.0), exactly(*batch, 1.0), 2e-5)


@pytest.mark.filterwarnings("ignore:Input #. requires gradient and is not a double")
def test_gradients_are_the_slopes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By finite differences, so that no other derivation of the gradient is trusted."""
    monkeypatch.setitem(module.ROWS, "cpu", 3)
    hidden, head, targets = drawn(7)
    hidden, head = hidden[:, :5].clone().requires_grad_(), head[:11, :5].clone().requires_grad_()
    targets = torch.where(targets == IGNORED, IGNORED, targets % 11)

    def loss(a: Tensor, b: Tensor) -> Tensor:
        return cross_entropy(a, b, targets, 0.3)

    # Sums are fp32: a step large enough to be seen in them.
    torch.autograd.gradcheck(loss, (hidden, head), eps=1e-2, atol=2e-3, rtol=2e-3)


def test_the_gradient_that_comes_back_counts() -> None:
    hidden, head, targets = drawn(9)
    a = hidden.clone().requires_grad_()
    (once,) = torch.autograd.grad(cross_entropy(a, head, targets, 1.0), a)
    (thrice,) = torch.autograd.grad(3 * cross_entropy(a, head, targets, 1.0), a)
    torch.testing.assert_close(thrice, 3 * once)


def test_in_bf16_gradients_have_its_rounding_and_no_more() -> None:
    hidden, head, targets = drawn(300)
    batch = hidden.bfloat16(), head.bfloat16(), targets
    loss, *gradients = ours(*batch, 1 / 300)
    wanted, *slopes = exactly(*batch, 1 / 300)
    assert abs(loss - wanted) < 2e-3 * wanted
    for a, b in zip(gradients, slopes, strict=True):
        assert a.dtype == torch.bfloat16
        assert (a.double() - b).norm() < 0.01 * b.norm()


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Elements of the largest tensor that any operation gives back."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_leaves(out) if isinstance(x, Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def test_no_table_of_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.ROWS, "cpu", 8)
    hidden, head, targets = drawn(400)
    a, b = hidden.requires_grad_(), head.requires_grad_()
    kept: list[int] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    watch: Any = Largest
    with watch() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        torch.autograd.backward(cross_entropy(a, b, targets, 1.0))
    assert sorted(kept) == sorted([hidden.numel(), head.numel()])
    assert largest.elements == max(hidden.numel(), head.numel(), 8 * VOCABULARY)
    assert largest.elements < hidden.shape[0] * VOCABULARY / 4


@pytest.mark.slow
def test_compiled_is_the_same() -> None:
    batch = drawn(600)  # a whole block and a part of one
    near(ours(*batch, 1 / 600, compiled=True), exactly(*batch, 1 / 600), 2e-6)
