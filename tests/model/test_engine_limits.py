"""What the engine holds at a time, refuses, and gives back when a request is called off."""

from __future__ import annotations

import importlib
import math

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
from qwen_eval.model.engine.kv_cache import bytes_per_token
from tests.model.toy_engine import (
    CONFIG,
    VOCABULARY,
    alone,
    assert_same,
    ids,
    mixed,
    toy,
)

engine_module = importlib.import_module("qwen_eval.model.engine.engine")

# --- budgets ---------------------------------------------------------------------------------


def held_bytes(engine: Engine) -> int:
    """Memory of every key and value that running jobs and stored prefixes hold."""
    scheduler = engine._scheduler
    caches = [track.cache for job in scheduler.running for track in job.tracks() if track.cache]
    for root in scheduler.prefixes._roots.values():
        caches += [node.cache for node in root.below() if node.cache]
    return sum(
        c._keys_LNKD.nbytes + c._values_LNKD.nbytes for c in {id(c): c for c in caches}.values()
    )


def test_the_cache_budget_is_never_exceeded_and_nothing_starves() -> None:
    model = toy()
    budget = 60 * bytes_per_token(CONFIG, torch.float64)
    engine = Engine(model, cache_bytes=budget, token_budget=16)
    branchy = ScoreContinuations(ids(5), tuple(ids(2, n) for n in range(30)))
    work: list[EngineRequest] = [*mixed(), branchy]
    work += [Generate(ids(2, n), Sampling(max_tokens=3)) for n in range(10)]
    work.insert(8, Generate(ids(40), Sampling(max_tokens=20)))  # needs the whole budget
    jobs = [engine.submit(request) for request in work]
    results: dict[int, EngineResult] = {}
    finished: list[int] = []
    peaks: list[int] = []
    for _ in range(400):
        for job, result in engine.step():
            results[job] = result
            finished.append(job)
        peaks.append(held_bytes(engine))
        if not engine.pending:
            break
    assert max(peaks) <= budget
    assert max(peaks) > budget // 2
    token = bytes_per_token(CONFIG, torch.float64)
    assert held_bytes(engine) == engine._scheduler.prefixes.tokens * token
    # First come, first served: the large one is not overtaken by what came after it.
    assert not {job for job in finished[: finished.index(jobs[8])] if job > jobs[8]}
    for job, request in zip(jobs, work, strict=True):
        assert_same(results[job], alone(model, request))


def test_what_can_never_fit_is_refused_at_once() -> None:
    token = bytes_per_token(CONFIG, torch.float64)
    engine = Engine(toy(), cache_bytes=20 * token + token - 1)
    fits: list[EngineRequest] = [
        Generate(ids(12), Sampling(max_tokens=8)),
        ScoreTokens(ids(20)),
        ScoreContinuations(ids(15), (ids(3), ids(4), ids(1))),
    ]
    too_large: list[EngineRequest] = [
        Generate(ids(12), Sampling(max_tokens=9)),
        ScoreTokens(ids(22)),
        ScoreContinuations(ids(15), (ids(3), ids(5), ids(1))),
    ]
    for request in too_large:
        with pytest.raises(ValueError, match="tokens of cache, the budget is 20"):
            engine.submit(request)
    assert engine.pending == 0
    assert len(engine.run(fits)) == 3


def test_prompts_move_on_however_many_sequences_decode() -> None:
    engine = Engine(toy(), token_budget=4, max_sequences=12)
    for n in range(10):
        engine.submit(Generate(ids(1, n), Sampling(max_tokens=40)))
    for _ in range(10):
        engine.step()
    late = engine.submit(Generate(ids(9), Sampling(max_tokens=2)))
    # Nine steps of one prompt token each, the last of which chooses the first token; one more.
    ended = [step for step in range(1, 15) if late in dict(engine.step())]
    assert ended == [10]


def test_max_sequences_holds() -> None:
    engine = Engine(toy(), max_sequences=2)
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
    monkeypatch.setattr(engine_module, "LOGIT_ROWS", 3)
    model, sizes = toy(), list[int]()
    plain = model.logits

    def counted(hidden_RE: Tensor) -> Tensor:
        sizes.append(hidden_RE.shape[0])
        return plain(hidden_RE)

    expected = [alone(model, request) for request in mixed()]
    monkeypatch.setattr(model, "logits", counted)
    for result, right in zip(Engine(model).run(mixed()), expected, strict=True):
        assert_same(result, right)
    assert max(sizes) == 3


# --- cancel, submit, run ---------------------------------------------------------------------


def test_cancel_waiting_and_running_frees_their_room() -> None:
    token = bytes_per_token(CONFIG, torch.float64)
    engine = Engine(toy(), cache_bytes=40 * token)
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
