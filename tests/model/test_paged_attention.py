"""Attention over pages against the dense one, and its bits whatever the batch, cut and sharing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from qwen_eval.model.engine import paged_attention
from qwen_eval.model.engine.paged_attention import PagedAttention, Stretch, attend_tiles, stacks
from qwen_eval.model.engine.pages import PagePool, Run, page_bytes
from qwen_eval.model.engine.varlen_attention import Tables, VarlenAttention
from tests.model.test_attention import CONFIG, HEADS, WINDOWS, dense, heads_of

PAGE = 8


class Line:
    """One sequence's queries, keys and values, and the pages its keys go to.

    It may stand on the first `shared` tokens of another, all on whole pages.
    """

    def __init__(self, pool: PagePool, data: list[Tensor], on: Line | None = None, shared: int = 0):
        self.pool, self.fed = pool, shared
        self.q, self.k, self.v = data
        pages = -(-len(self.q) // pool.size)
        begun: list[int] = on.pages[: shared // pool.size] if on else []
        self.pages: list[int] = begun + [pool.take() for _ in range(pages - len(begun))]
        for page in self.pages[shared // pool.size :]:
            pool.clear(page, 0, pool.size)

    def next(self, count: int) -> list[Stretch]:
        """The next `count` tokens, cut where pages end."""
        size = self.pool.size
        stretches: list[Stretch] = []
        for at in range(self.fed, self.fed + count):
            page = at // size
            if stretches and at % size:
                stretches[-1] = replace(stretches[-1], length=stretches[-1].length + 1)
                continue
            low = self.pool.first_seen(at)
            run = Run(low, tuple(self.pages[low : page + 1]))
            stretches.append(Stretch(1, at, (run,)))
        return stretches


def pool_of(
    heads: int, kv_heads: int, window: int | None = None, dtype: torch.dtype = torch.float32
) -> PagePool:
    config = replace(CONFIG, num_heads=heads, num_kv_heads=kv_heads)
    return PagePool(config, 60, PAGE, 0, dtype, torch.device("cpu"), window=window)


def attend(lines: list[tuple[Line, int]], positions: int, padding: int = 0) -> list[Tensor]:
    """Feed so many tokens of each line in one pass; returns each line's rows."""
    pool = lines[0][0].pool
    stretches = [s for line, count in lines for s in line.next(count)]
    cpu = torch.device("cpu")
    attention = PagedAttention(
        [pool], stretches, positions, padding, positions == 1, cpu, stacked=True
    )
    parts = [slice(line.fed, line.fed + count) for line, count in lines]
    q, k, v = (
        torch.cat([getattr(line, n)[p] for (line, _), p in zip(lines, parts, strict=True)])
        for n in "qkv"
    )
    attention.write(k, v, 1, pool.window)
    out = attention(torch.cat((q, q[:1].expand(padding, -1, -1))), 1, pool.window)
    assert len(out) == len(q) + padding
    for line, count in lines:
        line.fed += count
    return list(out[: len(q)].split_with_sizes([count for _, count in lines]))


@pytest.mark.parametrize(("heads", "kv_heads"), HEADS)
@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("chunks", [(5, 5, 10), (1,) * 20, (7, 1, 12), (19, 1), (1, 19), (20,)])
def test_chunks_over_pages_are_the_dense_sequence(
    heads: int, kv_heads: int, window: int | None, chunks: tuple[int, ...]
) -> None:
    pool = pool_of(heads, kv_heads, window)
    line, beside = (Line(pool, heads_of(heads, kv_heads, 20, seed)) for seed in (0, 1))
    outs: list[list[Tensor]] = [[], []]
    for count in chunks:
        for found, out in zip(outs, attend([(line, count), (beside, count)], 4), strict=True):
            found.append(out)
    for one, found in zip((line, beside), outs, strict=True):
        expected = dense(one.q, one.k, one.v, window)
        torch.testing.assert_close(torch.cat(found).double(), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("window", WINDOWS)
def test_decoding_rows_are_the_dense_sequence(window: int | None) -> None:
    pool = pool_of(6, 2, window)
    lines = [Line(pool, heads_of(6, 2, 20, seed)) for seed in range(3)]
    attend([(line, 5 + 4 * i) for i, line in enumerate(lines)], 16)
    for _ in range(6):
        for line, out in zip(lines, attend([(line, 1) for line in lines], 1), strict=True):
            end = line.fed
            expected = dense(line.q[:end], line.k[:end], line.v[:end], window)[-1:]
            torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6)


