"""Cells of samples: run in order, beside the model, in sessions that always end."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import closing

import pytest

from qwen_eval import runner
from qwen_eval.errors import RefusedError
from qwen_eval.runner import Finished, Runner, replay
from qwen_eval.sandbox.interpreter import Cell
from qwen_eval.sessions import KEPT, SETUP_SECONDS, Sessions, shortened
from qwen_eval.types import (
    ExecuteRequest,
    GenerateRequest,
    Item,
    JudgeRequest,
    Prompt,
    Response,
    Score,
    Session,
    Solver,
)
from tests.harness.test_runner import Scrambled
from tests.harness.toys import item

Run = Callable[[list[str], str], Cell]
"""(the codes of the session before this one, this code) → what it does"""


def echo(before: list[str], code: str) -> Cell:
    return Cell("done", output=f"{len(before)}:{code}\n")


class FakeInterpreter:
    """A session of a FakeRoom's."""

    def __init__(self, room: FakeRoom, number: int) -> None:
        self.room, self.number, self.codes = room, number, list[str]()
        self.closed = threading.Event()

    def run(self, code: str, seconds: float) -> Cell:
        assert not self.closed.is_set()
        self.room.ran.append((self.number, code, seconds))
        cell = self.room.does(self.codes, code)
        self.codes.append(code)
        return cell

    def close(self) -> None:
        self.closed.set()
        self.room.count(-1)


class FakeRoom:
    """Opens sessions, and knows how many are open."""

    def __init__(self, does: Run = echo, refuses: str = "") -> None:
        self.does, self.refuses = does, refuses
        self.opened: list[FakeInterpreter] = []
        self.ran: list[tuple[int, str, float]] = []
        self.lock, self.now, self.most = threading.Lock(), 0, 0

    def count(self, change: int) -> None:
        with self.lock:
            self.now += change
            self.most = max(self.most, self.now)

    def judge(self, request: JudgeRequest) -> Response:
        raise NotImplementedError

    def interpreter(self, packages: tuple[str, ...], files: Mapping[str, bytes]) -> FakeInterpreter:
        if self.refuses:
            raise RefusedError(self.refuses)
        self.count(1)
        self.opened.append(FakeInterpreter(self, len(self.opened)))
        return self.opened[-1]


def agent(turns: int, then: Callable[[], None] = lambda: None) -> Callable[[Item], Solver]:
    """Asks the model, runs what it says, and so on; the answer is all that came out."""

    def solve(given: Item) -> Solver:
        session, seen = Session(), ""
        for _ in range(turns):
            reply = yield GenerateRequest(Prompt(f"{given.prompt.text}{seen}"))
            cell = yield ExecuteRequest(session, reply.text.splitlines()[0])
            seen += cell.text
        then()
        return Score({"accuracy": 1.0}, answer=seen)

    return solve


def run(room: FakeRoom, solve: Callable[[Item], Solver], count: int) -> dict[str, Finished]:
    stream = Runner(Scrambled(), solve, room).run(item(i) for i in range(count))
    return {finished.item.sample.id: finished for finished in stream}


def ended(room: FakeRoom) -> bool:
    return all(session.closed.wait(10) for session in room.opened) and room.now == 0


def test_each_sample_has_a_session_of_its_own_that_keeps_its_state() -> None:
    room = FakeRoom()
    done = run(room, agent(3), 12)
    assert len(room.opened) == 12
    assert ended(room)
    for number in range(12):
        finished = done[f"{number:04x}"]
        lines = str(finished.score.answer).splitlines()
        assert [line.partition(":")[0] for line in lines] == ["1", "2", "3"], "setup, then cells"
        assert all(line.partition(":")[2].startswith(f"{number}?") for line in lines)
        assert [r.finish_reason for r in finished.responses] == ["stop", "executed"] * 3


@pytest.mark.parametrize("count", [1, 3, 20])
def test_no_more_sessions_are_open_than_there_may_be(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "SESSIONS", 3)
    room = FakeRoom()
    done = run(room, agent(2), count)
    assert {finished.score.status for finished in done.values()} == {"scored"}
    assert len(done) == count
    # Of the two threads one may be closing a session still while the other opens the next.
    assert room.most <= 3 + 1
    assert ended(room)


def test_a_model_goes_on_while_a_cell_runs() -> None:
    others = threading.Barrier(5, timeout=20)

    def does(before: list[str], code: str) -> Cell:
        if code == "0?":
            others.wait()  # until four other samples have come to their ends
        return Cell("done", output="x\n")

    def solve(given: Item) -> Solver:
        reply = yield GenerateRequest(given.prompt)
        if given.prompt.text == "0?":
            yield ExecuteRequest(Session(), reply.text.removeprefix("HEADER "))
        else:
            threading.Thread(target=others.wait, daemon=True).start()
        return Score({"accuracy": 1.0})

    done = run(FakeRoom(does), solve, 5)
    assert all(finished.error is None for finished in done.values())


