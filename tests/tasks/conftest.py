"""What tests of tasks share: a sandbox whose interpreter can hold sessions."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from qwen_eval.sandbox.preflight import open_sandbox
from qwen_eval.sandbox.sandbox import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """Sessions need namespaces; where there are none, no test of theirs can run."""
    with open_sandbox() as opened:
        if "namespaces" not in opened.layers:
            pytest.skip("no namespaces here, so no sessions")
        yield opened
