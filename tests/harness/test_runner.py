"""All samples end in a score, whatever the backend and the solvers do."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.backends.base import BackendInfo
from qwen_eval.runner import Finished, Runner, replay
from qwen_eval.sessions import Interpreter
from qwen_eval.types import (
    GenerateRequest,
    Item,
    JudgeRequest,
    ModelRequest,
    Prompt,
    Response,
    Score,
    Solver,
)
from tests.harness.toys import item


class Scrambled:
    """A backend that answers a few requests at a time, in random order."""

    def __init__(self, seed: int = 0, concurrency: int = 5, fail: str = "") -> None:
        self.rng, self.concurrency, self.fail = random.Random(seed), concurrency, fail
        self.waiting: dict[int, ModelRequest] = {}
        self.most = self.count = 0

    def submit(self, request: ModelRequest) -> int:
        self.count += 1
        self.waiting[self.count] = request
        self.most = max(self.most, len(self.waiting))
        return self.count

    def step(self) -> list[tuple[int, Response]]:
        chosen = self.rng.sample(
            sorted(self.waiting), self.rng.randint(0, min(3, len(self.waiting)))
        )
        return [(i, self.answer(self.waiting.pop(i))) for i in chosen]

    def answer(self, request: ModelRequest) -> Response:
        assert isinstance(request, GenerateRequest)
        text = request.prompt.full_text
        if self.fail and self.fail in text:
            return Response(finish_reason="error", error="the server hung up")
        return Response(text=text.upper(), finish_reason="stop")

    def info(self) -> BackendInfo:
        return BackendInfo("scrambled", concurrency=self.concurrency)

    def close(self) -> None:
        """Nothing to release."""


def talk(turns: int) -> Callable[[Item], Solver]:
    """A solver that asks `turns` times, each time with the last reply."""

    def solve(given: Item) -> Solver:
        text = given.prompt.text
        for turn in range(turns):
            reply = yield GenerateRequest(Prompt(f"{text}/{turn}"))
            text = reply.text
        return Score({"accuracy": 1.0}, answer=text)

    return solve


def run(backend: Scrambled, solve, count: int, **options) -> dict[str, Finished]:
    done = list(Runner(backend, solve, **options).run(item(i) for i in range(count)))
    assert len(done) == count
    return {finished.item.sample.id: finished for finished in done}


@given(st.integers(0, 40), st.integers(0, 4), st.integers(1, 9), st.integers(0, 99))
def test_every_sample_gets_its_own_replies_in_its_own_order(
    count: int, turns: int, concurrency: int, seed: int
) -> None:
    backend = Scrambled(seed, concurrency)
    done = run(backend, talk(turns), count)
    assert backend.most <= concurrency
    for number in range(count):
        finished = done[f"{number:04x}"]
        expected = f"{number}?" + "".join(f"/{turn}" for turn in range(turns))
        assert finished.score.answer == expected
        assert len(finished.responses) == turns


def test_a_failed_request_ends_only_its_sample() -> None:
    done = run(Scrambled(fail="7?/0/1"), talk(3), 12)
    failed = [i for i, finished in done.items() if finished.error]
    assert failed == ["0007"]
    assert done["0007"].score.status == "error"
    assert done["0007"].error == "the server hung up"
    assert len(done["0007"].responses) == 2


@pytest.mark.parametrize("when", ["first", "later"])
def test_a_solver_that_breaks_is_its_samples_error(when: str) -> None:
    def solve(given: Item) -> Solver:
        if when == "first" and given.sample.row["n"] == 2:
            raise KeyError("column")
        yield GenerateRequest(given.prompt)
        if given.sample.row["n"] == 2:
            raise KeyError("column")
        return Score({"accuracy": 1.0})

    done = run(Scrambled(), solve, 5)
    assert [i for i, finished in done.items() if finished.error] == ["0002"]
    assert done["0002"].error == "solver: KeyError: 'column'"


class SlowJudge:
    """Judges in the runner's threads and records how many at a time."""

    def __init__(self) -> None:
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.met = threading.Barrier(2, timeout=20)

    def judge(self, request: JudgeRequest) -> Response:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        self.met.wait()
        with self.lock:
            self.now -= 1
        return Response(finish_reason="judged", passed="1" in request.candidate)

    def interpreter(self, packages: tuple[str, ...], files: Mapping[str, bytes]) -> Interpreter:
        raise NotImplementedError


def program(given: Item) -> Solver:
    reply = yield GenerateRequest(given.prompt)
    verdict = yield JudgeRequest(reply.text, "tests", "f")
    return Score({"accuracy": float(bool(verdict.passed))})


def test_programs_are_judged_beside_the_model_and_at_once() -> None:
    judge = SlowJudge()
    done = run(Scrambled(), program, 12, judge=judge, judge_workers=2)
    assert judge.most == 2
    for i, finished in done.items():
        assert finished.score.values["accuracy"] == float("1" in str(int(i, 16)))


def test_a_program_without_a_sandbox_is_an_error_not_a_failure() -> None:
    done = run(Scrambled(), program, 2)
    assert all(finished.score.status == "error" for finished in done.values())


def test_stopping_in_the_middle_waits_for_nobody_and_starts_no_more() -> None:
    before = set(threading.enumerate())
    stream = Runner(Scrambled(), program, SlowJudge()).run(item(i) for i in range(12))
    with closing(stream):
        next(stream)
    for thread in set(threading.enumerate()) - before:
        thread.join(5.0)  # at most the one program that each has in hand
        assert not thread.is_alive()


def test_replay_gives_the_score_of_the_run_and_no_more_than_is_stored() -> None:
    done = run(Scrambled(), talk(3), 1)["0000"]
    assert replay(talk(3)(item(0)), done.responses) == done.score
    assert replay(talk(4)(item(0)), done.responses).status == "error"


class Infinite(Scrambled):
    """A model that overflowed."""

    def answer(self, request: ModelRequest) -> Response:
        return Response(logprobs=(-1.0, float("nan"), float("-inf")))


def test_a_log_probability_that_is_no_number_fails_its_sample_alone() -> None:
    done = run(Infinite(), talk(1), 3)
    for finished in done.values():
        assert finished.score.status == "error"
        assert finished.error is not None
        assert "not a finite number" in finished.error
        assert finished.responses[0].logprobs == ()


def test_a_score_that_is_no_number_fails_its_sample() -> None:
    def solve(given: Item) -> Solver:
        yield GenerateRequest(Prompt("?"))
        return Score({"accuracy": float("nan")})

    assert run(Scrambled(), solve, 1)["0000"].score.status == "error"


def test_a_replay_that_cannot_be_judged_is_an_error() -> None:
    class Broken:
        def judge(self, request: JudgeRequest) -> Response:
            return Response(error="sandbox: no", finish_reason="error")

    def solve(given: Item) -> Solver:
        yield GenerateRequest(Prompt("?"))
        verdict = yield JudgeRequest("", "", "f")
        return Score({"accuracy": float(bool(verdict.passed))})

    def broken(given: Item) -> Solver:
        yield GenerateRequest(Prompt("?"))
        raise ValueError("a reader's fault")

    stored = [Response(text="x", finish_reason="stop")]
    assert replay(solve(item(0)), stored, Broken()).status == "error"
    assert replay(broken(item(0)), stored).status == "error"
