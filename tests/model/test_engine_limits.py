"""What the engine holds at a time, refuses, and gives back when a request is called off."""

from __future__ import annotations

import copy
import importlib
import math
from collections import Counter
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qwen_eval.model.engine import (
    Engine,
    EngineRequest,
    EngineResult,
    Generate,
    Generated,
    Sampling,
    ScoreContinuations,
    ScoreTokens,
)
from qwen_eval.model.engine.batch import PagedBatch
from qwen_eval.model.engine.pages import page_bytes
from qwen_eval.model.transformer import Transformer
from tests.model.toy_engine import (
    CONFIG,
    VOCABULARY,
    alone,
    assert_same,
    ids,
    mixed,
    toy,
)

passes_module = importlib.import_module("qwen_eval.model.engine.passes")

# --- budgets ---------------------------------------------------------------------------------


PAGE = 16
ONE = page_bytes(CONFIG, torch.float64, PAGE)


def users(engine: Engine, pool: int) -> dict[int, int]:
    """Every page in use, and how often running jobs and stored prefixes list it."""
    scheduler, count = engine._scheduler, Counter[int]()
    for job in scheduler.running:
        count.update(job.spare[pool])
        for track in job.tracks():
            count.update(track.tables[pool].own)
            count.update([] if track.slot is None else [track.slot])
    for root in scheduler.prefixes._roots.values():
        for node in root.below():
            count.update(node.runs[pool].held if node.runs else ())
    return dict(count)


def assert_books_are_right(engine: Engine) -> None:
    for i, pool in enumerate(engine.pools):
        assert {page: n for page, n in enumerate(pool._users) if n} == users(engine, i)
        free = {*pool._free, *pool._free_slots}
        assert len(free) == len(pool._free) + len(pool._free_slots)
        assert free == {page for page, n in enumerate(pool._users) if not n}


def test_pages_are_never_overdrawn_and_nothing_starves() -> None:
    model = toy()
    engine = Engine(model, cache_bytes=70 * ONE, page_size=PAGE, token_budget=16)
    branchy = ScoreContinuations(ids(5), tuple(ids(2, n) for n in range(30)))
    work: list[EngineRequest] = [*mixed(), branchy]
    work += [Generate(ids(2, n), Sampling(max_tokens=3)) for n in range(10)]
    work.insert(8, ScoreContinuations(ids(40), tuple(ids(2, n) for n in range(34))))
    jobs = [engine.submit(request) for request in work]
    results: dict[int, EngineResult] = {}
    finished: list[int] = []
    peak = 0
    for _ in range(400):
        for job, result in engine.step():
            results[job] = result
            finished.append(job)
        assert_books_are_right(engine)
        peak = max(peak, len(users(engine, 0)))
        if not engine.pending:
            break
    assert peak > 37
    # First come, first served: the large one is not overtaken by what came after it.
    assert not {job for job in finished[: finished.index(jobs[8])] if job > jobs[8] + 3}
    for job, request in zip(jobs, work, strict=True):
        assert_same(results[job], alone(model, request))


def test_what_can_never_fit_is_refused_at_once() -> None:
    # Four pages and four slots.
    engine = Engine(toy(), cache_bytes=9 * ONE - 1, page_size=PAGE, max_sequences=4)
    fits: list[EngineRequest] = [
        Generate(ids(44), Sampling(max_tokens=20)),
        ScoreTokens(ids(64)),
        ScoreContinuations(ids(20), (ids(3), ids(13), ids(1))),
    ]
    too_large: list[EngineRequest] = [
        ScoreContinuations(ids(20), (ids(3), ids(14), ids(1))),
        ScoreContinuations(ids(5), tuple(ids(2, n) for n in range(4))),
    ]
    for request in too_large:
        with pytest.raises(ValueError, match=r"of cache, the budget is 64; .*--kv-memory"):
            engine.submit(request)
    assert engine.pending == 0
    for request, result in zip(fits, engine.run(fits), strict=True):
        assert_same(result, alone(toy(), request))
    with pytest.raises(ValueError, match=r"less than two pages.*--kv-memory"):
        Engine(toy(), cache_bytes=2 * ONE - 1, page_size=PAGE)


def test_prompts_move_on_however_many_sequences_decode() -> None:
    engine = Engine(toy(), token_budget=4, max_sequences=12)
    for n in range(10):
        engine.submit(Generate(ids(1, n), Sampling(max_tokens=40)))
    for _ in range(10):
        engine.step()
    late = engine.submit(Generate(ids(9), Sampling(max_tokens=2)))
    # Three steps of four prompt tokens, the last of which chooses the first token; one more.
    ended = [step for step in range(1, 15) if late in dict(engine.step())]
    assert ended == [4]


