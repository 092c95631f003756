"""What runs inside: the candidate serves calls of its function, the judge runs the tests.

Two processes, because a verdict may never come from the interpreter that ran a model's program.
The candidate can only answer calls, in plain data; the judge holds the tests and the only pipe on
which a verdict travels.

Where tests need the program's own objects, `alone` runs both in one process. Then a program that
sets out to can forge its verdict; results of that kind are marked. So are those of other languages,
which build.py has compiled and run.
"""

from __future__ import annotations

import builtins
import os
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from qwen_eval.sandbox.build import build
from qwen_eval.sandbox.cells import serve_cells
from qwen_eval.sandbox.codec import (
    ENDED,
    BadFrameError,
    decode,
    encode,
    read_frame,
    read_job,
    say,
    write_frame,
)
from qwen_eval.sandbox.text import LINE_LIMIT, one_line

CALL_LIMIT = 100_000


def _candidate(job: int, calls: int, replies: int) -> None:
    """`job`: a file with {program, entry_point}."""
    content = read_job(job)
    write_frame(replies, "ready")
    read_frame(calls)  # the judge has started: no program can keep it from that
    namespace: dict[str, Any] = {}
    failure: Exception | None = None
    try:
        namespace = _run(content["program"], "candidate")
        if content["entry_point"] not in namespace:
            raise NameError(f"the program defines no {content['entry_point']}")
    except Exception as error:
        failure = error
    while True:
        try:
            number, arguments, keywords = read_frame(calls)
        except BadFrameError:
            return
        try:
            if failure is not None:
                raise failure
            function = namespace[content["entry_point"]]
            result = function(*decode(arguments), **decode(keywords))
            message = [number, "returned", encode(result)]
        except Exception as error:
            message = [number, "raised", [type(error).__name__, describe(error)]]
        try:
            write_frame(replies, message)
        except ValueError as error:
            write_frame(replies, [number, "raised", ["ValueError", describe(error)]])


class _Candidate:
    """The function under test as the tests see it: a call goes over the pipe."""

    def __init__(self, calls: int, replies: int, name: str) -> None:
        self._calls, self._replies = calls, replies
        self.__name__ = name
        self.count = 0
        self.fault = ""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """What the program's function returned, or raises what it raised. Raises BadFrameError
        where the program does not play by the rules; then nothing it says counts any more."""
        try:
            return self._call(arguments, keywords)
        except BadFrameError as error:
            # Kept apart, for the tests may catch whatever is raised here.
            self.fault = describe(error)
            raise

    def _call(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        self.count += 1
        if self.fault or self.count > CALL_LIMIT:
            raise BadFrameError(self.fault or f"over {CALL_LIMIT} calls")
        # Nobody can answer a question before it was asked: its number is not to be guessed.
        number = os.urandom(8).hex()
        try:
            write_frame(self._calls, [number, encode(arguments), encode(keywords)])
        except BrokenPipeError:
            raise BadFrameError(ENDED) from None
        answer = read_frame(self._replies)
        if not isinstance(answer, list) or len(answer) != 3 or answer[0] != number:
            raise BadFrameError("an answer to no question")
        _, outcome, content = answer
        if outcome == "returned":
            return decode(content)
        if outcome != "raised" or not _are_texts(content):
            raise BadFrameError("an answer that is none")
        kind = getattr(builtins, content[0], None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            kind = RuntimeError
        if issubclass(kind, StopIteration | StopAsyncIteration):
            # It would end a loop of the tests, as in all(map(...)), before all was looked at.
            kind = RuntimeError
        raise _rebuild(kind, content[1])


def _judge(job: int, calls: int, replies: int, verdicts: int) -> None:
    """`job`: a file with {tests, preamble, entry_point}."""
    content = read_job(job)
    read_frame(replies)
    say(verdicts, "started", "")
    write_frame(calls, "begin")
    _silence()
    candidate = _Candidate(calls, replies, content["entry_point"])
    try:
        try:
            tests = _run(content["preamble"], "preamble")
        except Exception:
            # The prompt alone need not be a program; its helpers are offered, not required.
            tests = _run("", "preamble")
        # Some tests call the function by its name as well.
        tests[content["entry_point"]] = candidate
        _test(content["tests"], tests, candidate)
    except BaseException as error:
        say(verdicts, "failed", candidate.fault or _named(error))
    else:
        fault = candidate.fault or ("" if candidate.count else "the tests called no function")
        say(verdicts, "failed" if fault else "passed", fault or "passed")


def _alone(job: int, verdicts: int) -> None:
    """`job`: a file with {program, tests, preamble, entry_point}."""
    content = read_job(job)
    say(verdicts, "started", "")
    try:
        namespace = _run(content["program"], "candidate")
        if content["entry_point"] not in namespace:
            raise NameError(f"the program defines no {content['entry_point']}")
        candidate = namespace[content["entry_point"]]
        _test(content["tests"], namespace, candidate)
    except BaseException as error:
        say(verdicts, "failed", _named(error))
    else:
        say(verdicts, "passed", "passed")


def _test(tests: str, namespace: dict[str, Any], candidate: Callable[..., Any]) -> None:
    """Run the tests, and their function `check` if they define one: a program under test may be
    called that as well."""
    before = namespace.get("check")
    _run(tests, "tests", namespace)
    check = namespace.get("check")
    if check is not None and check is not before and check is not candidate:
        check(candidate)


def _run(source: str, name: str, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    """Run a program's text as the module `name`, and return its names."""
    if namespace is None:
        module = ModuleType(name)
        sys.modules[name] = module
        sys.argv = [name]
        namespace = module.__dict__
    exec(compile(source, name, "exec"), namespace)
    return namespace


def _silence() -> None:
    """What the tests print is of no interest, and must not count as the program's output."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    os.close(nothing)


def describe(error: BaseException) -> str:
    """An exception's message as one short printable line, whatever the program put there."""
    try:
        text = str(error)[: 4 * LINE_LIMIT]
    except Exception:
        text = "a message that cannot be read"
    return one_line(text)


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {describe(error)}".rstrip(": ")


def _are_texts(content: Any) -> bool:
    return (
        isinstance(content, list)
        and len(content) == 2
        and all(isinstance(part, str) for part in content)
    )


def _rebuild(kind: type[Exception], message: str) -> Exception:
    try:
        return kind(message)
    except TypeError:
        return RuntimeError(f"{kind.__name__}: {message}")


ROLES: Mapping[str, Callable[..., None]] = {
    "candidate": _candidate,
    "judge": _judge,
    "alone": _alone,
    "cells": serve_cells,
    "build": build,
}
