"""What runs inside: the candidate serves calls of its function, the judge runs the tests.

Two processes, because a verdict may never come from the interpreter that ran a model's program.
The candidate can only answer calls, in plain data; the judge holds the tests and the only pipe on
which a verdict travels. Both run confined, under different identities.
"""

from __future__ import annotations

import builtins
import json
import os
import sys
from types import ModuleType
from typing import Any

from qwen_eval.sandbox.codec import BadFrameError, decode, encode, read_frame, write_frame
from qwen_eval.sandbox.confine import ConfineError, enter, give_up, hide_import_path

CALL_LIMIT = 100_000
TEXT_LIMIT = 300


def main(root: str) -> None:
    """Read the job from standard input, confine this process and play the job's role."""
    job = json.loads(sys.stdin.buffer.read())
    hide_import_path(root)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    try:
        enter(job["uid"], job["parent"], job["layout"])
        give_up(job["uid"], job["limits"])
    except (ConfineError, OSError) as error:
        print(f"{error}", file=sys.stderr, flush=True)
        os._exit(1)
    if job["role"] == "candidate":
        _serve(job["program"], job["entry_point"], *job["pipes"])
    else:
        _judge(job, *job["pipes"])


def _serve(program: str, entry_point: str, calls: int, replies: int) -> None:
    write_frame(replies, "ready")
    module = ModuleType("candidate")
    sys.modules["candidate"] = module
    sys.argv = ["candidate"]
    failure: Exception | None = None
    try:
        exec(compile(program, "candidate", "exec"), module.__dict__)
        if entry_point not in module.__dict__:
            raise NameError(f"the program defines no {entry_point}")
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
            function = module.__dict__[entry_point]
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

    def __init__(self, calls: int, replies: int) -> None:
        self._calls, self._replies = calls, replies
        self.count = 0
        self.fault = ""

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
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
            raise BadFrameError("the program ended") from None
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
        raise _rebuild(kind, content[1])


def _judge(job: dict[str, Any], calls: int, replies: int, verdicts: int) -> None:
    read_frame(replies)
    _say(verdicts, "started", "")
    candidate = _Candidate(calls, replies)
    tests = ModuleType("tests")
    try:
        try:
            exec(compile(job["preamble"], "preamble", "exec"), tests.__dict__)
        except Exception:
            # The prompt alone need not be a program; its helpers are offered, not required.
            tests = ModuleType("tests")
        # Some tests call the function by its name as well.
        tests.__dict__[job["entry_point"]] = candidate
        exec(compile(job["tests"], "tests", "exec"), tests.__dict__)
        tests.__dict__["check"](candidate)
    except BaseException as error:
        failure = f"{type(error).__name__}: {describe(error)}".rstrip(": ")
        _say(verdicts, "failed", candidate.fault or failure)
    else:
        fault = candidate.fault or ("" if candidate.count else "the tests called no function")
        _say(verdicts, "failed" if fault else "passed", fault or "passed")


def _say(verdicts: int, verdict: str, text: str) -> None:
    os.write(verdicts, (json.dumps([verdict, text]) + "\n").encode("ascii"))


def describe(error: BaseException) -> str:
    """An exception's message as one short printable line, whatever the program put there."""
    try:
        text = str(error)[: 4 * TEXT_LIMIT]
    except Exception:
        text = "a message that cannot be read"
    return "".join(letter if letter.isprintable() else " " for letter in text)[:TEXT_LIMIT].strip()


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