def test_max_sequences_holds() -> None:
    engine = Engine(toy(), max_sequences=2, drafts=False)
    jobs = [engine.submit(Generate(ids(2, n), Sampling(max_tokens=5))) for n in range(5)]
    engine.step()
    assert [len(engine.written(job)) for job in jobs] == [1, 1, 0, 0, 0]
    while engine.pending:
        engine.step()
    assert engine.stats.steps == 15
    assert engine.stats.decoded_tokens == 5 * 4
    assert engine.stats.prompt_tokens == 5 * 2
    with pytest.raises(ValueError, match="max_sequences"):
        Engine(toy(), max_sequences=0)


def test_rows_meet_the_vocabulary_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passes_module, "MOST_LOGITS", 3)
    model, sizes = toy(), list[int]()
    plain = model.logits

    def counted(hidden_RE: Tensor) -> Tensor:
        sizes.append(hidden_RE.shape[0])
        return plain(hidden_RE)

    expected = [alone(model, request) for request in mixed()]
    monkeypatch.setattr(model, "logits", counted)
    engine = Engine(model, batch_invariant=False, drafts=False)
    for result, right in zip(engine.run(mixed()), expected, strict=True):
        assert_same(result, right)
    assert max(sizes) == 3


# --- figures that are not finite --------------------------------------------------------------


def test_figures_that_are_not_finite_stay_with_their_own_request() -> None:
    """A token whose embedding is not a number, and then other requests on the same pages."""
    model = copy.deepcopy(toy())
    bad = 7
    with torch.no_grad():
        model.embedding.weight[bad] = torch.nan
    engine = Engine(model, page_size=16, max_sequences=2, prefixes=False)
    clean = [tuple(token for token in ids(n, n) if token != bad) for n in (20, 33, 40)]
    for _ in range(2):
        engine.run(
            [ScoreTokens((bad, *clean[2])), Generate((*clean[1], bad), Sampling(max_tokens=3))]
        )
        work: list[EngineRequest] = [ScoreTokens(line) for line in clean]
        work += [ScoreContinuations(clean[0], (clean[1][:3],))]
        work += [Generate(clean[0], Sampling(max_tokens=20))]
        for request, result in zip(work, engine.run(work), strict=True):
            assert_same(result, alone(toy(), request))
    assert engine.pools[0].tainted


# --- memory runs out -------------------------------------------------------------------------


class Scarce:
    """Lets no forward pass and no read of the vocabulary have more rows than fit."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: Transformer, fits: int) -> None:
        self.fits, self.refused = fits, 0
        for name in ("hidden", "logits"):
            monkeypatch.setattr(model, name, self.limited(getattr(model, name)))

    def limited(self, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(given: Tensor | PagedBatch) -> Tensor:
            rows = len(given.ids_T) if isinstance(given, PagedBatch) else len(given)
            if rows > self.fits:
                self.refused += 1
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return plain(given)

        return call


@pytest.mark.parametrize("fits", [16, 40])
def test_where_memory_runs_out_less_is_fed_at_a_time(
    monkeypatch: pytest.MonkeyPatch, fits: int
) -> None:
    model = toy()
    expected = [alone(model, request) for request in mixed()]
    engine = Engine(model, max_sequences=64, batch_invariant=False)
    scarce = Scarce(monkeypatch, model, fits)
    for result, right in zip(engine.run(mixed() * 3), expected * 3, strict=True):
        assert_same(result, right)
    assert scarce.refused
    assert_books_are_right(engine)


def test_where_memory_runs_out_no_more_is_fed_than_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What windows hold is measured for the budget of prompt tokens that there was at first."""
    engine = Engine(toy(), token_budget=3, batch_invariant=False, drafts=False)
    Scarce(monkeypatch, toy(), 8)
    fed: list[int] = []
    for n in range(12):
        engine.submit(Generate(ids(1, n), Sampling(max_tokens=30)))
    engine.submit(ScoreTokens(ids(40)))
    while engine.pending:
        before = engine.stats.prompt_tokens
        engine.step()
        fed.append(engine.stats.prompt_tokens - before)
    assert max(fed) == 3