@settings(derandomize=True, max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=4),
    shared=st.integers(0, 2),
    seed=st.integers(0, 5),
    window=st.sampled_from(WINDOWS),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float64]),
    heads=st.sampled_from(HEADS),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    padding=st.integers(0, 3),
)
def test_not_a_bit_depends_on_the_company(
    *,
    lengths: list[int],
    shared: int,
    seed: int,
    window: int | None,
    dtype: torch.dtype,
    heads: tuple[int, int],
    cuts: list[int],
    padding: int,
) -> None:
    """Several lines on one beginning, cut anyhow and side by side, against each one alone, whole,
    and on pages of its own."""
    before = 8 * shared
    stem = heads_of(*heads, before, seed)
    data = [
        [
            torch.cat(pair).to(dtype)
            for pair in zip(stem, heads_of(*heads, n, seed + i), strict=True)
        ]
        for i, n in enumerate(lengths)
    ]
    apart = []
    for own in data:
        line = Line(pool_of(*heads, window, dtype), own)
        apart.append(attend([(line, len(own[0]))], 4)[0])

    pool = pool_of(*heads, window, dtype)
    first = Line(pool, data[0])
    together = [[attend([(first, before)], 4)[0]]] if before else [[]]
    lines = [first, *(Line(pool, own, first, before) for own in data[1:])]
    together += [[out[:before]] for out in apart[1:]]
    step = 0
    while any(line.fed < len(line.q) for line in lines):
        due = [
            (i, min(cuts[(step + i) % len(cuts)], len(line.q) - line.fed))
            for i, line in enumerate(lines)
            if line.fed < len(line.q)
        ]
        outs = attend([(lines[i], count) for i, count in due], 4, padding)
        for (i, _), out in zip(due, outs, strict=True):
            together[i].append(out)
        step += 1
    for alone, parts in zip(apart, together, strict=True):
        assert torch.equal(torch.cat(parts), alone)


def test_what_a_page_held_before_does_not_reach_its_next_user() -> None:
    pool = pool_of(3, 3)
    for layer in (*pool.keys.values(), *pool.values.values()):
        layer.fill_(torch.nan)
    pool.tainted = True
    line = Line(pool, heads_of(3, 3, 11))
    out = attend([(line, 11)], 4)[0]
    torch.testing.assert_close(out.double(), dense(line.q, line.k, line.v, None), rtol=0, atol=2e-6)


def test_the_plain_way_is_the_kernels() -> None:
    """What a GPU without flash-attn computes, on the CPU."""
    q, k, v = (
        torch.randn(3, 2, n, 8, generator=torch.Generator().manual_seed(n)) for n in (4, 8, 8)
    )
    mask = torch.zeros(3, 1, 4, 8)
    mask[..., 5:] = -torch.inf
    for some in (None, mask):
        out, lse = attend_tiles(q, k, v, some)
        plain, plain_lse = attend_tiles(q, k, v, some, kernel=False)
        torch.testing.assert_close(plain, out)
        torch.testing.assert_close(plain_lse, lse)


def test_pages_are_counted_and_measured() -> None:
    pool = PagePool(CONFIG, 6, PAGE, 2, torch.bfloat16, torch.device("cpu"))
    held = sum(layer.nbytes for layer in (*pool.keys.values(), *pool.values.values()))
    assert held == 6 * page_bytes(CONFIG, torch.bfloat16, PAGE) == 6 * 8 * 2 * 2 * 3 * 8 * 2
    pages = [pool.take() for _ in range(4)]
    assert sorted(pages) == [2, 3, 4, 5]
    assert [pool.slot(), pool.slot()] == [0, 1]
    pool.share(pages[1])
    for page in pages[:2]:
        pool.give_back(page)
    assert pool.free == 1
    pool.give_back(pages[1])
    pool.give_back(1, slot=True)
    assert pool.free == 2
    assert pool.take() == pages[0] < pages[1], "the lowest, so that neighbours stay neighbours"
    assert pool.slot() == 1


