"""Drives all solvers at once against one backend and one sandbox.

Each sample is a generator. A bounded number of them is alive at a time: what they yield goes to
the backend's queue or to the sandbox's workers, what comes back is sent in, and a Score ends them.
Interpreter sessions cost memory while a model thinks, so fewer are open at a time; a sample that
would open one more waits, and holds nobody up.
One-shot tasks and long conversations so share one continuous batch. Knows nothing of files.
"""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

from qwen_eval.backends.base import Backend
from qwen_eval.measures import measure_of
from qwen_eval.results import MOST
from qwen_eval.sessions import Interpreter, Sessions
from qwen_eval.types import (
    ExecuteRequest,
    Item,
    JudgeRequest,
    ModelRequest,
    Request,
    Response,
    Score,
    Session,
    Solver,
    Status,
)

SESSIONS = 16  # samples that may have interpreter sessions open at a time
MOST_REQUESTS = 100_000  # of one sample; a solver that asks for more will never end


class Judge(Protocol):
    """What judges programs: qwen_eval.sandbox.sandbox.Sandbox."""

    def judge(self, request: JudgeRequest) -> Response:
        """Run one program against its tests."""
        ...


class Room(Judge, Protocol):
    """Where programs run, cells included: again the Sandbox."""

    def interpreter(self, packages: tuple[str, ...], files: Mapping[str, bytes]) -> Interpreter:
        """Open a session that runs cells."""
        ...


@dataclass(frozen=True)
class Finished:
    """A sample's end: every response it got, its score, and what went wrong, if anything."""

    item: Item
    responses: list[Response]
    score: Score
    error: str | None = None


@dataclass
class _Live:
    item: Item
    solver: Solver
    responses: list[Response] = field(default_factory=list)
    sessions: set[Session] = field(default_factory=set)


class Runner:
    """`solve` makes an item's generator; `judge` may be None where no task runs programs."""

    def __init__(
        self,
        backend: Backend,
        solve: Callable[[Item], Solver],
        judge: Room | None = None,
        judge_workers: int = 2,
    ) -> None:
        self._backend, self._solve, self._judge = backend, solve, judge
        self._pool = ThreadPoolExecutor(judge_workers) if judge else None
        self._sessions = Sessions(judge.interpreter) if judge else None
        self._holders = 0  # samples with sessions
        self._waiting: deque[tuple[_Live, ExecuteRequest]] = deque()
        self._asked: dict[int, _Live] = {}
        self._judged: dict[Future[Response], _Live] = {}
        self._finished: deque[Finished] = deque()

    def run(self, items: Iterable[Item]) -> Generator[Finished]:
        """Yield each sample as it ends, in no particular order."""
        source = iter(items)
        concurrency = max(self._backend.info().concurrency, 1)
        exhausted = False
        try:
            while True:
                while not exhausted and self._alive() < concurrency:
                    item = next(source, None)
                    if item is None:
                        exhausted = True
                    else:
                        self._start(item)
                    if len(self._finished) >= concurrency:
                        break
                while self._finished:
                    yield self._finished.popleft()
                if self._asked:
                    for request_id, response in self._backend.step():
                        self._deliver(self._asked.pop(request_id), response)
                self._collect_judged()
                if exhausted and not (self._alive() or self._finished):
                    return
        finally:
            if self._pool and self._sessions:
                # Whoever opened the judge closes it, which ends what it still judges.
                self._pool.shutdown(wait=False, cancel_futures=True)
                self._sessions.close_all()

    def _alive(self) -> int:
        return len(self._asked) + len(self._judged) + len(self._waiting)

    def _start(self, item: Item) -> None:
        live = _Live(item, self._solve(item))
        if item.fault:
            self._fail(live, item.fault)
            return
        try:
            request = next(live.solver)
        except StopIteration as end:
            self._end(live, end.value)
        except Exception as error:
            self._fail(live, f"solver: {type(error).__name__}: {error}")
        else:
            self._ask(live, request)

    def _ask(self, live: _Live, request: Any) -> None:
        if len(live.responses) >= MOST_REQUESTS:
            self._fail(live, f"solver: asked {MOST_REQUESTS:,} times and has not ended")
        elif isinstance(request, ModelRequest):
            self._asked[self._backend.submit(request)] = live
        elif not isinstance(request, JudgeRequest | ExecuteRequest):
            self._fail(live, f"solver: it yields a {type(request).__name__}, which is no request")
        elif self._judge is None or self._pool is None:
            self._fail(live, "this task runs programs and no sandbox is open")
        elif isinstance(request, JudgeRequest):
            self._judged[self._pool.submit(self._judge.judge, request)] = live
        elif live.sessions or self._holders < SESSIONS:
            self._execute(live, request)
        else:
            self._waiting.append((live, request))

    def _execute(self, live: _Live, request: ExecuteRequest) -> None:
        assert self._pool is not None
        assert self._sessions is not None
        self._holders += not live.sessions
        live.sessions.add(request.session)
        self._judged[self._pool.submit(self._sessions.run, request)] = live

    def _release(self, live: _Live) -> None:
        """Close the sessions of a sample that has ended, and let the next one have its own."""
        if live.sessions and self._pool and self._sessions:
            for session in live.sessions:
                self._pool.submit(self._sessions.close, session)
            self._holders -= 1
            if self._waiting:
                self._execute(*self._waiting.popleft())

    def _deliver(self, live: _Live, response: Response) -> None:
        if not all(map(math.isfinite, response.logprobs)):
            reason = "the model gave a log-probability that is not a finite number"
            response = replace(response, logprobs=(), error=response.error or reason)
        live.responses.append(response)
        if response.error is not None:
            self._fail(live, response.error)
            return
        try:
            request = live.solver.send(response)
        except StopIteration as end:
            self._end(live, end.value)
        except Exception as error:
            # A scorer's fault is this sample's error; the run goes on and counts it.
            self._fail(live, f"solver: {type(error).__name__}: {error}")
        else:
            self._ask(live, request)

    def _collect_judged(self) -> None:
        if not self._judged:
            return
        # With nothing else to do, wait for a program; otherwise only look.
        timeout = 0.0 if self._asked else 1.0
        done, _ = wait(self._judged, timeout, return_when=FIRST_COMPLETED)
        for future in done:
            self._deliver(self._judged.pop(future), future.result())

    def _end(self, live: _Live, score: Any) -> None:
        if fault := _fault(score, live.item.metric):
            self._fail(live, fault)
            return
        self._release(live)
        self._finished.append(Finished(live.item, live.responses, score))

    def _fail(self, live: _Live, reason: str) -> None:
        live.solver.close()
        self._release(live)
        self._finished.append(
            Finished(live.item, live.responses, Score({}, status="error"), reason)
        )