def test_where_not_even_the_least_fits_the_error_is_the_memorys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = toy()
    engine = Engine(model)
    Scarce(monkeypatch, model, 2)
    with pytest.raises(RuntimeError, match="allocate memory"):
        engine.run(mixed())


# --- cancel, submit, run ---------------------------------------------------------------------


def test_cancel_waiting_and_running_frees_their_room() -> None:
    engine = Engine(toy(), cache_bytes=5 * ONE, page_size=PAGE, drafts=False)
    running, waiting, last = (
        engine.submit(Generate(ids(20, n), Sampling(max_tokens=20))) for n in range(3)
    )
    engine.step()
    assert len(engine.written(running)) == 1
    engine.cancel(waiting)
    engine.cancel(running)
    assert engine.written(running) == ()
    assert engine.pending == 1
    done = [item for _ in range(20) for item in engine.step()]
    assert [job for job, _ in done] == [last]
    assert engine.step() == []
    with pytest.raises(KeyError):
        engine.cancel(last)
    branchy = engine.submit(ScoreContinuations(ids(5), (ids(9), ids(9, 1))))
    engine.step()
    engine.cancel(branchy)
    assert len(engine.run([Generate(ids(20), Sampling(max_tokens=20))])) == 1


def test_written_shows_the_answer_so_far() -> None:
    engine = Engine(toy())
    job = engine.submit(Generate(ids(6), Sampling(max_tokens=3)))
    other = engine.submit(ScoreTokens(ids(6)))
    assert engine.written(job) == engine.written(other) == ()
    engine.step()
    one = engine.written(job)
    engine.step()
    assert (len(one), len(engine.written(job))) == (1, 2)
    assert engine.written(job)[:1] == one
    ((number, result),) = engine.step()
    assert isinstance(result, Generated)
    assert (number, result.ids[:1]) == (job, one)
    assert engine.written(job) == engine.written(12345) == ()


WRONG: list[tuple[EngineRequest, str]] = [
    (Generate(()), "empty prompt"),
    (ScoreTokens(()), "empty prompt"),
    (ScoreContinuations((), (ids(1),)), "empty prompt"),
    (ScoreContinuations(ids(3), (ids(1), ())), "empty prompt or continuation"),
    (ScoreContinuations(ids(3), ()), "no continuation"),
    (Generate(ids(60), Sampling(max_tokens=5)), "65 tokens do not fit the model's context of 64"),
    (ScoreTokens(ids(65)), "65 tokens"),
    (ScoreContinuations(ids(60), (ids(1), ids(6))), "65 tokens"),
    (Generate((3, VOCABULARY), Sampling(max_tokens=1)), f"token id {VOCABULARY} is outside"),
    (Generate((3, -1), Sampling(max_tokens=1)), "token id -1 is outside"),
    (ScoreContinuations(ids(3), (ids(1), (99,))), "token id 99 is outside"),
    (ScoreTokens((-5,)), "token id -5 is outside"),
]


@pytest.mark.parametrize(("request_", "message"), WRONG)
def test_wrong_requests_are_refused_and_leave_no_trace(
    request_: EngineRequest, message: str
) -> None:
    engine = Engine(toy())
    with pytest.raises(ValueError, match=message):
        engine.submit(request_)
    assert engine.pending == 0
    with pytest.raises(ValueError, match=message):
        engine.run([ScoreTokens(ids(4)), request_])
    assert engine.pending == 0
    assert len(engine.run([ScoreTokens(ids(4))])) == 1


def test_a_context_can_be_filled_to_the_last_token() -> None:
    model, engine = toy(), Engine(toy())
    work: list[EngineRequest] = [
        Generate(ids(59), Sampling(max_tokens=5)),
        ScoreTokens(ids(64)),
        ScoreContinuations(ids(60), (ids(5),)),
    ]
    for request, result in zip(work, engine.run(work), strict=True):
        assert_same(result, alone(model, request))
        assert not isinstance(result, tuple) or all(
            not isinstance(x, float) or math.isfinite(x) for x in result
        )


def test_run_leaves_other_requests_to_step() -> None:
    model, engine = toy(), Engine(toy())
    early = ScoreTokens(ids(3))
    before = engine.submit(early)
    late = Generate(ids(5), Sampling(max_tokens=4))
    assert_same(engine.run([late])[0], alone(model, late))
    assert engine.pending == 1
    assert engine.run([]) == []
    ((number, result),) = engine.step()
    assert number == before
    assert_same(result, alone(model, early))
    assert engine.pending == 0