@pytest.mark.parametrize("window", WINDOWS)
def test_a_gpus_tables_name_the_right_keys(window: int | None) -> None:
    """The tables of the variable-length kernels, read by a plain kernel of the same contract."""

    def plain(
        q_THD: Tensor,
        k_PSKD: Tensor,
        v_PSKD: Tensor,
        tables: Tables,
        window: tuple[int, int],
    ) -> Tensor:
        outs = []
        for i, end in enumerate(tables.keys.tolist()):
            q = q_THD[tables.begins[i] : tables.begins[i + 1]]
            k, v = (x[tables.pages[i].long()].flatten(0, 1)[:end] for x in (k_PSKD, v_PSKD))
            assert (len(q), end) <= tables.most
            before = q.new_zeros(end - len(q), *q.shape[1:])
            reach = None if window[0] < 0 else window[0] + 1
            outs.append(dense(torch.cat((before, q)), k, v, reach)[-len(q) :])
        return torch.cat(outs).float()

    pool = pool_of(6, 2, window)
    lines = [Line(pool, heads_of(6, 2, 20, seed)) for seed in range(2)]
    lines.append(Line(pool, [*heads_of(6, 2, 20, 0)], lines[0], 8))
    attend([(lines[0], 8)], 4)
    for counts in ((3, 9, 12), (9, 1, 0)):
        stretches = [s for line, n in zip(lines, counts, strict=True) for s in line.next(n)]
        attention = VarlenAttention.over([pool], stretches, torch.device("cpu"), plain)
        parts = [slice(line.fed, line.fed + n) for line, n in zip(lines, counts, strict=True)]
        q, k, v = (
            torch.cat([getattr(line, name)[p] for line, p in zip(lines, parts, strict=True)])
            for name in "qkv"
        )
        attention.write(k, v, 1, window)
        out = attention(torch.cat((q, q[:2])), 1, window)
        assert not out[len(q) :].any()
        apart = out[: len(q)].split_with_sizes(counts)
        for line, n, rows in zip(lines, counts, apart, strict=True):
            end = line.fed = line.fed + n
            expected = dense(line.q[:end], line.k[:end], line.v[:end], window)
            torch.testing.assert_close(rows.double(), expected[line.fed - n :], rtol=0, atol=2e-6)


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stacked_page_gives_the_bits_of_tiles_apart(
    window: int | None, dtype: torch.dtype
) -> None:
    """Decoding behind a shared beginning, in one product for all and one by one."""
    pool = pool_of(6, 2, window, dtype)
    assert stacks(3, pool)
    stem = heads_of(6, 2, 2 * PAGE, 9)
    ends = [heads_of(6, 2, 7, seed) for seed in range(5)]
    data = [[torch.cat(p).to(dtype) for p in zip(stem, end, strict=True)] for end in ends]
    first = Line(pool, data[0])
    attend([(first, 2 * PAGE)], 4)
    lines = [first, *(Line(pool, own, first, 2 * PAGE) for own in data[1:])]
    for _ in range(6):
        alone = [attend([(line, 1)], 1)[0] for line in lines]
        for line in lines:
            line.fed -= 1
        together = attend([(line, 1) for line in lines], 1)
        assert all(map(torch.equal, together, alone))


def test_stacking_that_changes_bits_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that rounds otherwise from 9 tiles of 3 rows on, which take 36."""
    plain = attend_tiles

    def other(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        out, lse = plain(q, k, v, mask)
        return (out * (1 + 2**-20) if q.shape[2] >= 36 else out), lse

    monkeypatch.setattr(paged_attention, "attend_tiles", other)
    paged_attention._stacks.cache_clear()
    assert not stacks(3, pool_of(6, 2))
    paged_attention._stacks.cache_clear()


@pytest.mark.parametrize("chunks", [(150,), (40, 70, 40), (63, 2, 85)])
def test_a_page_is_read_in_steps_and_to_its_end(chunks: tuple[int, ...]) -> None:
    """A prompt's newest page is read up to the next step of 64; tiles do not reach over it."""
    config = replace(CONFIG, num_heads=6, num_kv_heads=2)
    pool = PagePool(config, 4, 128, 0, torch.float32, torch.device("cpu"))
    assert pool.step == 64
    line = Line(pool, heads_of(6, 2, 150))
    out = torch.cat([attend([(line, count)], 16)[0] for count in chunks])
    expected = dense(line.q, line.k, line.v, None)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6)