@pytest.mark.parametrize("how", ["raises", "backend"])
def test_a_sample_that_fails_closes_its_session(how: str) -> None:
    def fault() -> None:
        raise KeyError("column")

    room = FakeRoom()
    solve = agent(1, fault)
    if how == "backend":
        stream = Runner(Scrambled(fail="1:"), agent(2), room).run([item(0)])
        (finished,) = stream
    else:
        finished = run(room, solve, 1)["0000"]
    assert finished.score.status == "error"
    assert len(room.opened) == 1
    assert ended(room)


def test_an_interrupted_run_closes_all_sessions_at_once() -> None:
    room, held = FakeRoom(), threading.Event()

    def does(before: list[str], code: str) -> Cell:
        if before and code != "0?":
            held.wait(20)  # as a cell that ends when its session is closed
        return Cell("done")

    room.does = does
    stream = Runner(Scrambled(), agent(1), room).run(item(i) for i in range(4))
    with closing(stream):
        next(stream)
    assert ended(room)
    held.set()


def test_a_solver_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "MOST_REQUESTS", 40)

    def solve(given: Item) -> Solver:
        session = Session()
        while True:
            yield GenerateRequest(given.prompt)
            yield ExecuteRequest(session, "1")

    room = FakeRoom()
    done = run(room, solve, 2)
    assert [finished.error for finished in done.values()] == [
        "solver: asked 40 times and has not ended"
    ] * 2
    assert ended(room)


def test_what_is_wrong_with_the_sandbox_is_the_samples_error() -> None:
    done = run(FakeRoom(refuses="no namespaces"), agent(1), 2)
    assert {finished.error for finished in done.values()} == {"sandbox: no namespaces"}
    (without,) = Runner(Scrambled(), agent(1)).run([item(0)])
    assert without.error == "this task runs programs and no sandbox is open"


def test_setup_runs_once_and_again_in_a_new_process() -> None:
    def does(before: list[str], code: str) -> Cell:
        return Cell("ended", error="the session ended") if code == "die" else Cell("done")

    room = FakeRoom(does)
    sessions, session = Sessions(room.interpreter), Session(setup="import x")
    said = [sessions.run(ExecuteRequest(session, code, 2.0)) for code in ("a", "die", "b")]
    assert [code for _, code, _ in room.ran] == ["import x", "a", "die", "import x", "b"]
    assert [seconds for *_, seconds in room.ran] == [SETUP_SECONDS, 2.0, 2.0, SETUP_SECONDS, 2.0]
    assert [(r.passed, r.fault) for r in said] == [
        (True, ""), (False, "the session ended"), (True, ""),
    ]  # fmt: skip
    sessions.close_all()
    assert ended(room)
    late = sessions.run(ExecuteRequest(Session(), "a"))
    assert late.error == "sandbox: closed"
    assert ended(room)


def test_a_setup_that_fails_is_no_fault_of_the_model() -> None:
    room = FakeRoom(lambda before, code: Cell("raised", error="  File x\nImportError: no x\n"))
    said = Sessions(room.interpreter).run(ExecuteRequest(Session(setup="import x"), "1"))
    assert said.error == "sandbox: setup: ImportError: no x"


def test_of_a_cell_little_is_kept() -> None:
    png = b"\x89PNG\r\n\x1a\n..."
    cell = Cell("raised", "a" * 50_000 + "z", "7", "E" * 20_000, (png, png))
    room = FakeRoom(lambda before, code: cell if code else Cell("done"))
    said = Sessions(room.interpreter).run(ExecuteRequest(Session(), "print"))
    assert len(said.text) < KEPT + 60
    assert said.text.endswith("z\n7")
    assert f"[{50_003 - KEPT} letters left out]" in said.text
    assert len(said.fault) < KEPT + 60
    assert said.figures == (hashlib.sha256(png).hexdigest()[:16],) * 2
    assert shortened("abc", 3) == "abc"


def test_replay_takes_what_cells_put_out_from_the_run() -> None:
    finished = run(FakeRoom(), agent(2), 1)["0000"]
    assert replay(agent(2)(item(0)), finished.responses) == finished.score
    longer = replay(agent(3)(item(0)), finished.responses)
    assert longer.detail["error"] == "the solver asks for more"
    swapped = replay(agent(2)(item(0)), finished.responses[::-1])
    assert swapped.detail["error"] == "the solver asks for something else"
