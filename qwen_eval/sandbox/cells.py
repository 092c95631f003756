"""Inside an interpreter session: runs cells one after the other, in one namespace.

What a cell prints goes to the output pipe as it is printed, so that nothing is lost when its time
is up. A cell that ends in an expression shows its value; figures that are open afterwards become
PNG pictures.
"""

from __future__ import annotations

import ast
import base64
import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from types import FrameType, ModuleType
from typing import Any

from qwen_eval.sandbox.codec import BadFrameError, read_frame, read_job, write_frame

VALUE_LIMIT = 2**16
FIGURE_LIMIT, FIGURES = 2**21, 8


class CellTimeoutError(BaseException):
    """A cell's time is up. No Exception, so that `except Exception` does not swallow it."""


def serve_cells(job: int, requests: int, replies: int) -> None:
    """Answer {code, seconds} with {outcome, value, error, figures} until the harness hangs up.

    `job`: a file with {files}, by name and in base64, that the session finds in its folder.

    A fork in the middle keeps this process free of the privileges of process 1, which cannot be
    interrupted and would have to bury what others leave.
    """
    child = os.fork()
    if child:
        os.closerange(0, 64)
        _bury(child)
    for name, data in read_job(job)["files"].items():
        with open(name, "xb") as file:
            file.write(base64.b64decode(data))
    module = ModuleType("__main__")
    sys.modules["__main__"] = module
    sys.argv = [""]
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # nothing is lost
    signal.signal(signal.SIGALRM, _ring)
    own = os.getpid()
    write_frame(replies, {"ready": True})
    while True:
        try:
            request = read_frame(requests)
        except BadFrameError:
            os._exit(0)
        reply = _run_cell(request["code"], request["seconds"], module.__dict__)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        if os.getpid() != own:
            os._exit(0)  # a child that a cell forked and did not end: it has no answer to give
        try:
            write_frame(replies, reply)
        except ValueError:
            write_frame(replies, reply | {"figures": [], "value": "a value too large to show"})


def _bury(child: int) -> None:
    while True:
        pid, status = os.wait()
        if pid == child:
            os._exit(abs(os.waitstatus_to_exitcode(status)))


def _ring(number: int, frame: FrameType | None) -> None:
    # Again and again: a cell may catch the first.
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    raise CellTimeoutError


def _run_cell(code: str, seconds: float, namespace: dict[str, Any]) -> dict[str, Any]:
    reply: dict[str, Any] = {"outcome": "done", "value": None, "error": "", "figures": []}
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            value = _execute(code, namespace)
            if value is not None:
                reply["value"] = repr(value)[:VALUE_LIMIT]
            reply["figures"] = _figures()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except CellTimeoutError:
        signal.setitimer(signal.ITIMER_REAL, 0)
        reply |= {"outcome": "timeout", "error": f"stopped after {seconds:g} s"}
    except BaseException as error:
        reply |= {"outcome": "raised", "error": _trace(error)}
    return reply


def _execute(code: str, namespace: dict[str, Any]) -> Any:
    """Run a cell; the value of its last line, where that is an expression."""
    tree = ast.parse(code, "<cell>")
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "<cell>", "exec"), namespace)
    if last is None:
        return None
    assert isinstance(last, ast.Expr)
    return eval(compile(ast.Expression(last.value), "<cell>", "eval"), namespace)


def _figures() -> list[str]:
    """The open figures of matplotlib as PNG in base64; they are closed."""
    plot = sys.modules.get("matplotlib.pyplot")
    pictures = []
    if plot is not None:
        for number in plot.get_fignums()[:FIGURES]:
            file = io.BytesIO()
            plot.figure(number).savefig(file, format="png")
            if file.tell() <= FIGURE_LIMIT:
                pictures.append(base64.b64encode(file.getvalue()).decode("ascii"))
        plot.close("all")
    return pictures


def _trace(error: BaseException) -> str:
    """A traceback that begins with the cell's own lines."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [index for index, frame in enumerate(frames) if frame.filename == "<cell>"]
    shown = frames[own[0] :] if own else []
    try:
        lines = [*traceback.format_list(shown), *traceback.format_exception_only(error)]
        return "".join(lines)[-VALUE_LIMIT:]
    except Exception:
        return type(error).__name__
