"""A fused model gives what the plain one gives; so do guesses that a sequence repeats itself."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from qwen_eval.model.engine.drafts import GRAM, LONGEST, REST, Drafts
from qwen_eval.model.fused import fuse
from qwen_eval.model.transformer import silu
from tests.model.test_attention import CONFIG, random_model

VARIANTS = {
    "qwen": CONFIG,
    "grouped": replace(CONFIG, num_heads=6, num_kv_heads=2),
    "norms": replace(CONFIG, family="qwen3", qk_norm=True, qkv_bias=False),
    "biases": replace(CONFIG, family="llama", mlp_bias=True, out_bias=True, tied=True),
    "switches": replace(CONFIG, ntk=True, logn=True, windows=(4, None)),
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_fused_is_plain(name: str, dtype: torch.dtype) -> None:
    plain = random_model(VARIANTS[name]).to(dtype)
    fused = fuse(copy.deepcopy(plain))
    assert fused.kernels == ("oneDNN" if dtype == torch.float32 else fused.kernels)
    generator = torch.Generator().manual_seed(5)
    ids = [torch.randint(60, (n,), generator=generator) for n in (1, 13, 30)]
    with torch.inference_mode():
        for ours, expected in zip(fused(ids), plain(ids), strict=True):
            tolerance = {torch.float64: 1e-10, torch.float32: 2e-4, torch.bfloat16: 0.6}[dtype]
            torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_silu_gives_a_row_the_same_bits_anywhere(threads: int, dtype: torch.dtype) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        generator = torch.Generator().manual_seed(threads)
        with torch.inference_mode():
            # 8, 176 and 344 leave rests behind the kernels' groups, at the end and between threads.
            for width in (8, 64, 176, 344):
                x = torch.randn(600, width, generator=generator).to(dtype)
                every = silu(x)
                torch.testing.assert_close(every, x * x.sigmoid(), rtol=2e-2, atol=1e-5)
                for rows in (1, 2, 3, 5, 16, 33, 200, 512):
                    start = int(torch.randint(600 - rows, (1,), generator=generator))
                    part = slice(start, start + rows)
                    assert torch.equal(silu(x[part]), every[part])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


# --- drafts -------------------------------------------------------------------------------------


def test_a_draft_is_what_followed_the_last_time() -> None:
    drafts = Drafts()
    assert drafts.after([1, 2], 5) == ()
    assert drafts.after([1, 2, 3, 4, 5, 6], 5) == ()
    tokens = [1, 2, 3, 4, 5, 6, 7, 1, 2, 3]
    assert drafts.after(tokens, 2) == (4, 5)
    assert drafts.after([*tokens, 9, 1, 2, 3], 9) == (9, 1, 2, 3), "the latest time counts"
    assert drafts.after([*tokens, 9, 1, 2, 3], 0) == ()


def test_drafts_grow_with_success_and_rest_after_failure() -> None:
    drafts = Drafts()
    tokens = list(range(20)) * 2
    for right, expected in ((4, LONGEST), (0, LONGEST // 2), (1, LONGEST // 2), (0, 2), (0, 1)):
        tried = len(drafts.after(tokens[:-1], 20))
        drafts.learn(tried=tried, right=right)
        assert len(drafts.after(tokens[:-1], 20)) == expected
    drafts.learn(tried=1, right=0)
    assert drafts.after(tokens, 20) == ()
    assert drafts.after(tokens + tokens[: REST - 1], 20) != (), "and then it tries again"
    drafts.learn(tried=1, right=1)
    assert len(drafts.after(tokens + tokens[: REST - 1], 20)) == 2
    assert GRAM <= 4