def replay(
    solver: Solver,
    responses: Sequence[Response],
    judge: Judge | None = None,
    metric: str | None = None,
) -> Score:
    """Drive one solver with the replies a run has stored; programs are judged anew. What cells put
    out is stored as well, and is not run again.

    Ends in an error score, `detail` saying why, where more or something else is asked than is
    stored, where the judge fails, where the solver does, or where its score lacks the `metric`, if
    one is named.
    """
    stored = iter([response for response in responses if response.finish_reason != "judged"])
    try:
        request = next(solver)
        while True:
            if isinstance(request, JudgeRequest):
                assert judge is not None
                response = judge.judge(request)
            else:
                response = _stored(request, stored)
            if response.error is not None:
                solver.close()
                return _error_score(response.error)
            request = solver.send(response)
    except StopIteration as end:
        score: Score = end.value
        fault = _fault(score, metric)
        return _error_score(fault) if fault else score
    except Exception as error:
        return _error_score(f"solver: {type(error).__name__}: {error}")


def _stored(request: Request, stored: Iterator[Response]) -> Response:
    response = next(stored, None)
    if response is None:
        return Response(error="the solver asks for more")
    if (response.finish_reason == "executed") is not isinstance(request, ExecuteRequest):
        return replace(response, error=response.error or "the solver asks for something else")
    return response


def _error_score(reason: str | None) -> Score:
    return Score({}, status="error", detail={"error": reason})


def _fault(score: Any, metric: str | None) -> str | None:
    """Why a score could not be kept and read again: a scorer may be the user's own."""
    if not isinstance(score, Score):
        return f"the scorer gave a {type(score).__name__}, not a Score"
    if score.status not in get_args(Status):
        return f"the scorer gave {score.status!r}, which is no status"
    needed = metric is not None and not measure_of(metric).whole
    if score.status == "scored" and needed and metric not in score.values:
        return f"the scorer gave no {metric}, which the task is measured in"
    try:
        if not all(abs(value) <= MOST for value in score.values.values()):
            return "the scorer gave a value that is not a finite number"
        abs(score.detail.get("margin", 0.0))
        json.dumps([dict(score.detail), (score.answer or "") + ""], allow_nan=False)
    except (TypeError, ValueError, AttributeError) as error:
        return f"the scorer gave what cannot be kept: {error}"
    return None
