"""How many bytes a phase of the work has gone through, counted by all processes that share in it.

Counting costs a microsecond a block that is read and changes nothing that is made. Knows nothing of
what the work is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from ctypes import c_longlong
from multiprocessing import get_context
from typing import Any

# A phase's name, bytes it has gone through, bytes in all.
Tick = Callable[[str, int, int], None]
SECONDS = 0.5
_shared: ContextVar[Any] = ContextVar("counter", default=None)


def new_counter() -> Any:
    """A number that processes started with it may share."""
    return get_context("spawn").Value("q", 0)


def count_in(counter: Any) -> None:
    """From now on this process counts there; None, nowhere."""
    _shared.set(counter)


def counted(size: int) -> None:
    """So many more bytes are done."""
    if (counter := _shared.get()) is not None:
        with counter.get_lock():
            counter.value += size


@contextmanager
def shown(phase: str, total: int, tick: Tick, before: int = 0) -> Iterator[None]:
    """Tick at the beginning, twice a second while the block runs, and at its end.

    before: bytes of the total that an earlier start has gone through.
    """
    # Read without the lock, which a worker that was killed might hold for ever.
    number = getattr(_shared.get(), "get_obj", lambda: c_longlong(0))()
    start, ended = number.value, threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            tick(phase, max(0, min(before + number.value - start, total - 1)), total)

    tick(phase, before, total)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    tick(phase, total, total)
