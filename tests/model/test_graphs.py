"""Recorded decoding passes: a recording sees nothing of a pass but the memory it was made on."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from qwen_eval.model.config import ModelConfig
from qwen_eval.model.engine import Engine, Generate, Sampling, passes
from qwen_eval.model.engine.varlen_attention import Tables
from tests.model.toy_engine import (
    CHUNKED,
    CONFIG,
    GROUPED,
    alone,
    assert_same,
    drive,
    ids,
    mixed,
    toy,
)


def kernel(
    q_THD: Tensor, k_PSKD: Tensor, v_PSKD: Tensor, tables: Tables, window: tuple[int, int]
) -> Tensor:
    """What the GPU's kernels compute, in operations whose shapes do not depend on the tables'
    figures. Rows that see no key are not a number, so that whoever used them would be seen."""
    row = torch.arange(len(q_THD))
    line = torch.searchsorted(tables.begins[1:], row.int(), right=True).clamp(
        max=len(tables.keys) - 1
    )
    position = tables.keys[line] - tables.begins[line + 1] + row
    k, v = (x[tables.pages[line].long()].flatten(1, 2) for x in (k_PSKD, v_PSKD))
    group = q_THD.shape[1] // k.shape[2]
    k, v = (x.repeat_interleave(group, 2) for x in (k, v))
    key = torch.arange(k.shape[1])
    seen = key <= position[:, None]
    if window[0] >= 0:
        seen &= key >= position[:, None] - window[0]
    scores = torch.einsum("thd,tshd->ths", q_THD, k) / q_THD.shape[-1] ** 0.5
    weights = scores.masked_fill(~seen[:, None], -torch.inf).softmax(-1)
    return torch.einsum("ths,tshd->thd", weights, v.nan_to_num())


class Recorder:
    """Traces what is computed into a graph of tensor operations, as a GPU would record it: no
    line of Python runs again, and no figure that Python knew can change."""

    def __init__(self) -> None:
        self.made = self.replayed = 0

    def __call__(self, compute: Callable[[], Tensor]) -> Callable[[], Tensor]:
        self.made += 1
        graph = make_fx(compute)()

        def replay() -> Tensor:
            self.replayed += 1
            out: Tensor = graph()
            return out

        return replay


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(passes, "kernel_for", lambda *_, **__: ("plain", kernel))
    monkeypatch.setattr(passes, "cuda_graph", found)
    return found


@pytest.mark.parametrize("config", [CONFIG, CHUNKED, GROUPED])
@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("page_size", [16, 256])
def test_recorded_decoding_is_alone(
    config: ModelConfig, page_size: int, recorder: Recorder, *, exact: bool
) -> None:
    engine = Engine(toy(config), page_size=page_size, batch_invariant=exact)
    drive(engine, [(request, 1) for request in mixed()], (), lambda: None)
    assert 1 <= recorder.made <= 6 < recorder.replayed
    assert engine.attention == "plain, decoding recorded"


def test_a_recording_serves_every_pass_of_its_size(recorder: Recorder) -> None:
    engine = Engine(toy(GROUPED), page_size=16, drafts=False)
    for seed in range(3):
        work = [Generate(ids(9 + seed, seed + n), Sampling(max_tokens=20)) for n in range(3)]
        for request, result in zip(work, engine.run(work), strict=True):
            assert_same(result, alone(engine.model, request))
    assert recorder.made == 1
    assert recorder.replayed == 3 * 19


def test_the_page_of_nobody_is_not_given_out(recorder: Recorder) -> None:
    (pool,) = Engine(toy(GROUPED), page_size=16, max_sequences=2).pools
    assert pool.free == pool.count - 2 - 1
