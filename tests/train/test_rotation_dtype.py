"""Rotations stay fp32 where all else is computed in bf16 (paper, section 2.3)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from qwen_eval.model.config import ModelConfig
from qwen_eval.train.batch import EqualSequences
from qwen_eval.train.feed import Part
from qwen_eval.train.language_model import LanguageModel
from qwen_eval.train.parallel import joined, share_out


def test_every_block_rotates_by_fp32_angles(monkeypatch: pytest.MonkeyPatch) -> None:
    config = ModelConfig("qwen", 97, 32, 2, 2, 2, 16, 48, trained_length=16, qkv_bias=True)
    seen = []
    attend = EqualSequences.attend

    def look(self, q_THD: Tensor, *others) -> Tensor:
        seen.append((self.cos.dtype, self.sin.dtype, q_THD.dtype))
        return attend(self, q_THD, *others)

    monkeypatch.setattr(EqualSequences, "attend", look)
    with joined() as world:
        model = LanguageModel(config, compiled=False)
        model.transformer.init_weights(torch.Generator().manual_seed(0))
        blocks = model.transformer.blocks
        share_out(model, blocks, world, dtype=torch.bfloat16, compiled=False, recompute=False)
        ids = torch.arange(32).view(2, 16)
        torch.autograd.backward(model(Part(ids, ids, None), 1.0))
    assert seen == [(torch.float32, torch.float32, torch.bfloat16)] * 2
