"""Cutting a text to encode its shared part once must never change an id."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwen_eval.backends.encoding import PromptEncoder
from qwen_eval.model.tokenizer import FastTokenizer, TiktokenTokenizer, Tokenizer

# Words, numbers, spaces and newlines in every arrangement, and any other character in between.
PIECES = st.sampled_from(
    [" ", "  ", "\n", "\n\n", "a", "Word", "don't", "42", ".", "é", "你好", "🦀"]
)
TEXT = st.lists(PIECES | st.text(max_size=2), max_size=40).map("".join)


@pytest.fixture(scope="module", params=["qwen", "smollm2"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    if request.param == "smollm2":
        return FastTokenizer(request.getfixturevalue("smollm2"))
    package = importlib.util.find_spec("dashscope")
    assert package is not None
    assert package.submodule_search_locations
    folder = Path(package.submodule_search_locations[0])
    return TiktokenTokenizer(folder / "resources" / "qwen.tiktoken")


@given(prefix=TEXT, text=TEXT)
def test_in_two_parts_is_as_in_one(tokenizer: Tokenizer, prefix: str, text: str) -> None:
    assert PromptEncoder(tokenizer).encode(prefix, text) == tokenizer.encode(prefix + text)


def lm_eval_pair(encode: Callable[[str], list[int]], context: str, continuation: str):
    """lm_eval.api.model.TemplateLM._encode_pair for a causal model."""
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation = context[-spaces:] + continuation
        context = context[:-spaces]
    alone = encode(context)
    return alone, encode(context + continuation)[len(alone) :]


@given(prefix=TEXT, text=TEXT, option=st.sampled_from([" A", "A", " yes indeed", "\n7", "不"]))
def test_the_seam_is_lm_evals(tokenizer: Tokenizer, prefix: str, text: str, option: str) -> None:
    prompt, options = PromptEncoder(tokenizer).encode_options(prefix, text, [option])
    context, continuation = lm_eval_pair(tokenizer.encode, prefix + text, option)
    assert (prompt, options) == (context, [continuation])


def test_the_shared_part_is_read_once() -> None:
    calls: list[str] = []

    class Counting:
        splits_at_spaces = True

        def encode(self, text: str) -> list[int]:
            calls.append(text)
            return list(text.encode())

    encoder, prefix = PromptEncoder(Counting()), "many shared words " * 500 + "end. "
    for number in range(5):
        assert bytes(encoder.encode(prefix, f"q{number}")).decode() == prefix + f"q{number}"
    assert sum(len(text) > 1000 for text in calls) == 1
