"""What the tests of the pages leave as they found it."""

from __future__ import annotations

import sys

import pytest


@pytest.fixture(autouse=True)
def same_main(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamlit runs a page as `__main__` and leaves it there, and a process that is spawned later
    begins with that: it would run the page once more."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
