"""Progress of long work on stderr: a live bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

LINE_SECONDS = 15.0


def eta(left: float, rate: float) -> str:
    """How long what is left takes at so much a second, such as `0:01:10`."""
    seconds = int(left / rate) if rate else 0
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}" if rate else "?"


class Progress:
    """Counts steps; `done` is how many were finished before this start. `unit`: what a step is,
    where that is not plain."""

    def __init__(self, total: int, done: int, unit: str = "") -> None:
        self.total, self.done, self._before = total, done, done
        self._unit = f" {unit}" if unit else ""
        self._began = self._printed = time.monotonic()

    def found(self, steps: int) -> None:
        """So many more turn out to have been finished before this start."""
        self.done += steps
        self._before += steps

    def advance(self, steps: int = 1) -> None:
        """One more is finished, or several."""
        self.done += steps
        now = time.monotonic()
        if now - self._printed >= LINE_SECONDS:
            self._printed = now
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """`120/200  8.1/s  ETA 0:10`."""
        elapsed = max(time.monotonic() - self._began, 1e-9)
        rate = (self.done - self._before) / elapsed
        left = eta(self.total - self.done, rate)
        return f"{self.done}/{self.total}{self._unit}  {rate:.1f}/s  ETA {left}"


class _Bar(Progress):
    def __init__(self, total: int, done: int, unit: str = "") -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as RichProgress

        super().__init__(total, done, unit)
        self.rich = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[line]}"),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self.rich.add_task("running", total=total, completed=done, line="")

    def advance(self, steps: int = 1) -> None:
        self.done += steps
        self.rich.update(self._task, completed=self.done, line=self.line())


@contextmanager
def progress(total: int, done: int = 0, unit: str = "") -> Iterator[Progress]:
    """A Progress for `total` steps of which `done` are already there."""
    if sys.stderr.isatty():
        bar = _Bar(total, done, unit)
        with bar.rich:
            yield bar
    else:
        yield Progress(total, done, unit)
