"""A delta holds what it says, within its size, and reads as a model of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.delta import add_delta, low_rank, share_held, write_delta
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import load_model, save_model

CONFIG = ModelConfig("qwen", 61, 32, 2, 2, 2, 16, 48, qkv_bias=True)


def model(seed: int, config: ModelConfig = CONFIG) -> Transformer:
    made = Transformer(config)
    made.init_weights(torch.Generator().manual_seed(seed))
    return made


def tuned_by(base: Transformer, rank: int) -> Transformer:
    """A copy whose matrices differ by products of that rank, with plain decimals in vectors."""
    made, generator = model(0, base.config), torch.Generator().manual_seed(7)
    made.load_state_dict(base.state_dict())
    with torch.no_grad():
        for parameter in made.parameters():
            shape = parameter.shape
            if parameter.dim() == 1:
                parameter.add_(0.25)
            else:
                left = torch.randn(shape[0], rank, generator=generator)
                parameter.add_(0.02 * left @ torch.randn(rank, shape[1], generator=generator))
    return made


def test_a_difference_of_low_rank_is_kept_whole(tmp_path: Path) -> None:
    base = model(1)
    tuned = tuned_by(base, 3)
    save_model(base, tmp_path / "base")
    save_model(base, tmp_path / "delta")
    (tmp_path / "delta" / "model.safetensors").unlink()
    write_delta(low_rank(base, tuned, 1 << 20), tmp_path / "delta", "../base")
    made = load_model(tmp_path / "delta")
    for wanted, have in zip(tuned.parameters(), made.parameters(), strict=True):
        # Factors are bf16: eight bits, and products of up to three of them.
        torch.testing.assert_close(have, wanted.detach(), atol=0.02 * 0.05, rtol=0.02)
    assert share_held(base, tuned, made) > 0.9999


@pytest.mark.parametrize("budget", [12_000, 20_000, 60_000])
def test_a_budget_is_kept_and_spent_on_what_matters_most(budget: int, tmp_path: Path) -> None:
    base, tuned = model(1), model(2)
    tensors = low_rank(base, tuned, budget)
    made = model(1)
    save_model(base, tmp_path)
    write_delta(tensors, tmp_path, ".")
    assert (tmp_path / "delta.safetensors").stat().st_size <= budget
    add_delta(made, tmp_path)
    # Independent: numpy's singular values; what is lost is at least the sum of those left out.
    lost = kept = 0.0
    worst_kept, best_left = [], []
    for (name, wanted), before in zip(tuned.named_parameters(), base.parameters(), strict=True):
        if wanted.dim() == 1:
            continue
        values = np.linalg.svd((wanted - before).detach().numpy(), compute_uv=False)
        rank = tensors[name + ".left"].shape[1] if name + ".left" in tensors else 0
        cost = sum(wanted.shape)
        kept += float((values[:rank] ** 2).sum())
        lost += float((values[rank:] ** 2).sum())
        worst_kept += [values[rank - 1] ** 2 / cost] if rank else []
        best_left += [(values[rank] ** 2 / cost, 2 * cost)] if rank < len(values) else []
    assert share_held(base, tuned, made) == pytest.approx(kept / (kept + lost), abs=2e-3)
    room = budget - (tmp_path / "delta.safetensors").stat().st_size
    assert all(energy <= min(worst_kept) or cost > room - 8_000 for energy, cost in best_left)


def test_weights_are_rounded_once(tmp_path: Path) -> None:
    base = model(1).bfloat16()
    tuned = tuned_by(base, 2)
    save_model(base, tmp_path / "base")
    save_model(base, tmp_path / "delta")
    (tmp_path / "delta" / "model.safetensors").unlink()
    write_delta(low_rank(base, tuned, 1 << 20), tmp_path / "delta", "../base")
    exact = load_model(tmp_path / "delta", torch.float32)
    rounded = load_model(tmp_path / "delta", torch.bfloat16)
    for one, other in zip(exact.parameters(), rounded.parameters(), strict=True):
        assert torch.equal(one.bfloat16(), other)


def test_a_wrong_base_is_refused(tmp_path: Path) -> None:
    base = model(1)
    save_model(base, tmp_path / "base")
    save_model(base, tmp_path / "delta")
    (tmp_path / "delta" / "model.safetensors").unlink()
    write_delta(low_rank(base, model(2), 20_000), tmp_path / "delta", "../base")
    save_model(model(3), tmp_path / "base")
    with pytest.raises(UserError, match="made for other weights"):
        load_model(tmp_path / "delta")
    (tmp_path / "base" / "model.safetensors").unlink()
    with pytest.raises(UserError, match="side by side"):
        load_model(tmp_path / "delta")
    path = tmp_path / "delta" / "delta.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="not a delta"):
        load_model(tmp_path / "delta")


def test_other_shapes_are_refused() -> None:
    other = ModelConfig("qwen", 61, 32, 2, 2, 2, 16, 64, qkv_bias=True)
    with pytest.raises(UserError, match="same architecture"):
        low_rank(model(1), model(1, other), 20_000)
    with pytest.raises(UserError, match="no room"):
        low_rank(model(1), model(2), 10)
