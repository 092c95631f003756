"""What tests share: the real data and the real model, where they are at hand."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples everywhere, and no verdict by a busy machine's clock.
settings.register_profile("project", deadline=None, derandomize=True)
settings.load_profile("project")

ROOT = Path(__file__).parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two workers, neither shall wait long for the other's last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """What is loaded by now stays: the garbage collector need not go through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def mirror() -> Path:
    """The data mirror: QWEN_EVAL_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("QWEN_EVAL_DATA") or ROOT.parent / "shared" / "data")
    if not (folder / "mmlu").is_dir():
        pytest.skip("no data mirror: set QWEN_EVAL_DATA")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The converted SmolLM2, as `qwen-eval models pull smollm2` leaves it."""
    from qwen_eval.model import smollm2

    if not smollm2.ready():
        pytest.skip("SmolLM2 is not in the cache: run `qwen-eval models pull smollm2`")
    return smollm2.folder()


@pytest.fixture(scope="session")
def smollm2_gguf(smollm2: Path) -> Path:
    """The GGUF file that SmolLM2 was converted from."""
    from qwen_eval.model.smollm2 import GGUF

    return smollm2 / GGUF
