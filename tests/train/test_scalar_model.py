"""A model that says a number at every token, held to transformers' sequence classifiers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

from qwen_eval.errors import UserError
from qwen_eval.model.config import ModelConfig
from qwen_eval.model.transformer import Transformer
from qwen_eval.model.weights import save_model
from qwen_eval.train.scalar_model import (
    KEY,
    SCORE,
    load_scalar_model,
    save_scalar_model,
    scalar_model,
)

CONFIG = ModelConfig(
    family="qwen2",
    vocab_size=97,
    hidden_size=32,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    ffn_size=48,
    rope_base=10000.0,
    norm_eps=1e-6,
    max_length=64,
    trained_length=64,
    qkv_bias=True,
    qk_norm=False,
    tied=False,
    ntk=False,
    logn=False,
)


def language_model() -> Transformer:
    model = Transformer(CONFIG)
    model.init_weights(torch.Generator().manual_seed(1))
    return model


def test_rewards_are_those_of_a_sequence_classifier_with_the_same_weights(tmp_path: Path) -> None:
    model = scalar_model(language_model(), 3)
    save_scalar_model(model, tmp_path)
    theirs = AutoModelForSequenceClassification.from_pretrained(
        tmp_path, num_labels=1, pad_token_id=0, dtype=torch.float32
    )
    theirs.score.weight.data.copy_(model.score.weight.data)
    ids_BS = torch.randint(1, 97, (3, 17), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        ours_B = model(ids_BS)[:, -1]
        theirs_B = theirs(ids_BS, attention_mask=torch.ones_like(ids_BS)).logits[:, 0]
    torch.testing.assert_close(ours_B, theirs_B, atol=1e-5, rtol=1e-5)


def test_a_saved_model_says_the_same(tmp_path: Path) -> None:
    model = scalar_model(language_model(), 3)
    save_scalar_model(model, tmp_path)
    ids_BS = torch.arange(12).view(2, 6)
    with torch.no_grad():
        assert torch.equal(load_scalar_model(tmp_path)(ids_BS), model(ids_BS))
        assert torch.equal(scalar_model(model, 0)(ids_BS), model(ids_BS))


def test_the_head_is_not_trained_and_documents_do_not_see_one_another() -> None:
    model = scalar_model(language_model(), 3)
    ids_BS = torch.randint(1, 97, (1, 12), generator=torch.Generator().manual_seed(2))
    apart = model(ids_BS, torch.tensor([[0] * 5 + [1] * 7]))
    apart.sum().backward()
    assert model.transformer.head.weight.grad is None
    assert model.score.weight.grad is not None
    torch.testing.assert_close(apart[:, :5], model(ids_BS[:, :5]))
    assert not torch.allclose(apart[:, 5:], model(ids_BS)[:, 5:])


def test_other_folders_are_refused(tmp_path: Path) -> None:
    save_model(language_model(), tmp_path)
    with pytest.raises(UserError, match="no reward model"):
        load_scalar_model(tmp_path)
    save_file({KEY: torch.zeros(1, 7)}, tmp_path / SCORE)
    with pytest.raises(UserError, match=r"has shape \[1, 7\], the model asks for \[1, 32\]"):
        load_scalar_model(tmp_path)
    (tmp_path / SCORE).write_bytes(b"no")
    with pytest.raises(UserError, match="truncated or not safetensors"):
        load_scalar_model(tmp_path)
